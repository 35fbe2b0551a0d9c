"""python -m tests.faults: do harm to real training processes, go on with each, and compare with the undisturbed run.

python -m tests.faults --rounds 50 [--seed S] [--out FILE.json]     50 SIGKILLs, 100 damaged checkpoints, ...
python -m tests.faults --rounds 50 --seed S --only sigkill:17       one trial again
"""

import argparse
import json
import os
import random
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before numpy and torch are imported: no thread may be there when a trial is forked, and times vary less.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")

os.environ["JE_ARROW_MALLOC_CONF"] = "background_thread:false"  # pandas' allocator, which scikit-learn imports

import torch
from rich.console import Console
from rich.table import Table

from fastmagn.machine.environment import environment
from tests.faults.harms import (
    CORRUPTED,
    CORRUPTED_NAME,
    Bench,
    Outcome,
    arguments_for,
    clock_jumps,
    damage,
    full_disk,
    names_in,
    sigint,
    sigkill,
    sigterm,
)
from tests.faults.judge import differences
from tests.faults.processes import finish, import_what_it_imports, run, start, wait_until
from tests.faults.shim import run_with_library
from tests.faults.torchrun import killed_worker

HARMS: dict[str, Callable[[Bench, random.Random], Outcome]] = {
    "sigkill": sigkill,
    "sigterm": sigterm,
    "sigint": sigint,
    "damage": damage,
    "full_disk": full_disk,
    "clock_jumps": clock_jumps,
    "killed_worker": killed_worker,
}
_SHOWN = 4  # places listed for a harm


def trials_of(rounds: int) -> dict[str, int]:
    """How many trials of each harm make so many rounds."""
    some = max(1, rounds // 5)
    few = max(1, rounds // 10)
    return {
        **{"sigkill": rounds, "sigterm": some, "sigint": some, "damage": 2 * rounds},
        **{"full_disk": few, "clock_jumps": few, "killed_worker": rounds // 5},
    }


def undisturbed_run(folder: Path) -> Bench:
    """The run that every trial is compared with, and how long its parts take."""
    log, run_dir = folder / "log.txt", folder / "undisturbed"
    made = run("corrupt", [*CORRUPTED, str(folder / CORRUPTED_NAME)], log)
    assert made.status == 0, made
    import_what_it_imports("train", arguments_for(folder / "warm"), log)
    pid = start("train", arguments_for(run_dir), log)
    wait_until(pid, lambda: "config.yaml" in names_in(run_dir))
    begin = time.monotonic()
    wait_until(pid, lambda: any(name.startswith("logits.partial") for name in names_in(run_dir)))
    trained = time.monotonic()
    ended = finish(pid, log)
    assert ended.status == 0, ended
    bench = Bench(
        folder=folder / "trial",
        undisturbed=run_dir,
        training_s=trained - begin,
        evaluation_s=time.monotonic() - trained,
    )
    print(f"undisturbed: {bench.training_s:.1f} s of training, {bench.evaluation_s:.1f} s of evaluation", flush=True)
    faults = differences(folder / "warm", run_dir)
    assert not faults, faults  # two runs that nothing disturbs are equal
    return bench


def run_trials(bench: Bench, chosen: list[tuple[str, int]], seed: int) -> list[dict[str, Any]]:
    """Every chosen trial by itself, in an empty folder, with its own stream of random numbers."""
    done = []
    for harm, number in chosen:
        shutil.rmtree(bench.folder, ignore_errors=True)
        bench.folder.mkdir()
        begin = time.monotonic()
        try:
            outcome = HARMS[harm](bench, random.Random(f"{seed} {harm} {number}"))
        except Exception as error:  # a harness that breaks is a trial that failed
            outcome = Outcome("?", "?", [f"the harness failed: {type(error).__name__}: {error}"])
        seconds = time.monotonic() - begin
        verdict = "; ".join(outcome.faults) or "same"
        print(f"{harm}:{number}  {outcome.where} -> {outcome.then}: {verdict}  ({seconds:.1f} s)", flush=True)
        done.append({"harm": harm, "number": number, **outcome._asdict(), "seconds": round(seconds, 2)})
    return done


def show(done: list[dict[str, Any]]) -> None:
    """A row a harm: trials, how many ended as the undisturbed run, where they were hit, what then happened."""
    table = Table(
        title="harm done to training processes", caption="same: every bit of the state, every row, every result"
    )
    for header in ("harm", "trials", "same", "what then happened", "where, for example"):
        table.add_column(header, justify="right" if header in ("trials", "same") else "left")
    for harm in dict.fromkeys(trial["harm"] for trial in done):
        trials = [trial for trial in done if trial["harm"] == harm]
        passed = sum(not trial["faults"] for trial in trials)
        then = {name: sum(trial["then"] == name for trial in trials) for name in sorted({t["then"] for t in trials})}
        places = list(dict.fromkeys(trial["where"] for trial in trials))[:_SHOWN]
        happened = "\n".join(f"{count} {name}" for name, count in then.items())
        table.add_row(harm, str(len(trials)), str(passed), happened, "\n".join(places))
    Console(markup=False, highlight=False, width=150).print(table)


def chosen_trials(only: str | None, rounds: int) -> list[tuple[str, int]]:
    """(harm, number) for each trial; `only` names harms, or one trial of one, separated by commas."""
    counts = trials_of(rounds)
    if only is None:
        return [(harm, number) for harm, count in counts.items() for number in range(count)]
    chosen = []
    for word in only.split(","):
        harm, _, number = word.partition(":")
        if harm not in HARMS:
            raise SystemExit(f"--only: got {harm!r}; expected some of {', '.join(HARMS)}.")
        chosen += [(harm, int(number))] if number else [(harm, number) for number in range(counts[harm])]
    return chosen


def main() -> int:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, prog="python -m tests.faults", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--rounds", type=int, default=50, help="SIGKILLs; the other harms in proportion")
    parser.add_argument("--seed", type=int, default=None, help="of all random moments and places; drawn if not given")
    parser.add_argument("--only", help="harms, or one trial of one (sigkill:17), separated by commas")
    parser.add_argument("--out", type=Path, help="JSON file of every trial")
    chosen = parser.parse_args()
    seed = secrets.randbits(32) if chosen.seed is None else chosen.seed
    trials = chosen_trials(chosen.only, chosen.rounds)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="fastmagn-faults-") as folder:
        bench = undisturbed_run(Path(folder))
        print(f"seed {seed}: {len(trials)} trials", flush=True)
        done = run_trials(bench, trials, seed)
    show(done)
    failed = [trial for trial in done if trial["faults"]]
    print(f"seed {seed}: {len(done) - len(failed)} of {len(done)} as they should be")
    if chosen.out:
        summary = {"seed": seed, "rounds": chosen.rounds, "failed": len(failed)}
        summary |= {"environment": environment(torch.device("cpu")), "trials": done}
        chosen.out.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n")
    status = 1 if failed else 0
    if chosen.only is None:  # then each call that changes a file, in every command
        status |= run_with_library("tests.faults.calls", ["--sample", str(max(1, chosen.rounds // 5))])
    return status


if __name__ == "__main__":
    sys.exit(main())
