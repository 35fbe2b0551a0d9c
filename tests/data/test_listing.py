"""Which files of a folder are used, against torchvision's ImageFolder, and what is said of the others."""

import os
import warnings

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS

from fastmagn.data import load_folder_images
from fastmagn.data.files.listing import IMAGE_SUFFIXES, image_names, list_classes
from fastmagn.errors import InputError

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8))


def put(path, kind="PNG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    PICTURE.convert("L" if kind == "PPM" else "RGB").save(path, kind)


def test_nested_and_linked_folders_are_found_in_the_order_of_torchvision(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    put(elsewhere / "deep" / "x.png")
    put(elsewhere / "w.png")
    root = tmp_path / "root"
    for name in ("a/2.png", "a/10.png", "a/more/1.png", "a/more-still/1.png", "a/more/still/0.jpg", "a/Z/0.png"):
        put(root / name)
    os.symlink(elsewhere, root / "a" / "linked")
    os.symlink(elsewhere / "w.png", root / "a" / "linked.png")
    os.symlink(elsewhere, root / "b")
    reference = ImageFolder(root)
    found = list_classes(root)
    assert [str(root / image) for images in found.values() for image in images] == [
        path for path, _ in reference.samples
    ]
    assert list(found) == reference.classes
    assert len(load_folder_images(root, 8)[1]) == len(reference)


def test_every_suffix_of_torchvision_is_used():
    assert set(IMG_EXTENSIONS) <= set(IMAGE_SUFFIXES)


def test_links_in_a_circle_end(tmp_path):
    put(tmp_path / "a" / "in" / "1.png")
    os.symlink(tmp_path / "a", tmp_path / "a" / "in" / "again")
    os.symlink(".", tmp_path / "a" / "self")
    os.symlink("itself.png", tmp_path / "a" / "itself.png")
    with pytest.warns(UserWarning, match=r"not used: 1 dangling link, 2 links to folders above them\.$"):
        assert list_classes(tmp_path) == {"a": ["a/in/1.png"]}


def test_what_is_not_used_is_counted_by_reason_in_one_warning(tmp_path):
    put(tmp_path / "a" / "0.png")
    put(tmp_path / "a" / "._0.png")
    put(tmp_path / "beside.png")
    for name in ("1.txt", "2.txt", "3.xml", "README"):
        (tmp_path / "a" / name).write_text("text")
    (tmp_path / "a" / ".DS_Store").write_text("not worth a word")
    os.symlink("/nonexistent/1.jpg", tmp_path / "a" / "gone.jpg")
    os.mkfifo(tmp_path / "a" / "pipe.png")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert list_classes(tmp_path) == {"a": ["a/0.png"]}
    (warning,) = caught
    assert str(warning.message) == (
        f"{tmp_path}: files that are not used: 1 dangling link, 1 hidden, 1 not a file, 4 of another kind (.txt, .xml,"
        " no suffix), 1 outside the class folders."
    )
    assert warning.filename == __file__


def test_a_folder_of_which_nothing_is_used_says_what_it_holds(tmp_path):
    put(tmp_path / "a" / "0.png")
    (tmp_path / "b").mkdir()
    os.symlink("/nonexistent/1.jpg", tmp_path / "b" / "1.jpg")
    with pytest.raises(
        InputError, match=r"1 of 2 class folders hold no image: b; .* Not used there: 1 dangling link\."
    ):
        list_classes(tmp_path)


def test_image_names_are_those_of_the_folder_and_its_subfolders(tmp_path):
    put(tmp_path / "in" / "1.png")
    put(tmp_path / "2.png")
    assert image_names(tmp_path) == ["2.png", "in/1.png"]


FORMATS = {
    **dict.fromkeys((".jpg", ".jpeg", ".jfif"), "JPEG"),
    **{".png": "PNG", ".bmp": "BMP", ".webp": "WEBP", ".gif": "GIF", ".tif": "TIFF", ".tiff": "TIFF", ".avif": "AVIF"},
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm"), "PPM"),
}


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_every_suffix_can_be_read(tmp_path, suffix):
    """Against Pillow's own decoding of the file."""
    path = tmp_path / "a" / f"1{suffix}"
    put(path, FORMATS[suffix])
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(load_folder_images(tmp_path, 12)[0][0], expected)


@pytest.mark.parametrize("suffix", [".gif", ".tif", ".webp", ".png"])
def test_of_several_frames_the_first_is_used(tmp_path, suffix):
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / f"1{suffix}"
    frames = [Image.new("RGB", (12, 12), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:], **({"lossless": True} if suffix == ".webp" else {}))
    with Image.open(path) as image:
        assert image.n_frames == 3
    assert load_folder_images(tmp_path, 12)[0][0, 5, 5].tolist() == [255, 0, 0]
