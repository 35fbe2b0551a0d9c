"""What stops a run half-way: kills between two writes, signals, a second run in its folder, full disks, gradients."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fastmagn.errors import InputError, Interrupted
from fastmagn.machine.files import os_error_behind, replace_folder
from fastmagn.machine.processes import World
from fastmagn.machine.signals import interrupted_at_once, interruptible
from fastmagn.runs import lock as lock_module
from fastmagn.runs.lock import run_lock
from fastmagn.runs.paths import last_checkpoint
from fastmagn.runs.records import RunFiles
from fastmagn.training import loop, saving
from fastmagn.training import run as run_module
from fastmagn.training.callbacks import Callbacks, EpochDone, StepDone
from fastmagn.training.display import EpochTable
from fastmagn.training.run import train
from tests.helpers import processes, smooth_network
from tests.helpers.processes import LIMIT_S, ROOT, wait_until
from tests.helpers.small_runs import (
    SMOOTH,
    TIMES,
    assert_ends_alike,
    knows_the_network,
    rows,
    small,
    state,
    without_times,
)
from tests.helpers.tiers import slow_but


@pytest.fixture(autouse=True)
def _network(monkeypatch):
    knows_the_network(monkeypatch)


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


def scalars(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows: for each name its (epoch, value)s."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(run_dir / "tensorboard")).Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


@pytest.mark.parametrize("epoch", slow_but([0, 1], 1))
@pytest.mark.parametrize(
    "place",
    ["before the row", "after the row", "after TensorBoard", "before the checkpoint", "after the checkpoint"],
)
def test_killed_between_any_two_writes_of_an_epochs_end(place, epoch, undisturbed, tmp_path, monkeypatch):
    """The resumed run has one row and one point for each epoch, with the values of the undisturbed one."""
    where, name = {
        "before the row": (RunFiles, "_write_metrics"),
        "after the row": (RunFiles, "_log_scalars"),
        "after TensorBoard": (loop, "log_row"),
        "before the checkpoint": (saving, "put_checkpoint"),
        "after the checkpoint": (saving, "put_checkpoint"),
    }[place]
    honest, calls = getattr(where, name), []

    def killing(*arguments):
        calls.append(name)
        # The file of rows is written once before training.
        due = len(calls) == epoch + (2 if name == "_write_metrics" else 1)
        if due and place != "after the checkpoint":
            raise Killed
        honest(*arguments)
        if due:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(where, name, killing)
        patched.setattr(RunFiles, "close", lambda self: None)
        with pytest.raises(Killed):
            train(small(tmp_path / "run"))
    train(small(tmp_path / "run"))
    assert_ends_alike(tmp_path / "run", undisturbed)
    shown, expected = scalars(tmp_path / "run"), scalars(undisturbed)
    assert shown.keys() == expected.keys()
    for name in shown.keys() - TIMES:
        assert shown[name] == expected[name], name
        assert [step for step, _ in shown[name]] == ([2] if name.startswith("results/") else [0, 1])


def test_clock_jumps_change_no_measured_time(tmp_path, monkeypatch):
    """The wall clock goes back an hour at every look at it."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 3600 * next(looks))
    looks = iter(range(10**9))
    train(small(tmp_path / "run"))
    assert all(0 < row["epoch_s"] < 600 and row["images_per_s"] > 0 for row in rows(tmp_path / "run"))
    assert 0 < state(tmp_path / "run")["progress"]["train_s"] < 1200


# Signals


def start(run_dir: Path, *arguments: str) -> subprocess.Popen[str]:
    return processes.start([smooth_network.__name__, *SMOOTH, "--run_dir", str(run_dir), *arguments], ROOT)


@pytest.mark.process
def test_sigterm_finishes_the_step_saves_and_exits_with_143(undisturbed, tmp_path):
    run_dir = tmp_path / "run"
    process = start(run_dir, "--train.checkpoint_every_steps", "1")
    wait_until(last_checkpoint(run_dir).exists, process)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)  # as SLURM and torchrun do between them
    output, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 143, (output, errors)
    assert "interrupted; the same command resumes from the last checkpoint" in output
    assert errors.splitlines() == [
        "finishing the step, then saving; press Ctrl-C again to exit at once",
        "interrupted by SIGTERM",
    ]
    assert not (run_dir / "results.json").exists()
    train(small(run_dir))
    assert_ends_alike(run_dir, undisturbed)


@pytest.mark.process
@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_a_signal_while_measuring_leaves_at_once_and_the_next_run_only_measures(number, status, undisturbed, tmp_path):
    run_dir = shutil.copytree(undisturbed, tmp_path / "run")
    (run_dir / "results.json").unlink()
    slowly = ("--eval.num_images", "0", "--eval.save_logits", "true")
    process = start(run_dir, *slowly)
    wait_until(lambda: list(run_dir.rglob("clean*")), process)  # the first of the logits
    process.send_signal(number)
    output, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == status, (output, errors)
    assert errors == f"interrupted by {number.name}\n"
    assert not (run_dir / "results.json").exists()
    before = last_checkpoint(run_dir).read_bytes()
    train(small(run_dir))
    assert last_checkpoint(run_dir).read_bytes() == before
    assert (run_dir / "results.json").exists()


def test_a_second_ctrl_c_leaves_at_once_a_second_sigterm_does_not():
    with interruptible() as received:
        assert received() == 0
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert received() == signal.SIGTERM
        with pytest.raises(Interrupted) as interrupted:
            os.kill(os.getpid(), signal.SIGINT)
        assert interrupted.value.exit_status == 130
    with interrupted_at_once(), pytest.raises(Interrupted, match="SIGTERM"):
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_closed_terminal_is_an_interruption_unless_the_run_was_to_outlive_it():
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
    try:
        with interruptible() as received:
            os.kill(os.getpid(), signal.SIGHUP)
            assert received() == signal.SIGHUP
        with interrupted_at_once(), pytest.raises(Interrupted, match="SIGHUP") as interrupted:
            os.kill(os.getpid(), signal.SIGHUP)
        assert interrupted.value.exit_status == 129
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        with interruptible() as received, interrupted_at_once():
            os.kill(os.getpid(), signal.SIGHUP)
        assert received() == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_epochs_line_is_shown_once_its_checkpoint_is_saved(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(EpochTable, "print_row", lambda table, row: shown.append(state(tmp_path / "run")["step"]))
    train(small(tmp_path / "run"))
    assert shown == [4, 8]


@pytest.mark.process
def test_a_forked_worker_ends_at_sigterm_and_leaves_what_a_terminal_sends_to_its_parent():
    with interruptible() as received:
        for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 7), (signal.SIGHUP, 7)):
            pid = os.fork()
            if pid == 0:
                os.kill(os.getpid(), number)
                os._exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == status
        assert received() == 0


class Interrupting:
    """A file whose third write Ctrl-C comes into."""

    writes = 0

    def write(self, content) -> int:
        self.writes += 1
        if self.writes == 3:
            raise Interrupted(signal.SIGINT)
        return len(memoryview(content).cast("B"))

    def flush(self) -> None:
        pass


def test_an_interruption_that_compiled_code_turns_into_another_error_is_one():
    """As numpy does where it asks whether a file is a path."""

    def work(error: Exception, number: signal.Signals | None) -> None:
        with interrupted_at_once():
            try:
                if number is not None:
                    signal.raise_signal(number)
            finally:
                raise error

    with pytest.raises(Interrupted, match="SIGTERM") as interrupted:
        work(TypeError("expected str, bytes or os.PathLike object"), signal.SIGTERM)
    assert isinstance(interrupted.value.__cause__, TypeError)
    with pytest.raises(InputError, match="weights are lost"):
        work(InputError("weights are lost"), signal.SIGTERM)
    with pytest.raises(TypeError):
        work(TypeError(), None)


def test_ctrl_c_inside_pytorchs_writing_is_still_ctrl_c():
    """PyTorch closes its archive, fails at that, and raises a RuntimeError instead."""
    with pytest.raises(RuntimeError, match="unexpected pos") as error:
        torch.save({"weights": torch.zeros(100_000)}, Interrupting())
    assert isinstance(os_error_behind(error.value), Interrupted)


# Two runs in one folder

HOLDER = """
import os, sys, time
from pathlib import Path
from fastmagn.machine.processes import World
from fastmagn.runs.lock import run_lock
with run_lock(Path(sys.argv[1]), World()):
    if os.fork() == 0:
        time.sleep(20)
        os._exit(0)
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.process
def test_one_run_at_a_time_in_a_folder_and_a_killed_one_leaves_no_lock(tmp_path, monkeypatch):
    """The holder has forked a worker, which outlives it."""
    run_dir = tmp_path / "run"
    holder = processes.start(["-c", HOLDER, str(run_dir)], tmp_path)
    assert holder.stdout.readline() == "held\n"
    monkeypatch.setattr(lock_module, "PATIENCE_S", 0.2)
    with pytest.raises(InputError) as error:
        train(small(run_dir))
    assert str(error.value) == (
        f"run_dir: {run_dir} is in use by process {holder.pid} on {os.uname().nodename}; stop it, or name another"
        " --run_dir."
    )
    assert [path.name for path in run_dir.iterdir()] == [".lock"]
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with run_lock(run_dir, World()):
        assert (run_dir / ".lock").read_text() == f"process {os.getpid()} on {os.uname().nodename}\n"


def test_a_refused_run_leaves_no_folder(tmp_path):
    """Unless there was one, or something else is in it."""
    new, own = tmp_path / "runs" / "new", tmp_path / "own"
    own.mkdir()
    for folder in (new, own):
        with pytest.raises(InputError, match="refused"), run_lock(folder, World()):
            raise InputError("refused")
    assert not new.parent.exists()
    assert own.exists()

    def fail_later():
        with run_lock(new, World()):
            (new / "logits").mkdir()
            raise InputError("refused")

    with pytest.raises(InputError, match="refused"):
        fail_later()
    assert sorted(path.name for path in new.iterdir()) == [".lock", "logits"]


def test_a_run_that_waited_for_a_refused_one_locks_a_folder_that_exists(tmp_path, monkeypatch):
    lock, removed = lock_module._lock, []

    def after_the_other(file):
        if not removed:
            removed.append(True)
            shutil.rmtree(tmp_path / "run")
        return lock(file)

    monkeypatch.setattr(lock_module, "_lock", after_the_other)
    with run_lock(tmp_path / "run", World()):
        assert (tmp_path / "run" / ".lock").read_text().startswith(f"process {os.getpid()} ")


def test_a_run_leaves_the_files_of_an_evaluation_that_is_under_way(undisturbed, tmp_path):
    """And removes those of one that was killed."""
    run_dir = shutil.copytree(undisturbed, tmp_path / "run")
    (run_dir / "results.json").unlink()
    (run_dir / "logits.partial-1-abcdef").mkdir()
    (run_dir / "views.png.partial-1-abcdef").write_bytes(b"half")
    with replace_folder(run_dir / "logits") as partial:
        train(small(run_dir))
        assert [path.name for path in run_dir.glob("*.partial-*")] == [partial.name]
    assert (run_dir / "logits").is_dir()


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, capsys):
    def unsupported(*arguments):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(lock_module.fcntl, "lockf", unsupported)
    with run_lock(tmp_path / "run", World()):
        pass
    assert "cannot be locked (No locks available)" in " ".join(capsys.readouterr().out.split())


def test_a_run_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"run_dir: .*file/run cannot be written \(Not a directory\)"):
        train(small(tmp_path / "file" / "run"))


# Full disks


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("may not mount a small file system here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, leave: int) -> Path:
    """A file that leaves `leave` bytes free."""
    filler = folder / "filler"
    filler.write_bytes(b"\0" * (shutil.disk_usage(folder).free - leave))
    return filler


@pytest.mark.parametrize("leave", [0, 100_000])
@pytest.mark.parametrize("looked_ahead", [True, False])
def test_a_full_disk_is_survived_and_everything_is_written_once_there_is_room(
    leave, looked_ahead, undisturbed, small_disk, monkeypatch, capsys
):
    """Full from the start; somebody makes room after the first epoch."""
    if not looked_ahead:  # as where a quota shows only while writing
        monkeypatch.setattr("fastmagn.runs.checkpoint_folder.check_room", lambda *arguments: None)
    (small_disk / "run").mkdir()
    filler = fill(small_disk, leave)
    honest = EpochTable.print_row

    def making_room(table, row):
        honest(table, row)
        if row["epoch"] == 1:
            filler.unlink()

    monkeypatch.setattr(EpochTable, "print_row", making_room)
    train(small(small_disk / "run"))
    output = " ".join(capsys.readouterr().out.split())
    if looked_ahead or leave == 0:
        assert f"warning: checkpoint of step 4 NOT SAVED in {small_disk / 'run' / 'checkpoints'}: " in output
        assert "checkpoint of step 8 saved" in output
    if looked_ahead:
        has = re.search(r"it needs 1\.1 MB, and the disk has (0\.\d) MB\. The run continues", output)
        assert float(has[1]) <= leave / 1e6  # views.png and TensorBoard's file have taken some of it
    elif leave == 0:
        assert "No space left on device. The run continues" in output
        assert "metrics.jsonl not written (No space left on device)" in output
        assert "config.yaml not written (No space left on device)" in output
    assert_ends_alike(small_disk / "run", undisturbed)
    assert (small_disk / "run" / "config.yaml").exists()
    assert scalars(small_disk / "run")["loss"] == scalars(undisturbed)["loss"]


@pytest.mark.parametrize("step", [6, 8])
def test_a_signal_in_the_last_step_loses_nothing_of_its_epoch(tmp_path, undisturbed, step):
    """Of a run that `train.max_steps` cuts in an epoch, and of a whole one."""

    def terminate(done: StepDone) -> None:
        if done.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    config = small(tmp_path / "run", *(("--train.max_steps", str(step)) if step < 8 else ()))
    with pytest.raises(Interrupted):
        train(config, Callbacks(on_step=terminate))
    assert [row["step"] for row in rows(tmp_path / "run")] == [4, step]
    train(config)
    assert [row["step"] for row in rows(tmp_path / "run")] == [4, step]
    train(small(tmp_path / "run"))
    assert_ends_alike(tmp_path / "run", undisturbed)


def test_an_epoch_whose_last_step_was_saved_before_its_row_gets_it(tmp_path, undisturbed):
    def stop(done: EpochDone) -> None:
        if done.row["step"] == 6:
            raise Killed

    config = small(tmp_path / "run", "--train.checkpoint_every_steps", "3", "--train.max_steps", "6")
    with pytest.raises(Killed):
        train(config, Callbacks(on_epoch=stop))
    (tmp_path / "run" / "metrics.jsonl").unlink()
    train(config)
    assert [row["step"] for row in rows(tmp_path / "run")] == [4, 6]
    train(small(tmp_path / "run"))
    assert_ends_alike(tmp_path / "run", undisturbed)


def test_a_run_is_not_given_fewer_steps_than_it_has(tmp_path):
    train(small(tmp_path, "--train.max_steps", "5"))
    before = last_checkpoint(tmp_path).read_bytes()
    with pytest.raises(InputError) as error:
        train(small(tmp_path, "--train.max_steps", "3"))
    path = last_checkpoint(tmp_path)
    assert str(error.value) == (f"train.max_steps: got 3; expected 0 for all steps, or at least 5, which {path} has.")
    assert path.read_bytes() == before


def test_a_disk_that_stays_full_ends_the_run_with_a_line_and_the_checkpoint_before(small_disk, monkeypatch, capsys):
    monkeypatch.setattr(saving, "LAST_PAUSE_S", 0.0)
    run_dir = small_disk / "run"
    train(small(run_dir, "--train.max_steps", "4"))
    before = last_checkpoint(run_dir).read_bytes()
    fill(small_disk, 20_000)
    with pytest.raises(InputError) as error:
        train(small(run_dir))
    assert str(error.value) == (
        f"run_dir: the weights of step 8 could not be saved in {run_dir / 'checkpoints'}, and are lost; the same"
        f" command resumes from {last_checkpoint(run_dir)}, which is older. Make room first."
    )
    assert last_checkpoint(run_dir).read_bytes() == before
    assert not list(run_dir.rglob("*.partial-*"))
    assert [row["epoch"] for row in rows(run_dir)][:1] == [0]


def test_checkpoints_that_would_be_too_old_make_room_for_the_new_one(small_disk, undisturbed):
    """Room for two checkpoints and the margin, not for three."""
    run_dir = small_disk / "run"
    train(small(run_dir, "--train.checkpoint_every_steps", "1", "--train.max_steps", "6"))
    fill(small_disk, 2**20 + (last_checkpoint(run_dir).stat().st_size - 30_000))
    assert {path.name for path in (run_dir / "checkpoints").iterdir()} == {"last.pt", "step-00000005.pt"}
    train(small(run_dir, "--train.checkpoint_every_steps", "1"))
    assert {path.name for path in (run_dir / "checkpoints").iterdir()} == {"last.pt", "step-00000007.pt"}
    assert_ends_alike(run_dir, undisturbed)


def test_a_checkpoint_that_failed_is_tried_again_before_the_epochs_end(tmp_path, monkeypatch, capsys):
    honest, tried = saving.put_checkpoint, []

    def failing(run_dir, step, *arguments):
        tried.append(step)
        if len(tried) == 1:
            raise OSError(122, "Disk quota exceeded")
        honest(run_dir, step, *arguments)

    monkeypatch.setattr(saving, "put_checkpoint", failing)
    monkeypatch.setattr(saving, "CHECK_EVERY_STEPS", 2)
    train(small(tmp_path / "run"))
    assert tried == [4, 6, 8]
    assert "step 4 NOT SAVED" in " ".join(capsys.readouterr().out.split())


def test_results_that_cannot_be_written_are_a_line(undisturbed, small_disk, monkeypatch):
    run_dir = shutil.copytree(undisturbed, small_disk / "run")
    (run_dir / "results.json").unlink()
    fill(small_disk, 0)
    with pytest.raises(InputError) as error:
        train(small(run_dir))
    assert "cannot be written (No space left on device); make room, then the same command resumes from" in str(
        error.value
    )


# Gradients


@pytest.mark.parametrize("poisoned", [0, 2, 5])
def test_a_gradient_that_is_not_finite_is_named_and_never_saved(poisoned, tmp_path, monkeypatch):
    """The losses up to that step are finite: without a look at the weights its checkpoint would be saved as good."""
    honest = run_module.build_run
    backward_passes = iter(range(100))

    def build(*arguments):
        run = honest(*arguments)
        weight = run.model.network[0].weight
        weight.register_hook(
            lambda gradient: gradient * float("nan") if next(backward_passes) == poisoned else gradient
        )
        return run

    monkeypatch.setattr(run_module, "build_run", build)
    with pytest.raises(InputError) as error:
        train(small(tmp_path / "run", "--train.checkpoint_every_steps", "1"))
    last = last_checkpoint(tmp_path / "run")
    good = f"the last good checkpoint is {last}" if poisoned else "there is no checkpoint yet"
    assert str(error.value) == (
        f"gradient of network.0.weight: got a value that is not finite at step {poisoned} (epoch {poisoned // 4 + 1});"
        f" expected a finite number. Lower optim.lr (it is 0.1); {good}."
    )
    if poisoned:
        kept = state(tmp_path / "run")
        assert kept["step"] == poisoned
        assert all(value.isfinite().all() for value in kept["model"].values() if value.is_floating_point())
        assert len(without_times(rows(tmp_path / "run"))) == poisoned // 4


def test_an_average_or_a_statistic_that_is_not_finite_is_named_too(tmp_path, monkeypatch):
    honest = loop.train_step
    for spoil, name in (
        (lambda run: run.average.network[1].running_var, "average of network.1.running_var"),
        (lambda run: run.model.network[1].running_mean, "network.1.running_mean"),
        (lambda run: run.optimizer.state_dict()["state"][3]["momentum_buffer"], "optimizer state 3"),
    ):

        def spoiled(run, pieces, step, spoil=spoil):
            parts = honest(run, pieces, step)
            with torch.no_grad():
                spoil(run)[0] = float("inf")
            return parts

        monkeypatch.setattr(loop, "train_step", spoiled)
        with pytest.raises(InputError) as error:
            train(small(tmp_path / name, "--train.ema_decay", "0.9", "--train.checkpoint_every_steps", "1"))
        assert str(error.value).startswith(f"{name}: got a value that is not finite at step 0 (epoch 1)")
        assert not last_checkpoint(tmp_path / name).exists()
