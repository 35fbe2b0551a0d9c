"""Stored logits reach the disk before anything that is written after them; results that are not finite are printed."""

import dataclasses
import errno
import json
import os
import shutil
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from fastmagn import evaluate as evaluate_command
from fastmagn.config.eval_schema import EvalConfig
from fastmagn.corruptions import available_corruptions
from fastmagn.data import load_images
from fastmagn.errors import InputError
from fastmagn.evaluation import logits
from fastmagn.evaluation.logits import read_logits, write_logits
from fastmagn.evaluation.measure import evaluate, summarise_logits
from fastmagn.evaluation.shown import print_results
from fastmagn.machine.files import write_json
from fastmagn.machine.processes import World
from fastmagn.runs import records
from fastmagn.runs.records import log_results


def test_all_files_are_flushed_before_they_get_their_name(tmp_path, monkeypatch):
    """Each file's content, the names in the folder, and the folder's own name: all before results.json is written."""
    flushed: list[str] = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        flushed.append(("folder " if is_folder else "") + os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        real_fsync(descriptor)

    def rename(source, target) -> None:
        flushed.append(f"renamed to {os.path.basename(target)}")
        real_rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    image_set = load_images("digits", "data")
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    config = EvalConfig(num_images=5, corruption_set="c15")
    run_dir = tmp_path / "run"
    images = (image_set.test_images_u8, image_set.test_labels)
    results = evaluate(model, *images, config, device=torch.device("cpu"), logits_dir=run_dir / "logits")
    write_json(run_dir / "results.json", results)
    flushed = [name.partition(".partial-")[0] for name in flushed]
    files = {path.name for path in (run_dir / "logits").iterdir()}
    renamed = flushed.index("renamed to logits")
    assert files <= set(flushed[:renamed])
    assert flushed[renamed - 1] == "folder logits"
    assert flushed[renamed + 1 : renamed + 3] == ["folder run", "results.json"]


class WorldOfThreads(World):
    """Two processes, which are threads of this one."""

    barrier = threading.Barrier(2, timeout=300)
    given: ClassVar[list] = [None, None]

    def gather(self, value):
        self.given[self.rank] = value
        self.barrier.wait()
        values = list(self.given)
        self.barrier.wait()
        return values


@pytest.mark.parametrize("file", ["labels.npy", "clean.npy", "fog.npy", "jpeg_compression.npy"])
def test_a_disk_that_is_full_for_one_process_ends_both(file, tmp_path, monkeypatch):
    """Where the last corruption is written after the last cell, too. The logits that are there stay."""
    with write_logits(tmp_path / "logits", np.array([0, 1])) as writer:
        writer.write("clean", 0, np.zeros((2, 3), np.float32))
    real_save = logits._save

    def save(path, array):
        if path.name == file:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real_save(path, array)

    def stored(rank: int) -> str:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
        images = (image_set.test_images_u8, image_set.test_labels)
        config = EvalConfig(num_images=6, corruption_set="c15")
        world = WorldOfThreads(rank, 2)
        with pytest.raises((OSError, InputError)) as error:
            evaluate(model, *images, config, device=torch.device("cpu"), logits_dir=tmp_path / "logits", world=world)
        return str(error.value)

    image_set = load_images("digits", "data")
    monkeypatch.setattr(logits, "_save", save)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(stored, (0, 1))
    assert "No space left on device" in first
    assert "No space left on device" in second
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logits"]
    assert sorted(path.name for path in (tmp_path / "logits").iterdir()) == ["clean.npy", "labels.npy"]


@pytest.mark.parametrize("needed", [6 * 10 * 76 * 4, 6 * 10 * 26 * 4], ids=["made", "stored"])
def test_logits_without_room_end_all_processes_before_anything_is_measured(needed, tmp_path, monkeypatch):
    """The room is that of the disk on which they lie, behind a link. Those that are there stay."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "logits").symlink_to(tmp_path / "disk" / "logits")
    with write_logits(tmp_path / "logits", np.array([0, 1])) as writer:
        writer.write("clean", 0, np.zeros((2, 3), np.float32))
    image_set = load_images("digits", "data")
    images = (image_set.test_images_u8, image_set.test_labels)
    config = EvalConfig(num_images=6, corruption_set="c15")
    if needed < 6 * 10 * 76 * 4:
        config = dataclasses.replace(config, corrupted_dir=tmp_path / "set")
        (tmp_path / "set").mkdir()
        np.save(tmp_path / "set" / "labels.npy", images[1])
        for name in ("fog", "snow", "frost", "pixelate", "contrast"):
            np.save(tmp_path / "set" / f"{name}.npy", np.tile(images[0], (5, 1, 1, 1)))

    def outcome(rank: int, free: int) -> str:
        usage = {tmp_path / "disk": SimpleNamespace(free=free)}
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage[path])
        options = {"logits_dir": tmp_path / "logits", "world": WorldOfThreads(rank, 2), "class_names": "0123456789"}
        with pytest.raises((InputError, NotImplementedError)) as error:
            evaluate(nn.Module(), *images, config, device=torch.device("cpu"), **options)
        return str(error.value)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda rank: outcome(rank, needed - 1), (0, 1))
        assert first == second
        assert first.startswith(f"eval.save_logits: the logits cannot be stored in {tmp_path / 'logits'} (it needs 0.0")
        assert sorted(os.listdir(tmp_path / "disk")) == ["logits"]
        assert sorted(os.listdir(tmp_path / "logits")) == ["clean.npy", "labels.npy"]
        assert all("forward" in said for said in pool.map(lambda rank: outcome(rank, needed), (0, 1)))


@pytest.mark.parametrize("harm", [lambda content: b"", lambda content: content[:-1], lambda content: content[:40]])
def test_logits_that_are_not_whole_are_one_line(harm, tmp_path):
    with write_logits(tmp_path / "logits", np.array([0, 1])) as writer:
        writer.write("clean", 0, np.zeros((2, 3), np.float32))
        for severity in range(1, 6):
            writer.write("fog", severity, np.zeros((2, 3), np.float32))
    read_logits(tmp_path / "logits")
    for name in ("labels", "clean", "fog"):
        path = tmp_path / "logits" / f"{name}.npy"
        content = path.read_bytes()
        path.write_bytes(harm(content))
        with pytest.raises(InputError) as error:
            summarise_logits(tmp_path / "logits", EvalConfig())
        assert str(error.value).startswith(f"{path}: not a whole .npy array of plain numbers (")
        assert "\n" not in str(error.value)
        path.write_bytes(content)


class NotANumber(nn.Module):
    def forward(self, images):
        return images.mean(dim=(2, 3)) * torch.nan


def test_a_run_whose_every_logit_is_nan_ends_with_results(tmp_path, capsys, monkeypatch):
    """What training ends with: the results are written, printed and logged, without a number that nobody measured."""
    image_set = load_images("digits", "data")
    images = (image_set.test_images_u8, image_set.test_labels % 3)
    config = EvalConfig(num_images=5, corruption_set="c15")
    options = {"device": torch.device("cpu"), "logits_dir": tmp_path / "logits"}
    results = evaluate(NotANumber(), *images, config, **options)
    write_json(tmp_path / "results.json", results)
    said = " ".join(capsys.readouterr().out.split())
    assert "warning: logits are not finite for clean (5 images), gaussian_noise at severity 1 (5 images)" in said
    num_cells = 1 + 5 * sum(name in available_corruptions() for name in results["corruption_accuracy"])
    assert f"and {num_cells - 5} more" in said
    assert results["clean_accuracy"] is None
    assert set(results["mca"].values()) == {None}
    assert results["rms_calibration_error"]["clean"] is results["rms_calibration_error"]["corrupt"] is None
    assert results["subset"] == {"chosen": "first", "of": 599}
    print_results(results, "title")
    assert "clean accuracy - %" in capsys.readouterr().out
    logged = []
    events = SimpleNamespace(add_scalars=lambda scalars, step: logged.append(scalars), close=lambda: None)
    monkeypatch.setattr(records, "open_events", lambda *_: events)
    log_results(tmp_path, results, 1)
    assert logged == [{}]
    again = summarise_logits(tmp_path / "logits", config)
    assert again == {name: value for name, value in results.items() if name not in ("subset", "corrupted_as")}


def test_a_read_only_folder_is_refused_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # root may write everywhere
    out = tmp_path / "evaluation.json"
    with pytest.raises(InputError, match=rf"^out: {out} cannot be written: {tmp_path} is read-only; name another"):
        evaluate_command.main(["--logits", str(tmp_path / "none"), "--out", str(out)])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--eval.num_images", "7", "--eval.corruption_set", "cbar"], "eval.num_images, eval.corruption_set"),
        (["--eval.test_time_flip", "true"], "eval.test_time_flip"),
        (["--corrupted", "X"], "eval.corrupted_dir"),
        (["--save_logits"], "eval.save_logits"),
    ],
)
def test_fields_without_effect_on_stored_logits_are_refused(arguments, named, tmp_path):
    with pytest.raises(InputError) as error:
        evaluate_command.main(["--logits", str(tmp_path), "--eval.num_bins", "3", *arguments])
    assert str(error.value) == (
        f"logits: got {named} with --logits, which does not use it; expected of that section only eval.num_bins,"
        " eval.binning, eval.pooling. Leave it out."
    )


def test_stored_logits_are_measured_with_all_fields_that_count_and_a_file_of_any(tmp_path):
    with write_logits(tmp_path / "logits", np.array([0, 1])) as writer:
        writer.write("clean", 0, np.zeros((2, 3), np.float32))
        for severity in range(1, 6):
            writer.write("fog", severity, np.zeros((2, 3), np.float32))
    (tmp_path / "fields.yaml").write_text("eval: {num_images: 3, corruption_set: cbar}\n")
    arguments = ["--logits", str(tmp_path / "logits"), "--config", str(tmp_path / "fields.yaml")]
    fields = ["--eval.num_bins", "3", "--eval.binning", "adaptive", "--eval.pooling", "per_corruption"]
    assert evaluate_command.main([*arguments, *fields]) == 0
    measured = json.loads((tmp_path / "logits" / "evaluation.json").read_text())["rms_calibration_error"]
    assert [measured[name] for name in ("num_bins", "binning", "pooling")] == [3, "adaptive", "per_corruption"]
