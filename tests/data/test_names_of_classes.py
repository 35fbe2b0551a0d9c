"""Class names that results cannot keep are refused before a training, whatever holds them."""

import dataclasses
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from fastmagn.config.schema import Config, DataConfig
from fastmagn.data import DATASETS, load_data, load_images, load_measured
from fastmagn.data.digits import load_digits
from fastmagn.data.files import content
from fastmagn.errors import InputError
from fastmagn.evaluate import parse_arguments
from fastmagn.machine.processes import World
from fastmagn.training.run import load_on_all
from tests.helpers.photo_folders import CLASSES
from tests.helpers.shards import write_tar

UNKEPT = {
    "tab": ("ape\tbee", r"'ape\tbee'"),
    "turning": ("ape\u202bbee", r"'ape\u202bbee'"),
    "latin1": (os.fsdecode(b"caf\xe9"), r"'caf\udce9'"),
}
KEPT = " ape's café 猫"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(content, "_SETTLED_S", -3600.0)


def in_a_folder(root: Path, photos: list[Path], names: tuple[str, ...]) -> None:
    for split in ("train", "val"):
        for photo, name in zip(photos, names, strict=True):
            (root / split / name).mkdir(parents=True)
            (root / split / name / "1.jpg").symlink_to(photo)


def in_shards(root: Path, photos: list[Path], names: tuple[str, ...]) -> None:
    members = {}
    for number, (photo, name) in enumerate(zip(photos, names, strict=True)):
        members |= {f"{number}.jpg": photo.read_bytes(), f"{number}.json": json.dumps({"label": name}).encode()}
    for split in ("train", "val"):
        write_tar(root / f"{split}-000.tar", members)


def in_a_table(root: Path, photos: list[Path], names: tuple[str, ...]) -> None:
    pytest.importorskip("pyarrow", reason="needs the extra hf")
    from tests.helpers.tables import FEATURES, table, write

    features = FEATURES | {"label": {"names": list(names), "_type": "ClassLabel"}}
    for split in ("train", "validation"):
        rows = table([photo.read_bytes() for photo in photos], list(range(len(names))), features)
        write(root / "data" / f"{split}-00000-of-00001.parquet", rows)


def in_arrays(root: Path, photos: list[Path], names: tuple[str, ...]) -> None:
    arrays = {"class_names": np.array(names)}
    for split in ("train", "test"):
        arrays |= {f"{split}_images": np.zeros((len(names), 32, 32, 3), np.uint8), f"{split}_labels": np.arange(3)}
    np.savez(root / "set.npz", **arrays)


@pytest.mark.parametrize("kind", UNKEPT)
@pytest.mark.parametrize(
    ("layout", "make"),
    [("folder", in_a_folder), ("webdataset", in_shards), ("hf", in_a_table), ("npz", in_arrays)],
)
def test_names_that_results_cannot_keep_are_refused_before_the_training(layout, make, kind, photo_folder, tmp_path):
    photos = [next((photo_folder / "val" / name).iterdir()) for name in CLASSES]
    name, shown = UNKEPT[kind]
    for folder, second in (("bad", name), ("good", "b")):
        (tmp_path / folder).mkdir()
        make(tmp_path / folder, photos, ("aa", second, KEPT))
    config = DataConfig(name=layout, dir=tmp_path / "bad", image_size=32)
    message = f"{tmp_path}/bad: 1 of 3 classes have names that results cannot keep: {shown}; expected"
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        load_on_all(World(), Config(data=config))
    kept = load_data(DataConfig(name=layout, dir=tmp_path / "good", image_size=32)).class_names
    assert {name.strip() for name in kept} == {"aa", "b", KEPT.strip()}


def test_images_whose_class_names_no_results_keep_may_have_any(tmp_path):
    """Such as images of other classes (`eval.ood`); results of an evaluation name the classes."""
    names = ("a\tb", "b", "c")
    in_arrays(tmp_path, [], names)
    assert load_images("npz", tmp_path).class_names == names
    assert load_data(DataConfig(name="npz", dir=tmp_path)).class_names == names
    with pytest.raises(
        InputError, match=rf"^{re.escape(str(tmp_path))}: 1 of 3 classes have names that results cannot"
    ):
        load_measured(DataConfig(name="npz", dir=tmp_path))


def test_names_of_an_own_set_may_not_be_too_long_either(monkeypatch):
    made = dataclasses.replace(load_digits(Path(), False), class_names=("a" * 4097, *"123456789"))
    monkeypatch.setitem(DATASETS, "mine", lambda folder, download: made)
    said = r"^data\.name mine: 1 of 10 classes have names .* expected up to 4,096 characters in UTF-8"
    with pytest.raises(InputError, match=said):
        load_on_all(World(), Config(data=DataConfig(name="mine")))


@pytest.mark.parametrize("option", ["images", "classes"])
def test_paths_that_results_cannot_keep_are_refused_too(option):
    """Entries of measured folders are named by them."""
    arguments = {"images": "folder", "classes": "classes.csv"} | {option: "a\tb"}
    words = [word for name, value in arguments.items() for word in (f"--{name}", value)]
    with pytest.raises(
        InputError, match=rf"^{option}: got 'a\\tb'; expected a path whose characters can all be printed"
    ):
        parse_arguments(["--run", "run", *words])
