"""Fewer images of a folder than all: which they are, and that every way to corrupt them gives the same ones."""

import dataclasses
import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fastmagn.config.eval_schema import EvalConfig
from fastmagn.config.schema import Config, DataConfig, TrainConfig
from fastmagn.data import load_data
from fastmagn.data.corrupted.npy import check_source
from fastmagn.data.subset import even_subset
from fastmagn.errors import InputError
from fastmagn.evaluation.corrupted_set import CorruptConfig, make_corrupted_set, verify_corrupted_set
from fastmagn.evaluation.corruption_cache import use_cache
from fastmagn.evaluation.measure import evaluate
from fastmagn.evaluation.run import evaluate_model
from fastmagn.evaluation.subset import Subset
from fastmagn.machine.processes import World
from tests.helpers.photo_folders import make_photo_folder

SIDE, RESIZE, NUM, SEED = 16, 20, 7, 5
FLOAT32 = TrainConfig(amp="float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """25 validation images: 9 apes, 8 bees, 8 cats."""
    return make_photo_folder(tmp_path_factory.mktemp("photos"), 3, 25)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 3))


def data(folder: Path) -> DataConfig:
    return DataConfig(name="folder", dir=folder, image_size=SIDE, eval_resize_px=RESIZE, num_workers=1)


def asked(**fields) -> EvalConfig:
    return EvalConfig(corruption_set="c15", **{"num_images": NUM, "corruption_seed": SEED, **fields})


def made(folder: Path, out: Path, **fields) -> Path:
    sizes = {"image_size": SIDE, "resize_px": RESIZE}
    wanted = CorruptConfig(
        out=out, dataset="folder", data_dir=folder, corruption_set="c15", **{"seed": SEED, **sizes, **fields}
    )
    make_corrupted_set(wanted)
    assert verify_corrupted_set(wanted) == []
    return out


def measured(model: nn.Module, folder: Path, tmp_path: Path, **fields) -> dict:
    config, image_set = Config(data=data(folder), eval=asked(**fields), train=FLOAT32), load_data(data(folder))
    return evaluate_model(model, image_set, config, tmp_path, device=torch.device("cpu"), world=World(), trained=None)


def test_a_folder_is_measured_evenly_by_class_and_every_way_gives_the_same(model, folder, tmp_path):
    image_set = load_data(data(folder))
    rows = even_subset(image_set.test_labels, NUM, SEED)
    assert sorted(np.bincount(image_set.test_labels[rows])) == [2, 2, 3]
    results = measured(model, folder, tmp_path)
    assert results["subset"] == {"chosen": "by class", "of": 25, "seed": SEED}
    with torch.no_grad():
        pixels = torch.from_numpy(np.asarray(image_set.test_images_u8[rows])).permute(0, 3, 1, 2).float() / 255
        correct = model(pixels).argmax(dim=1).numpy() == image_set.test_labels[rows]
    assert results["clean_accuracy"] == np.mean(correct)
    ways = {
        "all": made(folder, tmp_path / "all"),
        "more": made(folder, tmp_path / "more", num_images=12),
        "these": made(folder, tmp_path / "these", num_images=NUM),
    }
    for name, out in ways.items():
        assert measured(model, folder, tmp_path, corrupted_dir=out) == results, name
    assert measured(model, folder, tmp_path, cache_dir=tmp_path / "cache") == results
    assert measured(model, folder, tmp_path, cache_dir=tmp_path / "cache") == results
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_set_made_with_the_defaults_fits_an_evaluation_with_the_defaults(folder, tmp_path):
    out = made(folder, tmp_path / "c", num_images=3, resize_px=0)
    images = load_data(DataConfig(name="folder", dir=folder, image_size=SIDE))
    rows = even_subset(images.test_labels, 3, SEED)
    np.testing.assert_array_equal(check_source(out, images.test_images_u8, images.test_labels), rows)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["resize_px"] == 18  # 16 * 256 / 224 = 18.3


def test_a_set_of_an_earlier_version_was_not_resized_further_unless_told(folder, tmp_path):
    """Its manifest has no resize_px, whose default was image_size."""
    out = made(folder, tmp_path / "c", num_images=3, resize_px=SIDE)
    path = out / "manifest.json"
    manifest = json.loads(path.read_text())
    assert manifest.pop("resize_px") == SIDE
    path.write_text(json.dumps(manifest))
    wanted = CorruptConfig(out=out, data_dir=folder)
    assert verify_corrupted_set(wanted) == []
    (fault,) = verify_corrupted_set(dataclasses.replace(wanted, resize_px=RESIZE))
    assert "not say its resize_px; the images given were resized to 20 px. Give --resize_px (for --verify)" in fault


def test_logits_are_stored_of_the_measured_images(model, folder, tmp_path):
    measured(model, folder, tmp_path, save_logits=True)
    labels = load_data(data(folder)).test_labels
    stored = np.load(tmp_path / "logits" / "labels.npy")
    np.testing.assert_array_equal(stored, labels[even_subset(labels, NUM, SEED)])


def test_a_set_of_other_images_says_which_it_holds(model, folder, tmp_path):
    out = made(folder, tmp_path / "c", num_images=NUM, seed=SEED + 1)
    message = (
        rf"c: made of {NUM} images drawn evenly over the classes by seed {SEED + 1}; \d of the {NUM} images to measure"
        rf" are not among them\. Measure them with --eval\.num_images {NUM} \(or fewer\) --eval\.corruption_seed"
    )
    with pytest.raises(InputError, match=message):
        measured(model, folder, tmp_path, corrupted_dir=out)
    with pytest.raises(InputError, match=r"c: made of 7 images drawn evenly .*; 18 of the 25 images to measure"):
        measured(model, folder, tmp_path, corrupted_dir=out, num_images=0)


def test_other_sets_keep_their_first_images(tmp_path):
    digits = load_data(DataConfig(name="digits"))
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    config = Config(data=DataConfig(name="digits"), eval=asked(), train=FLOAT32)
    results = evaluate_model(model, digits, config, tmp_path, device=torch.device("cpu"), world=World(), trained=None)
    first = (digits.test_images_u8[:NUM], digits.test_labels[:NUM])
    options = {"device": torch.device("cpu"), "class_names": digits.class_names}
    expected = evaluate(model, *first, asked(), subset=Subset(), **options)
    assert results == expected | {"subset": {"chosen": "first", "of": 599}}


def test_another_folder_of_the_same_size_gets_a_set_of_its_own(folder, tmp_path):
    other = make_photo_folder(tmp_path / "other", 3, 25)
    changed = next((other / "val" / "ape").iterdir())
    content = bytearray(changed.read_bytes())
    content[-40] ^= 1  # of the same size, and still decoded
    changed.write_bytes(content)
    names = set()
    for place in (folder, other):
        config = Config(data=data(place), eval=asked(num_images=3, cache_dir=tmp_path / "cache"))
        names.add(use_cache(config, World(), load_data(data(place))).corrupted_dir)
    assert len(names) == 2
    assert all((name / "manifest.json").exists() for name in names)


def test_fields_of_files_name_no_other_set_for_arrays(tmp_path):
    draws = np.random.default_rng(0)
    parts = {f"{part}_images": draws.integers(0, 256, (4, 32, 32, 3), np.uint8) for part in ("train", "test")}
    np.savez(tmp_path / "mine.npz", **parts, train_labels=np.arange(4) % 2, test_labels=np.arange(4) % 2)
    section, names = asked(num_images=3, cache_dir=tmp_path / "cache"), set()
    for fields in ({}, {"image_size": 64}, {"eval_resize_px": 300}):
        config = Config(data=DataConfig(name="npz", dir=tmp_path / "mine.npz", **fields), eval=section)
        names.add(use_cache(config, World(), load_data(config.data)).corrupted_dir)
    assert len(names) == 1


def _use(folder: Path, cache: Path, barrier, results) -> None:
    barrier.wait()
    config = Config(data=data(folder), eval=asked(cache_dir=cache))
    results.put(str(use_cache(config, World(), load_data(data(folder))).corrupted_dir))


@pytest.mark.process
def test_of_runs_at_once_the_first_makes_the_set_and_the_others_take_it(folder, tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    started = [context.Process(target=_use, args=(folder, tmp_path / "cache", barrier, results)) for _ in range(2)]
    for process in started:
        process.start()
    for process in started:
        process.join(timeout=200)
    assert [process.exitcode for process in started] == [0, 0]
    (name,) = {results.get(timeout=5), results.get(timeout=5)}
    assert [str(path) for path in (tmp_path / "cache").iterdir()] == [name]
