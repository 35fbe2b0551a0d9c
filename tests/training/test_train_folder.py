"""Whole runs on a folder of JPEGs, made of real CIFAR images where they are: both sources, resumed, measured."""

import dataclasses
import json
import re
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from fastmagn.config.command_line import parse_config
from fastmagn.config.eval_schema import EvalConfig
from fastmagn.config.schema import Config, DataConfig
from fastmagn.corruptions import corrupt
from fastmagn.data import FolderSource, ImageSet, load_data
from fastmagn.data.corrupted.npy import check_source
from fastmagn.data.files.crops import has_dali
from fastmagn.data.subset import even_subset
from fastmagn.errors import InputError
from fastmagn.evaluation.corruption_cache import use_cache
from fastmagn.machine.processes import World
from fastmagn.training import saving
from fastmagn.training.run import train
from fastmagn.training.same_images import warn_of_unlike_decoders
from tests.helpers.photo_folders import CLASSES, make_photo_folder
from tests.helpers.small_runs import assert_same_weights, rows, state, weights

SIDE = 32
needs_dali = pytest.mark.skipif(not has_dali(), reason="NVIDIA DALI is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_photo_folder(tmp_path_factory.mktemp("photos"), 66, 20)


def run(folder: Path, run_dir: Path, *arguments: str) -> dict:
    """A run of 20 steps, 8 an epoch, and its evaluation."""
    fields = {
        **{"data.name": "folder", "data.dir": folder, "data.image_size": SIDE, "data.num_workers": 2},
        **{"train.epochs": 3, "train.batch_size": 8, "train.max_steps": 20, "train.amp": "float32", "device": "cpu"},
        **{"eval.corruption_set": "c15", "eval.num_images": 0, "eval.save_logits": True, "run_dir": run_dir},
        **{"augment.crop_padding_px": 0, "augment.rotation_deg": 0.0, "augment.horizontal_flip": True},
    }
    own = [str(part) for name, value in fields.items() for part in (f"--{name}", value)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return train(parse_config([*own, *arguments], "test", "A test."))


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory) -> Path:
    run_dir = tmp_path_factory.mktemp("trained") / "run"
    run(folder, run_dir, "--data.source", "torchvision")
    return run_dir


def test_it_trains_and_measures_every_image_once(trained, folder):
    results = json.loads((trained / "results.json").read_text())
    assert results["steps"] == 20
    assert [row["step"] for row in rows(trained)] == [8, 16, 20]
    assert len(list((folder / "val").glob("*/*.jpg"))) == 20
    logits = np.load(trained / "logits" / "clean.npy")
    assert logits.reshape(-1, 3).shape == (20, 3)
    labels = [("ape", "bee", "cat").index(path.parent.name) for path in sorted((folder / "val").glob("*/*.jpg"))]
    assert results["clean_accuracy"] == np.mean(logits.reshape(-1, 3).argmax(axis=1) == labels)


def test_the_network_sees_the_central_squares(trained, folder):
    """Independent of the evaluation: Pillow's images, in a batch of their own."""
    from torchvision import transforms

    from fastmagn.models import build_model

    model = build_model(
        "resnet_small", num_classes=3, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), image_size=(SIDE, SIDE)
    )
    model.load_state_dict(weights(trained))
    steps = [transforms.Resize(37, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(SIDE)]
    transform = transforms.Compose([*steps, transforms.PILToTensor()])
    images = [transform(Image.open(path)) for path in sorted((folder / "val").glob("*/*.jpg"))]
    with torch.inference_mode():
        logits = model.eval()(torch.stack(images).float() / 255)
    stored = np.load(trained / "logits" / "clean.npy").reshape(-1, 3)
    np.testing.assert_allclose(logits.numpy(), stored, rtol=1e-4, atol=1e-4)


def test_kept_corruptions_are_of_the_images_that_are_measured(folder, tmp_path):
    data = DataConfig(name="folder", dir=folder, image_size=SIDE)
    asked = EvalConfig(corruption_set="c15", cache_dir=tmp_path, num_images=3)
    kept = use_cache(Config(data=data, eval=asked), World(), load_data(data)).corrupted_dir
    images = load_data(data)
    assert re.fullmatch(rf"folder{SIDE}-[0-9a-f]{{16}}-c15-n3-seed0-fastmagn.*", kept.name)
    check_source(kept, images.test_images_u8, images.test_labels)
    message = (
        rf"made of 3 images of folder, which differ from the test set's by their SHA-256\. They are {SIDE} px cut out"
        rf" of 37, those given are {SIDE} px cut out of 40\. Measure with --data\.image_size {SIDE}"
        rf" --data\.eval_resize_px 37, or make this set again with python -m fastmagn\.corrupt"
        rf" --image_size {SIDE} --resize_px 40\."
    )
    with pytest.raises(InputError, match=message):
        check_source(kept, load_data(dataclasses.replace(data, eval_resize_px=40)).test_images_u8, images.test_labels)
    rows = even_subset(images.test_labels, 3, 0)
    assert np.load(kept / "labels.npy").tolist() == 5 * images.test_labels[rows].tolist() == 5 * [0, 1, 2]
    expected = corrupt(np.asarray(images.test_images_u8[rows]), "fog", 2, seed=0, indices=rows)
    np.testing.assert_array_equal(np.load(kept / "fog.npy")[3:6], expected)


@pytest.mark.parametrize("source", ["torchvision", pytest.param("dali", marks=needs_dali)])
def test_a_run_goes_on_in_the_middle_of_an_epoch_bit_for_bit(trained, folder, tmp_path, source):
    """Stopped after 5 steps of the first epoch's 8 and after 4 of the second's; with DALI it is the same run too."""
    arguments = ["--data.source", source, "--data.num_workers", "1", "--eval.num_images", "4"]
    for steps in ("5", "12"):
        assert run(folder, tmp_path, *arguments, "--train.max_steps", steps)["steps"] == int(steps)
    run(folder, tmp_path, "--data.source", source)
    assert_same_weights(weights(tmp_path), weights(trained))
    measured = {
        run_dir: json.loads((run_dir / "results.json").read_text())["corruption_accuracy"]
        for run_dir in (trained, tmp_path)
    }
    assert measured[trained] == measured[tmp_path]


def test_changed_pixels_are_refused_and_a_checkpoint_of_an_earlier_version_resumes(tmp_path, monkeypatch, capsys):
    """Such a checkpoint has a fingerprint of names and sizes; the next one has that of the contents."""
    photos, run_dir = make_photo_folder(tmp_path / "photos", 18, 9), tmp_path / "run"
    with monkeypatch.context() as earlier:
        earlier.setattr(ImageSet, "fingerprint", ImageSet.former_fingerprint)
        run(photos, run_dir, "--train.max_steps", "1")
    capsys.readouterr()
    run(photos, run_dir, "--train.max_steps", "2")
    assert "is of an earlier version, which recognised image files by their names and sizes" in capsys.readouterr().out
    run(photos, run_dir, "--train.max_steps", "3")
    assert "earlier version" not in capsys.readouterr().out
    path = next((photos / "train" / "ape").iterdir())
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"data\.dir: .* has other training images or labels than"):
        run(photos, run_dir, "--train.max_steps", "4")


def test_changed_test_images_measure_a_finished_run_again(tmp_path, capsys):
    """Results of a version that kept no fingerprint stay as they are."""
    photos, run_dir = make_photo_folder(tmp_path / "photos", 18, 9), tmp_path / "run"
    results = run_dir / "results.json"

    def said() -> str:
        run(photos, run_dir, "--train.max_steps", "1")
        return capsys.readouterr().out

    assert "is finished" not in said()
    assert "is finished" in said()
    for path in (photos / "val" / "ape").iterdir():
        path.rename(photos / "val" / "bee" / f"ape-{path.name}")
    (photos / "val" / "ape").rmdir()
    assert f"{run_dir} was measured on other test images; it is measured again.\n" in said()
    logits = np.load(run_dir / "logits" / "clean.npy").reshape(-1, 3)
    true = [CLASSES.index(path.parent.name) for path in sorted((photos / "val").glob("*/*.jpg"))]
    assert 0 not in true
    assert json.loads(results.read_text())["clean_accuracy"] == np.mean(logits.argmax(axis=1) == true)
    assert "is finished" in said()
    older = json.loads(results.read_text())
    del older["test_fingerprint"]
    results.write_text(json.dumps(older))
    next((photos / "val" / "cat").iterdir()).rename(photos / "val" / "bee" / "cat.jpg")
    assert "is finished" in said()


def test_a_policy_of_files_resumes_to_the_bit(folder, tmp_path):
    arguments = ["--method", "ta_noise", "--data.source", "pillow", "--eval.save_logits", "false"]
    run(folder, tmp_path / "whole", *arguments)
    run(folder, tmp_path / "cut", *arguments, "--train.max_steps", "11")
    run(folder, tmp_path / "cut", *arguments)
    assert_same_weights(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


def decoding_on_the_gpu(monkeypatch) -> None:
    monkeypatch.setattr(FolderSource, "description", "DALI on the GPU")


def test_a_run_that_resumes_with_pixels_of_another_decoder_says_so(folder, tmp_path, monkeypatch, capsys):
    """Not if all of its steps are done, nor after a checkpoint of a version that did not record it."""
    arguments = ["--eval.save_logits", "false", "--eval.num_images", "3"]

    def said(steps: int) -> str:
        run(folder, tmp_path / "run", *arguments, "--train.max_steps", str(steps))
        return capsys.readouterr().out

    with monkeypatch.context() as patched:
        decoding_on_the_gpu(patched)
        assert "warning" not in said(1)
    assert state(tmp_path / "run")["decoder"] == "gpu"
    (tmp_path / "run" / "results.json").unlink()
    assert "warning" not in said(1)
    assert said(2).count("was trained on images that the GPU decoded; now the CPU decodes them") == 1
    assert state(tmp_path / "run")["decoder"] == "cpu"
    honest = saving.read_checkpoint
    monkeypatch.setattr(
        saving, "read_checkpoint", lambda *given: {k: v for k, v in honest(*given).items() if k != "decoder"}
    )
    decoding_on_the_gpu(monkeypatch)
    assert "warning" not in said(3)


@needs_dali
def test_dali_says_when_it_decodes_on_the_gpu(folder, monkeypatch):
    """`decoder_of` reads that."""
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: None)
    from fastmagn.data.files.dali_crops import DaliDecoder

    files = load_data(DataConfig(name="folder", dir=folder, image_size=SIDE)).train_images_u8.files
    for device, is_on_gpu in (("cuda", True), ("cpu", False)):
        decoder = DaliDecoder(files, DataConfig(num_workers=1), torch.device(device))
        assert ("GPU" in decoder.description) is is_on_gpu


@pytest.mark.parametrize(("others", "named"), [(("cpu", "cpu"), None), (("gpu", "cpu"), "1"), (("gpu", "gpu"), "1, 2")])
def test_ranks_that_decode_otherwise_are_named(others, named, capsys):
    class Ranks(World):
        def gather(self, value):
            return [value, *others]

    source = object.__new__(FolderSource)
    source._decoder = SimpleNamespace(description="Pillow on 2 threads")
    warn_of_unlike_decoders(SimpleNamespace(source=source, world=Ranks(0, 3)))
    said = capsys.readouterr().out
    assert said.startswith(f"warning: rank {named} decodes images otherwise than rank 0") if named else not said
