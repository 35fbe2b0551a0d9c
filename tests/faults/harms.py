"""One function a harm: do it to a run, go on with the same command, and say what happened."""

import dataclasses
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.faults.judge import differences
from tests.faults.processes import Ended, finish, run, start, wait_until

EPOCHS = 2
# Everything that a checkpoint must hold is there: momentum, an average of the weights, held-out images. Most images are
# held out, so that an epoch takes a second.
ARGUMENTS = [
    *("--device", "cpu", "--train.amp", "float32", "--train.compile", "false", "--train.ema_decay", "0.9"),
    *("--train.epochs", str(EPOCHS), "--train.batch_size", "8", "--train.checkpoint_every_steps", "3"),
    *("--data.num_validation_images", "1070", "--eval.num_images", "10", "--eval.corruption_set", "c15"),
    *("--eval.save_logits", "true"),
]
# The test images with their corruptions, made once, beside the run folders.
CORRUPTED = ["--dataset", "digits", "--num_images", "10", "--corruption_set", "c15", "--out"]
CORRUPTED_NAME = "digits-c"


class Outcome(NamedTuple):
    """What happened in a trial: where the harm came, how the run continued, and what is wrong (nothing: it passed)."""

    where: str
    then: str
    faults: list[str]


@dataclass(frozen=True)
class Bench:
    """Where trials take place: an empty folder for each, the run that nothing disturbed, and how long that took."""

    folder: Path
    undisturbed: Path
    training_s: float
    evaluation_s: float
    run_name: str = "run"

    @property
    def run_dir(self) -> Path:
        return self.folder / self.run_name

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"


def arguments_for(run_dir: Path) -> list[str]:
    """The command of every run; `run_dir` is a folder of the bench's, or of one of its trials."""
    folder = next(parent for parent in run_dir.parents if (parent / CORRUPTED_NAME).exists())
    return [*ARGUMENTS, "--eval.corrupted_dir", str(folder / CORRUPTED_NAME), "--run_dir", str(run_dir)]


def num_rows(run_dir: Path) -> int:
    with suppress(OSError):
        return (run_dir / "metrics.jsonl").read_bytes().count(b"\n")
    return 0


def names_in(run_dir: Path) -> set[str]:
    """The files of a run folder and of its checkpoints, in this instant."""
    names: set[str] = set()
    for folder in (run_dir, run_dir / "checkpoints"):
        with suppress(OSError):
            names |= set(os.listdir(folder))
    return names


def _seen(bench: Bench, pattern: str, times: int) -> Callable[[], bool]:
    """Whether a name of this pattern has come up so many times."""
    state = {"count": 0, "there": False}

    def seen() -> bool:
        there = any(re.match(pattern, name) for name in names_in(bench.run_dir))
        state["count"] += there and not state["there"]
        state["there"] = there
        return state["count"] >= times

    return seen


def _moment(bench: Bench, draw: random.Random) -> tuple[str, Callable[[], bool], float]:
    """A moment of a run: its name, what comes before it, and how long after that, s."""
    kind = draw.choice(["any time", "step", "checkpoint write", "row", "evaluation", "logits", "results write"])
    if kind == "any time":
        return kind, lambda: True, draw.uniform(0, bench.training_s + bench.evaluation_s)
    if kind == "step":
        return kind, _seen(bench, r"config\.yaml$", 1), draw.uniform(0, bench.training_s)
    if kind == "checkpoint write":
        return kind, _seen(bench, r"(last|step-\d+)\.pt\.partial", draw.randint(1, 10)), draw.uniform(0, 0.01)
    if kind == "row":
        rows = draw.randint(1, EPOCHS)
        return kind, lambda: num_rows(bench.run_dir) >= rows, draw.uniform(0, 0.02)
    if kind == "evaluation":
        return kind, _seen(bench, r"logits\.partial", 1), draw.uniform(0, bench.evaluation_s)
    if kind == "logits":
        return kind, _seen(bench, r"logits$", 1), draw.uniform(0, 0.01)
    return kind, _seen(bench, r"results\.json\.partial", 1), draw.uniform(0, 0.005)


def _place(bench: Bench) -> str:
    """How far a run had come, by what it left."""
    names, rows = names_in(bench.run_dir), num_rows(bench.run_dir)
    if any(".pt.partial" in name for name in names):
        return f"in a checkpoint write, {rows} rows"
    if "results.json" in names:
        return "after the results"
    if any(name.startswith("logits.partial") for name in names) or "logits" in names:
        return "in the evaluation"
    return f"in training, {rows} rows" if "last.pt" in names else "before the first checkpoint"


def _goes_on(bench: Bench, faults: list[str]) -> str:
    """Give the same command again, and compare; how it went."""
    ended = run("train", arguments_for(bench.run_dir), bench.log)
    faults += _faults_of(ended, expected=0)
    if ended.status == 0:
        faults += differences(bench.run_dir, bench.undisturbed)
    if "is finished" in ended.output:
        return "was finished"
    if "trained already" in ended.output:
        return "was measured"
    return "resumed" if "resumed at epoch" in ended.output else "started from scratch"


def _faults_of(ended: Ended, expected: int) -> list[str]:
    faults = [] if ended.status == expected else [f"exit status {ended.status}, not {expected}: {ended.output[-300:]}"]
    return [*faults, f"a traceback: {ended.output[-300:]}"] if "Traceback" in ended.output else faults


def sigkill(bench: Bench, draw: random.Random) -> Outcome:
    """SIGKILL at a random moment, and in one trial of three once more after it has resumed."""
    faults: list[str] = []
    places = []
    for _ in range(2 if draw.random() < 1 / 3 else 1):
        kind, before, delay_s = _moment(bench, draw)
        pid = start("train", arguments_for(bench.run_dir), bench.log)
        if wait_until(pid, before):
            time.sleep(delay_s)
        os.kill(pid, signal.SIGKILL)
        ended = finish(pid, bench.log)
        if ended.status not in (0, -signal.SIGKILL):
            faults.append(f"exit status {ended.status} before the signal: {ended.output[-300:]}")
        places.append(f"{kind}: {'finished before' if ended.status == 0 else _place(bench)}")
    return Outcome("; ".join(places), _goes_on(bench, faults), faults)


def _interrupted(bench: Bench, draw: random.Random, number: signal.Signals) -> Outcome:
    pid = start("train", arguments_for(bench.run_dir), bench.log)
    wait_until(pid, _seen(bench, r"config\.yaml$", 1))
    time.sleep(draw.uniform(0, bench.training_s))
    place = _place(bench)
    os.kill(pid, number)
    ended = finish(pid, bench.log)
    faults = _faults_of(ended, expected=0 if ended.status == 0 else 128 + number)
    if ended.status and not (bench.run_dir / "checkpoints" / "last.pt").exists():
        faults.append("no checkpoint was left")
    where = place if ended.status else "finished before"
    return Outcome(f"{where}, exit {ended.status}", _goes_on(bench, faults), faults)


def sigterm(bench: Bench, draw: random.Random) -> Outcome:
    """SIGTERM: the step is finished, a checkpoint left, exit status 143."""
    return _interrupted(bench, draw, signal.SIGTERM)


def sigint(bench: Bench, draw: random.Random) -> Outcome:
    """SIGINT, as Ctrl-C sends it: the same with 130."""
    return _interrupted(bench, draw, signal.SIGINT)


def damage(bench: Bench, draw: random.Random) -> Outcome:
    """A truncation or flips in the newest checkpoint of a stopped run; in one trial of ten in all of them."""
    shutil.copytree(_stopped(bench), bench.run_dir)
    folder = bench.run_dir / "checkpoints"
    hurts_all = draw.random() < 0.1
    files = sorted(folder.glob("*.pt")) if hurts_all else [folder / "last.pt"]
    for path in files:
        content = bytearray(path.read_bytes())
        path.unlink()  # its older names stay whole
        where = _hurt(content, draw)
        path.write_bytes(content)
    faults: list[str] = []
    if draw.random() < 0.25:
        measured = run("evaluate", ["--run_dir", str(bench.run_dir)], bench.log)
        faults += _faults_of(measured, expected=2)
        if "last.pt" not in measured.output:
            faults.append(f"evaluate does not name the file: {measured.output[-300:]}")
    if not hurts_all:
        then = _goes_on(bench, faults)
        if "last.pt" not in bench.log.read_text():
            faults.append("no warning names the file")
        return Outcome(where, f"{then} from the one before", faults)
    ended = run("train", arguments_for(bench.run_dir), bench.log)
    faults += _faults_of(ended, expected=2)
    if not re.search(r"^error: .*(remove|another --run_dir)", ended.output, re.MULTILINE):
        faults.append(f"no line says what to do: {ended.output[-300:]}")
    return Outcome(f"all of them, {where}", "refused with what to do", faults)


def _stopped(bench: Bench) -> Path:
    """A run that SIGTERM stopped in its evaluation, with older checkpoints; made once."""
    stopped = bench.folder.parent / "stopped"
    if not stopped.exists():
        pid = start("train", arguments_for(stopped), bench.log)
        wait_until(pid, lambda: any(name.startswith("logits.partial") for name in names_in(stopped)))
        os.kill(pid, signal.SIGTERM)
        ended = finish(pid, bench.log)
        assert ended.status == 128 + signal.SIGTERM, ended
        assert len(list((stopped / "checkpoints").glob("*.pt"))) > 1
    return stopped


def _hurt(content: bytearray, draw: random.Random) -> str:
    """Damage a file's content in place, truly; in words."""
    size = len(content)
    kind = draw.choice(["truncated", "one bit", "eight bytes", "a block of zeros", "a tail", "end flipped"])
    place = draw.randrange(size)
    if kind == "truncated":
        del content[place:]
    elif kind == "one bit":
        content[place] ^= 1 << draw.randrange(8)
    elif kind == "eight bytes":
        for _ in range(8):
            content[draw.randrange(size)] ^= draw.randrange(1, 256)
    elif kind == "a block of zeros":
        place = place // 4096 * 4096
        block = bytes(len(content[place : place + 4096]))
        if content[place : place + 4096] == block:
            block = b"\xff" * len(block)
        content[place : place + 4096] = block
    elif kind == "a tail":
        content += draw.randbytes(draw.randint(1, 4096))
    else:
        place = draw.randrange(max(0, size - 200), size)
        content[place] ^= draw.randrange(1, 256)
    return f"{kind} at {place:,} of {size:,}"


def full_disk(bench: Bench, draw: random.Random) -> Outcome:
    """A run on a small file system that fills up and then grows; the run continues.

    It is a tmpfs; where mounting is not allowed, a limit on any one file's size (RLIMIT_FSIZE) stands for it.
    """
    whole = (bench.undisturbed / "checkpoints" / "last.pt").stat().st_size
    size = draw.choice([draw.randrange(1 << 16, whole), draw.randrange(whole, 5 * whole // 2)])
    small = bench.folder / "small"
    small.mkdir()
    bench = dataclasses.replace(bench, run_name="small/run")
    is_mounted = _mount(small, size)
    try:
        prepare = _nothing if is_mounted else lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        ended = run("train", arguments_for(bench.run_dir), bench.log, prepare)
        faults = [f"a traceback: {ended.output[-300:]}"] if "Traceback" in ended.output else []
        warned = "warning: " in ended.output
        if ended.status not in (0, 2) or (ended.status == 2 and not warned):
            faults.append(f"exit status {ended.status}: {ended.output[-300:]}")
        how = f"{'tmpfs' if is_mounted else 'file limit'} of {size / 1e6:.1f} MB"
        if is_mounted:
            subprocess.run(["mount", "-o", "remount,size=1g", str(small)], check=True)
        then = f"{'warned, ' if warned else ''}exit {ended.status}; with room {_goes_on(bench, faults)}"
        return Outcome(how, then, faults)
    finally:
        if is_mounted:
            subprocess.run(["umount", str(small)], check=True)


def _nothing() -> None:
    pass


def _mount(folder: Path, size: int) -> bool:
    """Whether a tmpfs of so many bytes is now at the folder."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def clock_jumps(bench: Bench, draw: random.Random) -> Outcome:
    """The time of day jumps by up to a year, back and forth, during the run; there is one SIGKILL too."""
    jumps = [draw.choice([-1, 1]) * draw.choice([1.0, 3600.0, 86_400.0, 3e7]) for _ in range(64)]

    def shim() -> None:
        true_time, calls = time.time, [0]

        def jumping() -> float:
            calls[0] += 1
            return true_time() + jumps[calls[0] % len(jumps)]

        time.time = jumping
        time.time_ns = lambda: int(jumping() * 1e9)

    pid = start("train", arguments_for(bench.run_dir), bench.log, prepare=shim)
    if wait_until(pid, _seen(bench, r"last\.pt$", 1)):
        time.sleep(draw.uniform(0, bench.training_s))
    os.kill(pid, signal.SIGKILL)
    finish(pid, bench.log)
    place = _place(bench)
    ended = run("train", arguments_for(bench.run_dir), bench.log, prepare=shim)
    faults = _faults_of(ended, expected=0)
    faults += differences(bench.run_dir, bench.undisturbed) if ended.status == 0 else []
    return Outcome(f"up to a year; killed {place}", "continued", faults)
