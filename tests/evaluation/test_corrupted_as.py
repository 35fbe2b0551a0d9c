"""Evaluations, made sets and caches of images of 64 px: corrupted and stored as Tiny-ImageNet-C, and they say so."""

import errno
import json
import os
import re
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fastmagn.config.eval_schema import EvalConfig
from fastmagn.config.schema import Config, DataConfig
from fastmagn.corruptions import CORRUPTION_SETS, available_corruptions, corrupt
from fastmagn.data import load_data
from fastmagn.evaluation import corruption_cache
from fastmagn.evaluation.cells import cell_parts, find_corruptions
from fastmagn.evaluation.corrupt_config import CorruptConfig
from fastmagn.evaluation.corrupted_set import SourceImages, make_corrupted_set
from fastmagn.evaluation.corruption_cache import use_cache
from fastmagn.evaluation.measure import evaluate
from fastmagn.machine.processes import World
from tests.helpers.photo_folders import make_photo_folder

pytestmark = pytest.mark.skipif("frost" not in available_corruptions(), reason="the frost pictures are not installed")

AS_STORED = {"published": "Tiny-ImageNet-C, ImageNet-64-C", "version": 2, "jpeg_quality": 85}
AS_COMPUTED = AS_STORED | {"jpeg_quality": None}
LABELS = np.array([0, 1, 2])


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    y, x = np.mgrid[:64, :64]
    return np.stack([np.dstack([x * 4 % 256, y * k % 256, (x + y) * k % 256]) for k in (1, 3, 7)]).astype(np.uint8)


def measured(images: np.ndarray, **fields) -> dict:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 3))
    config = EvalConfig(corruption_set="c15", **fields)
    return evaluate(model, images, LABELS, config, device=torch.device("cpu"), progress=False)


def test_an_evaluation_measures_the_stored_form_unless_told_otherwise(images):
    for jpeg, record in ((True, AS_STORED), (False, AS_COMPUTED)):
        config = EvalConfig(corruption_set="c15", corruption_jpeg=jpeg)
        corruptions = find_corruptions(images, LABELS, config, ())
        assert corruptions.made_as == record
        for part in cell_parts(corruptions, images, slice(None), config):
            expected = images if part.name == "clean" else corrupt(images, part.name, part.severity, jpeg=jpeg)
            np.testing.assert_array_equal(part.images_u8, expected)
    assert measured(images)["corrupted_as"] == AS_STORED


def test_cbar_is_recorded_under_its_own_name(images, tmp_path):
    for chosen, published in (("cbar", "ImageNet-C-bar"), ("c15+cbar", f"{AS_STORED['published']}, ImageNet-C-bar")):
        made_as = find_corruptions(images, LABELS, EvalConfig(corruption_set=chosen), ()).made_as
        assert made_as == AS_STORED | {"published": published}
    config = CorruptConfig(out=tmp_path / "c", dataset="digits", corruption_set="cbar")
    manifest = make_corrupted_set(config, source=SourceImages(images, LABELS, ("a", "b", "c")))
    assert manifest["corrupted_as"] == AS_STORED | {"published": "ImageNet-C-bar"}


def test_a_made_set_says_how_it_was_made_and_one_of_version_1_is_read_with_a_warning(images, tmp_path, capsys):
    config = CorruptConfig(out=tmp_path / "c", dataset="digits", corruption_set="c15")
    manifest = make_corrupted_set(config, source=SourceImages(images, LABELS, ("a", "b", "c")))
    assert manifest["corrupted_as"] == AS_STORED
    for name in CORRUPTION_SETS["c15"]:
        rows = np.load(tmp_path / "c" / f"{name}.npy")
        np.testing.assert_array_equal(rows[-3:], corrupt(images, name, 5, jpeg=True))
    results = measured(images, corrupted_dir=tmp_path / "c")
    assert results == measured(images)
    del manifest["corrupted_as"]  # as version 1 wrote it
    (tmp_path / "c" / "manifest.json").write_text(json.dumps(manifest))
    capsys.readouterr()
    old, said = measured(images, corrupted_dir=tmp_path / "c"), capsys.readouterr().out
    assert "/c: made by an earlier version, which corrupted images of this size in another way." in said
    assert old == results | {"corrupted_as": {"published": None, "version": 1, "jpeg_quality": None}}


@pytest.mark.parametrize(
    ("side", "jpeg", "mark"), [(32, True, ""), (64, True, "-version2-jpeg85"), (64, False, "-version2")]
)
def test_a_cached_set_of_another_content_has_another_name(side, jpeg, mark, tmp_path):
    folder = make_photo_folder(tmp_path / "photos", 3, 3)
    data = DataConfig(name="folder", dir=folder, image_size=side)
    section = EvalConfig(corruption_set="c15", num_images=3, cache_dir=tmp_path / "cache", corruption_jpeg=jpeg)
    made = use_cache(Config(data=data, eval=section), World(), load_data(data)).corrupted_dir
    assert f"-c15-n3-seed0{mark}-fastmagn" in made.name
    quality = json.loads((made / "manifest.json").read_bytes())["corrupted_as"]["jpeg_quality"]
    assert quality == (85 if mark.endswith("jpeg85") else None)


@pytest.mark.parametrize("is_seen_before", [True, False])
def test_a_full_disk_is_a_warning_and_the_images_are_measured_without_a_set(
    tmp_path, monkeypatch, capsys, is_seen_before
):
    data = DataConfig(name="folder", dir=make_photo_folder(tmp_path / "photos", 3, 3), image_size=32)
    section = EvalConfig(corruption_set="cbar", num_images=3, cache_dir=tmp_path / "cache")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if is_seen_before:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("Usage", "free")(1000))
    else:
        monkeypatch.setattr(os, "fsync", full)
    assert use_cache(Config(data=data, eval=section), World(), load_data(data)) is section
    printed = capsys.readouterr().out
    reason = " has 1,000 bytes free; the set needs " if is_seen_before else r"\S+ cannot be written \(No space left"
    assert re.search(rf"^warning: eval\.cache_dir: not used, as {tmp_path}/cache{reason}", printed, re.MULTILINE)
    assert "--out" not in printed
    assert os.listdir(tmp_path / "cache") == []


@pytest.mark.parametrize("what", ["set of another user", "read-only cache", "folder that cannot be made"])
def test_a_cache_that_this_user_may_not_use_is_a_warning(what, tmp_path, monkeypatch, capsys):
    data = DataConfig(name="folder", dir=make_photo_folder(tmp_path / "photos", 3, 3), image_size=32)
    cache = tmp_path / "cache"
    section = EvalConfig(corruption_set="cbar", num_images=3, cache_dir=cache)
    config, images = Config(data=data, eval=section), load_data(data)
    reason = rf"{cache}/\S+ cannot be read \(Permission denied\)"
    path_open, access, make_folder = Path.open, os.access, Path.mkdir

    def open_own(path: Path, *arguments, **options):
        if path.name == "manifest.json" and cache in path.parents:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return path_open(path, *arguments, **options)

    if what == "set of another user":
        monkeypatch.setattr(Path, "open", open_own)
    elif what == "read-only cache":
        cache.mkdir()
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != cache and access(path, mode))
        reason = rf"{cache}/\S+ cannot be written: {cache} is read-only"
    else:

        def make_own(path: Path, *arguments, **options) -> None:
            if path == cache:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            make_folder(path, *arguments, **options)

        monkeypatch.setattr(Path, "mkdir", make_own)
        reason = rf"{cache} cannot be made \(Permission denied\)"
    assert use_cache(config, World(), images) is section
    printed = capsys.readouterr().out
    assert re.search(rf"^warning: eval\.cache_dir: not used, as {reason}\. Make it usable, or", printed, re.MULTILINE)
    assert "--out" not in printed


def test_a_set_that_cannot_be_made_here_is_not_made_and_used_where_it_is(tmp_path, monkeypatch, capsys):
    data = DataConfig(name="folder", dir=make_photo_folder(tmp_path / "photos", 3, 3), image_size=32)
    section = EvalConfig(corruption_set="c15", num_images=3, cache_dir=tmp_path / "cache")
    config, images = Config(data=data, eval=section), load_data(data)
    without_frost = tuple(name for name in available_corruptions() if name != "frost")
    with monkeypatch.context() as patched:
        patched.setattr(corruption_cache, "available_corruptions", lambda: without_frost)
        assert use_cache(config, World(), images) is section
        assert "eval.cache_dir: not used, as frost cannot be made here, and no set is there." in capsys.readouterr().out
        assert not (tmp_path / "cache").exists()
    made = use_cache(config, World(), images)
    monkeypatch.setattr(corruption_cache, "available_corruptions", lambda: without_frost)
    assert use_cache(config, World(), images) == made
    assert made.corrupted_dir is not None
