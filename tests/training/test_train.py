"""Whole runs on a few digits: repeatable, resumable at any step, interruptible, honest about what they refuse."""

import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fastmagn.config.command_line import parse_config
from fastmagn.config.schema import Config
from fastmagn.config.text import plain
from fastmagn.data import ImagePart, load_images, split_validation
from fastmagn.errors import InputError
from fastmagn.machine.processes import World
from fastmagn.methods.table import METHODS
from fastmagn.models import Normalised
from fastmagn.runs.paths import last_checkpoint
from fastmagn.training import loop
from fastmagn.training.run import train
from tests.helpers.commands import call
from tests.helpers.processes import LIMIT_S, ROOT, start, wait_until
from tests.helpers.small_runs import (
    DEFAULT,
    STEPS_PER_EPOCH,
    assert_same_weights,
    rows,
    state,
    weights,
    without_times,
)
from tests.helpers.small_runs import results as results_of
from tests.helpers.small_runs import (
    small_default as small,
)
from tests.helpers.steps import start_run, take_steps
from tests.helpers.tiers import slow_but


@pytest.fixture
def own_copy(undisturbed_default, tmp_path) -> Path:
    return shutil.copytree(undisturbed_default, tmp_path / "copy")


def test_a_run_folder_holds_what_the_contract_says(undisturbed_default):
    results = results_of(undisturbed_default)
    assert {
        *("clean_accuracy", "mca", "corruption_accuracy", "rms_calibration_error"),
        *("images_per_s", "environment", "config"),
    } <= results.keys()
    assert results["mca"].keys() == {"c15", "c18", "c19"}
    assert len(results["corruption_accuracy"]) == 15
    assert all(len(cells) == 5 for cells in results["corruption_accuracy"].values())
    assert all(0 <= cell <= 1 for cells in results["corruption_accuracy"].values() for cell in cells)
    assert results["mca"]["c15"] == pytest.approx(np.mean(list(results["corruption_accuracy"].values())))
    assert results["mca"]["c18"] is None  # not all of it was measured
    rms = results["rms_calibration_error"]
    assert rms.keys() >= {"clean", "corrupt", "num_bins", "binning", "pooling"}
    assert rms["num_bins"] == 3
    assert results["images_per_s"] > 0
    assert results["environment"]["torch"] == torch.__version__
    replay = parse_config(["--config", str(undisturbed_default / "config.yaml")], "test", "A test.")
    assert plain(replay) == results["config"]
    assert "auto" not in (replay.device, replay.train.amp, replay.train.compile)
    assert [row["epoch"] for row in rows(undisturbed_default)] == [0, 1]
    assert {"loss", "cross_entropy", "consistency", "jensen_shannon", "lr", "train_accuracy"} <= rows(
        undisturbed_default
    )[0].keys()
    assert not list(undisturbed_default.rglob("*.partial*"))


def test_the_same_seed_gives_the_same_losses_and_another_seed_others(undisturbed_default, tmp_path):
    train(small(tmp_path / "again"))
    assert without_times(rows(tmp_path / "again")) == without_times(rows(undisturbed_default))
    assert_same_weights(weights(tmp_path / "again"), weights(undisturbed_default))
    train(small(tmp_path / "other", "--train.seed", "1"))
    assert rows(tmp_path / "other")[0]["loss"] != rows(undisturbed_default)[0]["loss"]


@pytest.mark.parametrize("stop_after", slow_but([4, 5], 5))
def test_a_run_stopped_after_an_epoch_or_within_one_goes_on_bit_for_bit(stop_after, undisturbed_default, tmp_path):
    train(small(tmp_path / "run", "--train.max_steps", str(stop_after)))
    epoch, step = divmod(stop_after, STEPS_PER_EPOCH)
    progress = state(tmp_path / "run")["progress"]
    assert (progress["epoch"], progress["step_in_epoch"]) == (epoch, step)
    train(small(tmp_path / "run"))
    assert_same_weights(weights(tmp_path / "run"), weights(undisturbed_default))
    assert without_times(rows(tmp_path / "run")) == without_times(rows(undisturbed_default))


@pytest.mark.slow
@pytest.mark.process
def test_sigint_finishes_the_step_saves_and_the_same_command_goes_on(
    undisturbed_default, tmp_path, monkeypatch, capsys
):
    command = ["fastmagn.train", *DEFAULT, "--run_dir", "run", "--train.checkpoint_every_steps", "1"]
    process = start(command, tmp_path)
    wait_until(last_checkpoint(tmp_path / "run").exists, process)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130, (output, errors)
    assert "resumes from the last checkpoint" in output
    assert "Traceback" not in output + errors
    assert not (tmp_path / "run" / "results.json").exists()
    monkeypatch.chdir(tmp_path)
    assert "resumed at epoch" in call(command, capsys).stdout
    assert_same_weights(weights(tmp_path / "run"), weights(undisturbed_default))
    assert without_times(rows(tmp_path / "run")) == without_times(rows(undisturbed_default))


def test_a_finished_run_is_not_trained_again(own_copy, capsys):
    before = (own_copy / "results.json").read_text()
    results = train(small(own_copy))
    assert results == json.loads(before)
    assert (own_copy / "results.json").read_text() == before
    assert "is finished" in " ".join(capsys.readouterr().out.split())


def test_a_moved_run_is_called_by_its_new_folder(own_copy, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    said = call(["fastmagn.train", *DEFAULT, "--run_dir", own_copy], capsys).stdout
    assert f"run folder: {own_copy}\n" in said
    assert f"fastmagn.report {own_copy} --out report" in said.replace("\n", " ")


def test_other_evaluation_settings_measure_a_finished_run_again(own_copy):
    results = train(small(own_copy, "--eval.num_images", "21"))
    assert results["num_images"] == 21
    assert rows(own_copy)[-1]["epoch"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "standard"], "method: got 'standard'; expected 'magn_augmix', with which"),
        (["--optim.lr", "0.2"], "optim.lr: got 0.2; expected 0.1, with which"),
        (["--resume", "never"], "resume: got 'never', but"),
    ],
)
def test_a_run_folder_of_another_run_is_refused(arguments, message, own_copy):
    before = last_checkpoint(own_copy).read_bytes()
    with pytest.raises(InputError, match=r"[Nn]ame another --run_dir") as error:
        train(small(own_copy, *arguments))
    assert str(error.value).startswith(message)
    assert last_checkpoint(own_copy).read_bytes() == before


@pytest.mark.parametrize("kept", ["last.pt", "step-00000009.pt"])
def test_a_restart_by_torchrun_does_not_resume_what_was_refused(kept, own_copy, monkeypatch):
    """torchrun starts the command again after any failure, the refusal among them."""
    checkpoint = last_checkpoint(own_copy)
    checkpoint.rename(checkpoint.with_name(kept))
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    for attempt in range(3):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(attempt))
        with pytest.raises(InputError, match=f"^resume: got 'never', but .*{kept} is there"):
            train(small(own_copy, "--resume", "never"))


def test_a_restart_by_torchrun_resumes_what_it_began(tmp_path, monkeypatch):
    """Whether the restart is counted, after a failure, or not, as when a host joins; and if rank 0 moves to it."""
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")

    def attempt(count: int, run_id: str = "none") -> int:
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(count))
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", run_id)
        return train(small(tmp_path / "run", "--resume", "never"))["steps"]

    assert attempt(0, "job") == attempt(0, "job") == attempt(1, "job") > 0
    monkeypatch.setattr(os, "getppid", lambda: 1)
    for count, run_id in ((0, "job"), (1, "another"), (0, "none"), (1, "none")):
        with pytest.raises(InputError, match="resume: got 'never', but"):
            attempt(count, run_id)
    assert attempt(1, "job") > 0


@pytest.mark.parametrize("damage", ["empty", "truncated", "foreign"])
def test_a_damaged_checkpoint_is_one_clear_error(damage, undisturbed_default, tmp_path):
    path = last_checkpoint(tmp_path / "run")
    path.parent.mkdir(parents=True)
    whole = last_checkpoint(undisturbed_default).read_bytes()
    path.write_bytes({"empty": b"", "truncated": whole[: len(whole) // 2], "foreign": b"not a checkpoint" * 99}[damage])
    with pytest.raises(InputError, match=r"last\.pt") as error:
        train(small(tmp_path / "run"))
    assert "and there is no older checkpoint" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "magnn"], r"method: got 'magnn'; expected one of .*Did you mean 'magn'\?"),
        (["--data.name", "cifar01"], r"data\.name: got 'cifar01'; expected one of .*Did you mean 'cifar10'\?"),
        (["--train.batch_size", "5000"], r"train\.batch_size: got 5000"),
    ],
)
def test_unusable_arguments_name_their_field(arguments, message, tmp_path):
    with pytest.raises(InputError, match=message):
        train(small(tmp_path / "run", *arguments))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_device_is_refused(tmp_path):
    with pytest.raises(InputError, match="device: got 'cuda'; expected cpu or auto"):
        train(small(tmp_path / "run", "--device", "cuda"))


def test_divergence_stops_with_the_part_and_the_last_good_checkpoint(tmp_path):
    arguments = ["--optim.lr", "1e30", "--optim.schedule", "step", "--train.amp", "float32"]
    with pytest.raises(InputError, match=r"expected a finite number\. Lower optim\.lr"):
        train(small(tmp_path / "run", *arguments))


class Columns(nn.Module):
    """A network that answers by the pixels alone: the brightest of ten columns, the first one if several are."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, :, :, 11:21].mean(dim=(1, 2)) - 1e-3 * torch.arange(10)


def columns_accuracy(part: ImagePart) -> float:
    """Its accuracy, counted image by image in Python's integers."""
    right = 0
    for image, label in zip(part.images_u8, part.labels, strict=True):
        sums = [int(image[:, column].sum(dtype=np.int64)) for column in range(11, 21)]
        scores = [total - 1e-3 * 255 * 96 * k for k, total in enumerate(sums)]
        right += int(scores.index(max(scores)) == label)
    return right / len(part.labels)


class OneOfTwo(World):
    """A rank of two, of which the other one's are counted by itself."""

    def gather(self, value):
        return [value]

    def copy_from_first(self, tensors):
        pass


def test_validation_images_are_held_out_and_measured(tmp_path, monkeypatch):
    arguments = ["--data.num_validation_images", "151", "--train.max_steps", "4", "--train.amp", "float32"]
    config = small(tmp_path / "run", *arguments)
    seen, honest = [], loop.make_pieces
    monkeypatch.setattr(loop, "make_pieces", lambda run, batch, epoch: seen.append(batch) or honest(run, batch, epoch))
    monkeypatch.setattr(loop, "measured_model", lambda run: Normalised(Columns(), (0.0,) * 3, (1.0,) * 3))
    train(config)
    image_set = load_images("digits", "data")
    part, held_out = split_validation(image_set, 151, config.train.seed)
    expected = columns_accuracy(held_out)
    assert 0 < expected < 1
    assert expected != columns_accuracy(part)
    assert rows(tmp_path / "run")[0]["validation_accuracy"] == expected
    run = start_run(config)
    assert loop.validation_accuracy(run, held_out) == expected
    shares = [dataclasses.replace(run, world=OneOfTwo(rank, 2)) for rank in range(2)]
    assert sum(loop.validation_accuracy(share, held_out) for share in shares) == pytest.approx(expected, rel=1e-12)
    trained = {image.permute(1, 2, 0).numpy().tobytes() for batch in seen for image in batch.images}
    assert len(trained) > 800
    assert trained.isdisjoint(image.tobytes() for image in held_out.images_u8)


def test_command_prints_one_line_for_bad_input(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shown = call(["fastmagn.train", "--augment.aug_severity", "12"], capsys, expect=2)
    assert shown.stderr == "error: augment.aug_severity: got 12; expected 1..10.\n"


def one_step(config: Config) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    run = start_run(config)
    (parts,) = take_steps(run, 1)
    return parts, run.model.state_dict()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_a_step_alike_with_every_engine(method, tmp_path):
    """The numba engine's step equals the Pillow reference's: uint8 parts are equal, mixing rounds within 1e-6."""
    arguments = ["--method", method, "--train.amp", "float32", "--train.batch_size", "32"]
    parts, after = one_step(small(tmp_path, *arguments, "--augment.backend", "numba"))
    expected, after_reference = one_step(small(tmp_path, *arguments, "--augment.backend", "pil"))
    assert parts == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert all(np.isfinite(value) for value in parts.values())
    for name, value in after.items():
        torch.testing.assert_close(value, after_reference[name], rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.slow
@pytest.mark.data
def test_the_paper_recipe_steps_on_real_cifar(data_dir, tmp_path):
    for name in ("cifar10", "cifar100"):
        path = str(ROOT / "configs" / f"{name}_magn_augmix.yaml")
        arguments = [
            "--config",
            path,
            "--data.dir",
            str(data_dir),
            "--train.batch_size",
            "16",
            "--train.amp",
            "float32",
        ]
        config = parse_config([*arguments, "--device", "cpu"], "test", "A test.")
        parts, after = one_step(config)
        assert parts["cross_entropy"] == pytest.approx(np.log(10 if name == "cifar10" else 100), rel=0.5)
        assert all(torch.isfinite(value).all() for value in after.values())


@pytest.mark.slow
def test_compiled_equals_eager(tmp_path):
    arguments = ["--train.amp", "float32", "--train.batch_size", "32"]
    eager, after_eager = one_step(small(tmp_path, *arguments))
    compiled, after_compiled = one_step(small(tmp_path, *arguments, "--train.compile", "true"))
    assert compiled == pytest.approx(eager, rel=1e-4)
    for name, value in after_compiled.items():
        torch.testing.assert_close(value, after_eager[name], rtol=1e-3, atol=1e-5, msg=name)


def test_training_learns(tmp_path):
    """Eight epochs of digits: far above chance (10 %), on clean and on corrupted images."""
    arguments = ["--train.epochs", "8", "--train.batch_size", "64", "--eval.num_images", "200"]
    results = train(small(tmp_path / "run", *arguments))
    assert results["clean_accuracy"] > 0.9
    assert results["mca"]["c15"] > 0.75
    losses = [row["loss"] for row in rows(tmp_path / "run")]
    assert losses[-1] < 0.5 * losses[0]


def test_default_run_folder_names_data_method_model_and_seed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = dataclasses.replace(small(tmp_path, "--train.max_steps", "1"), run_dir=None)
    train(config)
    assert (tmp_path / "runs" / "digits-magn_augmix-resnet_small-seed0" / "results.json").exists()
