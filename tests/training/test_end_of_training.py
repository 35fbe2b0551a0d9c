"""What happens once the steps are done: what is still to be saved, whose results count, what the start says then."""

import errno
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from fastmagn.errors import InputError, Interrupted
from fastmagn.runs.checkpoint_folder import put_results_aside
from fastmagn.runs.paths import last_checkpoint
from fastmagn.training import loop, saving
from fastmagn.training import run as run_module
from fastmagn.training.callbacks import Callbacks, StepDone
from fastmagn.training.run import train
from tests.helpers.small_runs import STEPS_PER_EPOCH, knows_the_network, measures_little, results, small, state

LAST_STEP = 1
SHORT = ("--train.max_steps", str(LAST_STEP))
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture(autouse=True)
def _network(monkeypatch):
    knows_the_network(monkeypatch)
    measures_little(monkeypatch)


@pytest.fixture
def own_copy(undisturbed, tmp_path) -> Path:
    return shutil.copytree(undisturbed, tmp_path / "copy")


def failing_evaluation(monkeypatch, failure: BaseException) -> None:
    def evaluate_model(*arguments, **options):
        raise failure

    monkeypatch.setattr(run_module, "evaluate_model", evaluate_model)


def retrained(run_dir: Path, monkeypatch, *arguments: str) -> None:
    """Train anew in the folder of a finished run, whose checkpoints somebody removed, until the evaluation begins."""
    shutil.rmtree(run_dir / "checkpoints")
    with monkeypatch.context() as patched:
        failing_evaluation(patched, Interrupted(signal.SIGINT))
        with pytest.raises(Interrupted):
            train(small(run_dir, *arguments))


def test_results_of_a_training_before_are_not_those_of_the_next_one(own_copy, monkeypatch, capsys):
    """The evaluation of the first one is kept under another name."""
    (own_copy / "evaluation.json").write_text("{}")
    (own_copy / "logits").mkdir()
    (own_copy / "logits" / "labels.npy").write_text("")
    before = (own_copy / "results.json").read_text()
    retrained(own_copy, monkeypatch, "--optim.lr", "0.05")
    assert (own_copy / "results.json.before").read_text() == before
    assert sorted(path.name for path in own_copy.glob("*.before")) == [
        "evaluation.json.before",
        "logits.before",
        "results.json.before",
    ]
    assert not any((own_copy / name).exists() for name in ("results.json", "evaluation.json", "logits"))
    assert f"{own_copy / 'results.json'} is of an earlier training; it is now results.json.before.\n" in (
        capsys.readouterr().out
    )
    measured = train(small(own_copy, "--optim.lr", "0.05"))
    assert measured["config"]["optim"]["lr"] == results(own_copy)["config"]["optim"]["lr"] == 0.05


def test_what_is_put_aside_is_of_one_training(tmp_path):
    for name in ("results.json", "evaluation.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "logits").mkdir()
    (tmp_path / "logits" / "of_the_first.npy").write_text("")
    put_results_aside(tmp_path)
    (tmp_path / "logits").mkdir()
    (tmp_path / "logits" / "of_the_second.npy").write_text("")
    put_results_aside(tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "logits.before",
        "logits.before/of_the_second.npy",
    ]
    put_results_aside(tmp_path)  # nothing was measured since
    assert os.listdir(tmp_path) == ["logits.before"]


def test_logits_on_another_disk_are_put_aside_each_time(tmp_path):
    """What the link leads to is left as it is."""
    run_dir, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    run_dir.mkdir()
    for number in ("1", "2"):
        (elsewhere / number).mkdir(parents=True)
        (elsewhere / number / "labels.npy").write_text("")
        (run_dir / "logits").symlink_to(elsewhere / number)
        put_results_aside(run_dir)
        assert os.listdir(run_dir) == ["logits.before"]
        assert (run_dir / "logits.before").readlink() == elsewhere / number
    assert sorted(os.listdir(elsewhere)) == ["1", "2"]


@pytest.mark.parametrize("is_link", [False, True])
def test_an_empty_folder_for_logits_is_not_of_an_earlier_training(is_link, tmp_path, capsys):
    """Somebody made it, perhaps as a link to a larger disk."""
    run_dir, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    run_dir.mkdir()
    elsewhere.mkdir()
    logits = run_dir / "logits"
    if is_link:
        logits.symlink_to(elsewhere)
    else:
        logits.mkdir()
    put_results_aside(run_dir)
    assert os.listdir(run_dir) == ["logits"]
    assert logits.is_symlink() == is_link
    assert capsys.readouterr().out == ""


def test_logits_that_cannot_be_listed_are_of_an_earlier_training(tmp_path, monkeypatch):
    def fails(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    (tmp_path / "logits").mkdir()
    monkeypatch.setattr(Path, "iterdir", fails)
    put_results_aside(tmp_path)
    assert os.listdir(tmp_path) == ["logits.before"]


def test_results_of_another_training_beside_a_checkpoint_are_measured_again(own_copy, monkeypatch, capsys):
    """As earlier versions left them."""
    before = results(own_copy)
    retrained(own_copy, monkeypatch, "--optim.lr", "0.05")
    (own_copy / "results.json.before").rename(own_copy / "results.json")
    capsys.readouterr()
    measured = train(small(own_copy, "--optim.lr", "0.05"))
    said = f"{own_copy} was measured after another training (optim.lr was 0.1, is 0.05); it is measured again.\n"
    assert said in capsys.readouterr().out
    assert before["config"]["optim"]["lr"] == 0.1
    assert measured["config"]["optim"]["lr"] == results(own_copy)["config"]["optim"]["lr"] == 0.05


def refusing(monkeypatch, times: int) -> None:
    """The disk refuses the checkpoint of the last step so many times."""
    honest, refused = saving.put_checkpoint, []

    def put_checkpoint(run_dir, step, *arguments):
        if step == LAST_STEP and len(refused) < times:
            refused.append(step)
            raise FULL
        honest(run_dir, step, *arguments)

    monkeypatch.setattr(saving, "put_checkpoint", put_checkpoint)
    monkeypatch.setattr(saving, "LAST_PAUSE_S", 0.0)


@pytest.mark.parametrize(
    ("failure", "times"),
    [(InputError("eval.x: no"), 1), (FULL, 2), (ValueError("a bug"), 2), (Interrupted(signal.SIGINT), 2)],
)
def test_a_refused_last_checkpoint_is_saved_though_the_evaluation_fails(failure, times, tmp_path, monkeypatch, capsys):
    """Before the evaluation; or after it, if the disk has room only then."""
    refusing(monkeypatch, times)
    failing_evaluation(monkeypatch, failure)
    with pytest.raises((InputError, type(failure))) as raised:
        train(small(tmp_path / "run", *SHORT))
    assert failure in (raised.value, raised.value.__cause__)
    assert state(tmp_path / "run")["step"] == LAST_STEP
    assert "checkpoint of step 1 saved\n" in capsys.readouterr().out


@pytest.mark.parametrize("failure", [InputError("eval.x: no"), Interrupted(signal.SIGINT)])
def test_weights_that_are_lost_are_named_beside_the_failure_of_the_evaluation(failure, tmp_path, monkeypatch, capsys):
    refusing(monkeypatch, 100)
    failing_evaluation(monkeypatch, failure)
    with pytest.raises(type(failure)) as raised:
        train(small(tmp_path / "run", *SHORT))
    assert raised.value is failure
    assert not last_checkpoint(tmp_path / "run").exists()
    assert "warning: run_dir: the weights of step 1 could not be saved in " in capsys.readouterr().out


def test_the_disk_is_asked_again_before_the_evaluation(tmp_path, monkeypatch, capsys):
    refusing(monkeypatch, 1)
    found, honest = [], run_module.evaluate_model

    def evaluate_model(*arguments, **options):
        deadline = time.monotonic() + 60
        while not (is_there := last_checkpoint(tmp_path / "run").exists()) and time.monotonic() < deadline:
            time.sleep(0.02)
        found.append(is_there)
        return honest(*arguments, **options)

    monkeypatch.setattr(run_module, "evaluate_model", evaluate_model)
    train(small(tmp_path / "run", *SHORT))
    assert found == [True]
    assert (
        f"warning: checkpoint of step 1 NOT SAVED in {tmp_path / 'run' / 'checkpoints'}: {FULL.strerror}. It is the"
        " last one: without room at the end of the run, its weights are lost. Make room there.\n"
    ) in capsys.readouterr().out


@pytest.mark.parametrize("failure", [InputError("eval.x: no"), Interrupted(signal.SIGINT)])
def test_an_average_that_is_being_written_is_whole_when_a_failed_run_ends(failure, tmp_path, monkeypatch):
    honest = saving.put_checkpoint

    def put_checkpoint(*arguments):
        time.sleep(0.5)
        honest(*arguments)

    monkeypatch.setattr(saving, "put_checkpoint", put_checkpoint)
    failing_evaluation(monkeypatch, failure)
    with pytest.raises(type(failure)):
        train(small(tmp_path / "run", "--train.swa_fraction", "0.5"))
    assert "statistics" in state(tmp_path / "run")  # only the last file has them
    assert not list(tmp_path.rglob("*.partial-*"))


def test_a_trained_run_that_is_only_measured_is_called_so(own_copy, monkeypatch, capsys):
    (own_copy / "results.json").unlink()
    failing_evaluation(monkeypatch, Interrupted(signal.SIGINT))
    with pytest.raises(Interrupted):
        train(small(own_copy))
    said = capsys.readouterr().out
    assert "\ntrained already (8 steps); it is only measured\n" in said
    assert "resumed" not in said


def test_a_run_that_a_signal_stopped_after_an_epochs_last_step_resumes_at_the_next(tmp_path, capsys):
    def terminate(done: StepDone) -> None:
        if done.step == STEPS_PER_EPOCH:
            os.kill(os.getpid(), signal.SIGTERM)

    def fail(done: StepDone) -> None:
        raise ValueError("a bug")

    with pytest.raises(Interrupted):
        train(small(tmp_path / "run"), Callbacks(on_step=terminate))
    assert "resumed" not in capsys.readouterr().out
    with pytest.raises(ValueError, match="a bug"):
        train(small(tmp_path / "run"), Callbacks(on_step=fail))
    assert "\nresumed at epoch 2, after 4 steps\n" in capsys.readouterr().out


def test_the_time_until_an_interruption_is_that_of_steps_that_the_device_has_done(tmp_path, monkeypatch):
    """The host has queued the steps after 1 s each; the device takes 10 s more for them."""
    now = [1000.0]

    def synchronised(run):
        now[0] += 10
        return now[0]

    def terminate(done: StepDone) -> None:
        now[0] += 1
        if done.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(loop, "_synchronised", synchronised)
    with pytest.raises(Interrupted):
        train(small(tmp_path / "run"), Callbacks(on_step=terminate))
    assert state(tmp_path / "run")["progress"]["epoch_s"] == 2 + 10
