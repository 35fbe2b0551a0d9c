"""A model of a set whose images are padded takes pictures of that set's own size, padded as numpy.pad does it."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

import fastmagn
from fastmagn.config.eval_schema import EvalConfig
from fastmagn.config.schema import Config, DataConfig
from fastmagn.data.array_images import array_set
from fastmagn.errors import InputError
from fastmagn.evaluate import main as evaluate
from fastmagn.evaluation.held_out import find_held_out
from fastmagn.evaluation.ood import find_other_sets
from fastmagn.export import main as export
from fastmagn.machine.files import write_json
from tests.helpers.published_folders import rendered_sst2
from tests.helpers.run_folders import CLASS_NAMES, made_results, make_run, plain_probabilities

# (H, W) of the set's images, and how many rows and columns are added above, below, left and right.
SIZES = {(28, 28): ((2, 2), (2, 2)), (32, 21): ((0, 0), (5, 6))}


def random_u8(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)


def padded(images_u8: np.ndarray) -> np.ndarray:
    return np.pad(images_u8, ((0, 0), *SIZES[images_u8.shape[1:3]], (0, 0)), mode="edge")


def saved(images_u8: np.ndarray, folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i}.png" for i in range(len(images_u8))]
    for path, image in zip(paths, images_u8, strict=True):
        Image.fromarray(image).save(path)
    return paths


def padded_run(run_dir: Path, size: tuple[int, int]) -> torch.nn.Module:
    config, model = make_run(run_dir, "--data.name", "npz", results=False)
    write_json(run_dir / "results.json", made_results(config, padded_from=list(size)))
    return model


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", ["run", "safetensors", "onnx"])
def test_pictures_and_arrays_of_the_sets_own_size_are_padded(tmp_path, size, kind):
    model, file = padded_run(tmp_path / "run", size), tmp_path / "run"
    if kind != "run":
        file = tmp_path / f"model.{kind}"
        export(["--run", str(tmp_path / "run"), "--format", kind, "--out", str(file)])
        card = file.with_name(f"{file.name}.md").read_text()
        assert f"for 32x32 px images ({size[0]}x{size[1]} px, padded by repeating the pixels of their edges)" in card
    classifier = fastmagn.load(file, device="cpu")
    images_u8 = random_u8(4, *size, 3)
    wanted = plain_probabilities(model, padded(images_u8))
    floats = (images_u8 / 255).astype(np.float32)
    paths = saved(images_u8, tmp_path)
    for images in (images_u8, images_u8.transpose(0, 3, 1, 2), floats, torch.from_numpy(floats), paths):
        np.testing.assert_allclose(classifier.predict(images).probabilities, wanted, atol=1e-5)
    for images in (paths, saved(padded(images_u8), tmp_path / "padded")):  # padded ones are taken as they are
        np.testing.assert_allclose(classifier.predict(images, resize=True).probabilities, wanted, atol=1e-5)


def test_a_larger_picture_is_resized_to_the_sets_own_size_and_padded(tmp_path):
    model = padded_run(tmp_path / "run", (28, 28))
    classifier = fastmagn.load(tmp_path / "run", device="cpu")
    picture = Image.fromarray(random_u8(56, 60, 3))
    with pytest.raises(InputError) as error:
        classifier.predict(picture)
    assert str(error.value) == (
        "image: got 60 x 56 px; expected 32 x 32, as the model was trained on, or 28 x 28 px, which are padded as in "
        "the training. With resize=True its shorter side is resized and its centre is cut out."
    )
    central = np.asarray(picture.resize((28, 28), Image.Resampling.BICUBIC, box=(2, 0, 58, 56)))
    wanted = plain_probabilities(model, padded(central[None]))
    np.testing.assert_allclose(classifier.predict(picture, resize=True).probabilities, wanted, atol=1e-5)


def test_runs_and_files_of_earlier_versions_are_known_by_the_name_of_the_set(tmp_path):
    config, _ = make_run(tmp_path / "run", "--data.name", "torchvision:EMNIST-letters", results=False)
    write_json(tmp_path / "run" / "results.json", made_results(config))
    file = tmp_path / "model.safetensors"
    export(["--run", str(tmp_path / "run"), "--format", "safetensors", "--out", str(file)])
    header = json.loads(safetensors.safe_open(file, "pt").metadata()["fastmagn"])
    assert (header["format_version"], header.pop("padded_from")) == (2, [28, 28])
    metadata = {"fastmagn": json.dumps(header | {"format_version": 1})}
    safetensors.torch.save_file(safetensors.torch.load_file(file), tmp_path / "old.safetensors", metadata=metadata)
    for place in (tmp_path / "run", tmp_path / "old.safetensors"):
        assert fastmagn.load(place, device="cpu").info.padded_from == (28, 28)


def test_folders_of_an_evaluation_are_padded(tmp_path):
    images_u8, labels = random_u8(4, 28, 28), np.arange(4)
    paths = saved(images_u8, tmp_path / "images" / "0")
    part = (images_u8, labels)
    image_set = array_set("npz", tmp_path, class_names=CLASS_NAMES, train=part, test=part)
    wanted = padded(np.stack([images_u8] * 3, axis=3))
    folder = str(tmp_path / "images")
    config = Config(data=DataConfig(name="npz"), eval=EvalConfig(ood=folder, temperature_images=folder))
    assert len(paths) == 4
    np.testing.assert_array_equal(np.asarray(find_other_sets(config, image_set)[folder][1:]), wanted[1:])
    np.testing.assert_array_equal(np.asarray(find_held_out(config, image_set, None).images_u8), wanted)


def test_photographs_of_a_published_set_are_padded(tmp_path):
    """The central 40x40 px of each 40x48 px, made 28x28 px as the set's own images are."""
    rendered_sst2(tmp_path)
    part = (random_u8(4, 28, 28), np.arange(4))
    image_set = array_set("npz", tmp_path, class_names=CLASS_NAMES, train=part, test=part)
    name = "torchvision:RenderedSST2"
    config = Config(data=DataConfig(name="npz", dir=tmp_path), eval=EvalConfig(ood=name))
    found = np.asarray(find_other_sets(config, image_set)[name])
    pictures = [Image.open(path) for path in sorted((tmp_path / "rendered-sst2" / "test").rglob("*.png"))]
    squares = [picture.resize((28, 28), Image.Resampling.BICUBIC, box=(4, 0, 44, 40)) for picture in pictures]
    np.testing.assert_array_equal(found, padded(np.stack([np.asarray(square) for square in squares])))


def test_evaluated_images_are_padded(tmp_path):
    """Each picture lies in the folder of the class that the network gives to its padded pixels."""
    model = padded_run(tmp_path / "run", (28, 28))
    images_u8 = random_u8(12, 28, 28, 3) // np.arange(1, 13, dtype=np.uint8)[:, None, None, None]
    labels = plain_probabilities(model, padded(images_u8)).argmax(axis=1)
    upscaled = np.stack([np.asarray(Image.fromarray(image).resize((32, 32))) for image in images_u8])
    assert (plain_probabilities(model, upscaled).argmax(axis=1) != labels).any()
    for label in np.unique(labels):
        saved(images_u8[labels == label], tmp_path / "images" / str(label))
    out, folder = tmp_path / "out.json", str(tmp_path / "images")
    arguments = ["--run", str(tmp_path / "run"), "--images", folder, "--out", str(out), "--device", "cpu"]
    assert evaluate([*arguments, "--train.amp", "float32"]) == 0
    entry = json.loads(out.read_text())["image_folders"][folder]
    assert entry["num_images"] == 12
    assert entry["all_classes"]["accuracy"] == 1
