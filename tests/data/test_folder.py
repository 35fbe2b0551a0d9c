"""Images from class folders: torchvision's transform, every mode, and files that are not what they should be."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.datasets import ImageFolder

from fastmagn.data import load_folder_images
from fastmagn.data.files import decoding
from fastmagn.data.subset import even_subset
from fastmagn.errors import InputError

RNG = np.random.default_rng(1)


def random_pixels(height: int, width: int) -> np.ndarray:
    """Smooth enough that JPEG keeps them, of all colours: uint8 [height, width, 3]."""
    small = RNG.integers(0, 256, (4, 5, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def save(root, name: str, image: Image.Image | np.ndarray, **options) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(path, **options)


SIZES = [(40, 40), (40, 41), (41, 40), (37, 90), (90, 37), (20, 33), (16, 16), (16, 21), (200, 301)]


@pytest.mark.parametrize("image_size", [16, 25])
def test_equal_to_torchvision(tmp_path, image_size):
    suffixes = ["jpg", "JPEG", "png", "bmp", "webp", "ppm"]
    for i, (height, width) in enumerate(SIZES):
        save(tmp_path, f"class{i % 3}/{9 - i}.{suffixes[i % 6]}", random_pixels(height, width))
    images_u8, labels, class_names = load_folder_images(tmp_path, image_size)
    reference = ImageFolder(
        tmp_path,
        transforms.Compose(
            [
                transforms.Resize(image_size, transforms.InterpolationMode.BICUBIC),
                transforms.CenterCrop(image_size),
                transforms.PILToTensor(),
            ]
        ),
    )
    assert class_names == tuple(reference.classes)
    assert labels.dtype == np.int64
    assert labels.tolist() == reference.targets
    expected = torch.stack([image for image, _ in reference]).permute(0, 2, 3, 1).numpy()
    assert images_u8.dtype == np.uint8
    np.testing.assert_array_equal(images_u8, expected)


def test_a_val_folder_is_used_where_there_is_one(tmp_path):
    save(tmp_path, "train/a/1.png", random_pixels(8, 8))
    save(tmp_path, "val/x/1.png", random_pixels(8, 8))
    save(tmp_path, "val/y/1.png", random_pixels(8, 8))
    assert load_folder_images(tmp_path, 8)[2] == ("x", "y")


def test_order(tmp_path):
    levels = {"b/10.png": 30, "b/2.png": 40, "a/z.png": 20, "a/Z.png": 10, "a/.hidden.png": 99, ".git/x.png": 99}
    for name, level in levels.items():
        save(tmp_path, name, np.full((8, 8, 3), level, np.uint8))
    (tmp_path / "a" / "notes.txt").write_text("not looked at")
    (tmp_path / "b" / "folder.png").mkdir()
    (tmp_path / "readme.md").write_text("nor this")
    with pytest.warns(UserWarning, match=r": files that are not used: 1 hidden, 1 of another kind \(\.txt\)\.$"):
        images_u8, labels, class_names = load_folder_images(tmp_path, 8)
    assert images_u8[:, 0, 0, 0].tolist() == [10, 20, 30, 40]
    assert labels.tolist() == [0, 0, 1, 1]
    assert class_names == ("a", "b")


def as_stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """What a camera stores so that a viewer, by the EXIF definition of its orientation, shows `upright`."""
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright),  # to be turned by 90 degrees clockwise
        7: np.rot90(upright, 2).swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    return np.ascontiguousarray(turned)


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    upright = random_pixels(24, 24)
    save(tmp_path, "a/1.png", as_stored(upright, orientation), exif=exif_of(orientation))
    np.testing.assert_array_equal(load_folder_images(tmp_path, 24)[0][0], upright)


@pytest.mark.parametrize("mode", ["L", "I;16", "RGB", "RGBA"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_raw_tiff_that_is_not_square_is_turned_upright(tmp_path, mode, orientation):
    """Pillow would map some of them into memory, with sides that are swapped already."""
    rgb = random_pixels(24, 40)
    pixels = {
        "L": rgb[..., 0],
        "I;16": rgb[..., 0].astype(np.uint16) << 8,
        "RGB": rgb,
        "RGBA": np.dstack([rgb, np.full((24, 40), 99, np.uint8)]),
    }[mode]
    path = tmp_path / "a" / "1.tif"
    path.parent.mkdir()
    image = Image.fromarray(as_stored(pixels, orientation))
    assert image.mode == mode
    image.save(path, exif=exif_of(orientation))
    expected = rgb if mode.startswith("RGB") else np.repeat(rgb[..., :1], 3, 2)
    np.testing.assert_array_equal(np.asarray(decoding.open_upright_rgb(path)), expected)
    np.testing.assert_array_equal(load_folder_images(tmp_path, 24)[0][0], expected[:, 8:32])


def test_modes(tmp_path):
    rgb = random_pixels(16, 16)
    grey = rgb[..., 0].copy()
    alpha = Image.fromarray(np.dstack([rgb, RNG.integers(0, 256, (16, 16), np.uint8)]))
    index = (np.arange(256, dtype=np.uint8) % 7).reshape(16, 16)
    palette = Image.frombytes("P", (16, 16), index.tobytes())
    palette.putpalette([value for i in range(7) for value in (30 * i, 200 - 20 * i, 5 * i)])
    deep = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    cases = {
        "alpha": (alpha, {}, rgb),
        "bilevel": (Image.fromarray(grey > 99), {}, np.repeat(np.where(grey > 99, 255, 0)[..., None], 3, 2)),
        "deep": (Image.fromarray(deep), {}, np.repeat((deep // 256)[..., None], 3, 2)),
        "grey": (grey, {}, np.repeat(grey[..., None], 3, 2)),
        "grey_alpha": (Image.fromarray(np.dstack([grey, 255 - grey]), "LA"), {}, np.repeat(grey[..., None], 3, 2)),
        "palette": (palette, {}, np.stack([30 * index, 200 - 20 * index, 5 * index], -1)),
        "palette_see_through": (
            palette,
            {"transparency": bytes([0, 128, 255])},
            np.stack([30 * index, 200 - 20 * index, 5 * index], -1),
        ),
    }
    for name, (image, options, _) in cases.items():
        save(tmp_path, f"{name}/1.png", image, **options)
    images_u8, _, class_names = load_folder_images(tmp_path, 16)
    assert class_names == tuple(cases)
    for pixels, (name, (_, _, expected)) in zip(images_u8, cases.items(), strict=True):
        np.testing.assert_array_equal(pixels, expected, err_msg=name)


def test_cmyk(tmp_path):
    c, m, y, k = 40, 200, 90, 60
    save(tmp_path, "a/1.jpg", Image.new("CMYK", (16, 16), (c, m, y, k)), quality=100)
    expected = [(255 - ink) * (255 - k) / 255 for ink in (c, m, y)]
    assert np.abs(load_folder_images(tmp_path, 16)[0][0] - np.array(expected)).max() <= 2


def test_unreadable_files_are_left_out_and_counted(tmp_path):
    for i in range(6):
        save(tmp_path, f"a/{i}.jpg", np.full((64, 64, 3), 40 * i, np.uint8))
    save(tmp_path, "b/1.png", random_pixels(64, 64))
    for name in ("a/2.jpg", "b/1.png"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) * 2 // 3])
    (tmp_path / "a" / "0.jpg").write_bytes(b"")
    save(tmp_path, "b/2.png", np.full((64, 64, 3), 7, np.uint8))
    message = r"3 of 8 image files cannot be read: .*0\.jpg \(.*\), .*2\.jpg \(.*\), .*1\.png \(.*\)\. They are left"
    with pytest.warns(UserWarning, match=message) as caught:
        images_u8, labels, class_names = load_folder_images(tmp_path, 16)
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)
    assert np.abs(images_u8[:, 8, 8, 0].astype(int) - [40, 120, 160, 200, 7]).max() <= 1
    assert labels.tolist() == [0, 0, 0, 0, 1]
    assert class_names == ("a", "b")
    with pytest.warns(UserWarning, match="3 of 8 image files"):  # unreadable files do not count
        drawn, drawn_labels, _ = load_folder_images(tmp_path, 16, num_images=3, seed=4)
    np.testing.assert_array_equal(drawn, images_u8[even_subset(labels, 3, 4)])
    assert np.bincount(drawn_labels).tolist() == [2, 1]


def test_another_image_is_drawn_for_one_that_cannot_be_decoded(tmp_path, monkeypatch):
    for i in range(8):
        save(tmp_path, f"{'ab'[i // 4]}/{i}.png", np.full((8, 8, 3), 30 * i, np.uint8))
    labels = np.repeat([0, 1], 4)
    first = even_subset(labels, 4, 0)
    spoilt = tmp_path / "ab"[labels[first[0]]] / f"{first[0]}.png"
    honest = decoding.central_square

    def fails_for_one(image, *sizes):
        if np.asarray(image).flat[0] == 30 * first[0]:
            raise ValueError("spoilt")
        return honest(image, *sizes)

    monkeypatch.setattr(decoding, "central_square", fails_for_one)
    with pytest.warns(UserWarning, match=rf"1 of 8 image files cannot be read: {spoilt} \(spoilt\)\. It is left"):
        images_u8, drawn_labels, _ = load_folder_images(tmp_path, 8, num_images=4)
    kept = np.delete(np.arange(8), first[0])
    expected = kept[even_subset(labels[kept], 4, 0)]
    assert images_u8[:, 0, 0, 0].tolist() == (30 * expected).tolist()
    assert drawn_labels.tolist() == labels[expected].tolist()


def test_four_unreadable_files_are_not_all_named(tmp_path):
    save(tmp_path, "a/9.png", random_pixels(8, 8))
    for i in range(4):
        (tmp_path / "a" / f"{i}.png").write_text("no picture")
    with pytest.warns(UserWarning, match=r"4 of 5 .*0\.png .*1\.png .*2\.png \([^)]*\) and 1 more\."):
        load_folder_images(tmp_path, 8)


def eps() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "EPS")
    return buffer.getvalue()


def bomb() -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(buffer, "PNG")
    return buffer.getvalue()


def line() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (1, 60_000)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot identify image file"),
        (b"hello", "cannot identify image file"),
        (eps(), "cannot identify image file"),
        (b"\x89PNG\r\n\x1a\n" + 40 * b"\0", ""),
        (bomb(), "decompression bomb"),
        (line(), "1 x 60000 px would become 64 x 3840000 px"),
    ],
)
def test_a_folder_of_nothing_readable(tmp_path, content, reason):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(content)
    with pytest.raises(InputError, match=f"1 of 1 image files cannot be read: .*1.png.*{reason}.*No image is left"):
        load_folder_images(tmp_path, 64)


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match=r"none: no such folder; expected one with CLASS/IMAGE in it, IMAGE one of"):
        load_folder_images(tmp_path / "none", 8)
    with pytest.raises(InputError, match="has no class folders; expected CLASS/IMAGE"):
        load_folder_images(tmp_path, 8)
    for name in "edcba":
        (tmp_path / name).mkdir()
    save(tmp_path, "c/1.png", random_pixels(8, 8))
    with pytest.raises(InputError, match=r"4 of 5 class folders hold no image: a, b, d and 1 more; .*Remove these"):
        load_folder_images(tmp_path, 8)
    for wrong in (0, 4097, None, 8.0, True):
        with pytest.raises(InputError, match=rf"image_size: got {wrong}; expected the side of the square images, 1"):
            load_folder_images(tmp_path, wrong)


def test_sizes_and_numbers_are_integers_of_any_kind(photo_folder):
    images_u8, labels, _ = load_folder_images(photo_folder, 16, num_images=4, resize_px=20)
    again = load_folder_images(photo_folder, np.int64(16), num_images=np.uint8(4), resize_px=np.int32(20))
    np.testing.assert_array_equal(again[0], images_u8)
    np.testing.assert_array_equal(again[1], labels)
    for wrong in ({"num_images": "4"}, {"num_images": 2.0}, {"resize_px": "20"}, {"num_images": True}):
        (name, value) = next(iter(wrong.items()))
        with pytest.raises(InputError, match=f"{name}: got {value!r}; expected"):
            load_folder_images(photo_folder, 16, **wrong)
