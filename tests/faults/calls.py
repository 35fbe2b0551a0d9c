"""python -m tests.faults.calls: every call that changes a file goes wrong once, and every output is lost.

python -m tests.faults.calls [--sample N] [--only train,report] [--faults "kill before,ENOSPC"] [--out FILE.json]

For each command the calls are logged, then for each call the command is killed before and after it or gets a signal,
or the call fails or writes half. The same command follows, undisturbed. Held: it ends with 0, its results are those of
a command that nothing disturbed, to the last bit, and nothing else is left.
"""

import argparse
import errno
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

# Before numpy and torch are imported: no thread may be there when a trial is forked.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
os.environ["JE_ARROW_MALLOC_CONF"] = "background_thread:false"  # pandas' allocator, which scikit-learn imports

import torch
from rich.console import Console
from rich.table import Table

from tests.faults import shim
from tests.faults.power import unflushed
from tests.faults.processes import Ended, finish, import_what_it_imports, run, start
from tests.faults.shim import Fault, read_log
from tests.faults.workloads import Workload, contents, make_sources, make_workloads

LEFTOVER = re.compile(r"\.(partial|old)-|\.tune$")


class Harm(NamedTuple):
    """What goes wrong at a call, and the exit statuses that a command may then have (besides a sweep's 1)."""

    fault: Fault
    statuses: tuple[int, ...]
    error: int = 0  # or the signal's number
    is_sticky: bool = False


HARMS = {
    "kill before": Harm(Fault.KILL_BEFORE, (-signal.SIGKILL,)),
    "kill after": Harm(Fault.KILL_AFTER, (-signal.SIGKILL,)),
    "SIGTERM": Harm(Fault.SIGNAL, (0, 128 + signal.SIGTERM), signal.SIGTERM),
    "SIGHUP": Harm(Fault.SIGNAL, (0, 128 + signal.SIGHUP), signal.SIGHUP),
    "ENOSPC once": Harm(Fault.FAIL, (0, 2), errno.ENOSPC),
    "ENOSPC from then on": Harm(Fault.FAIL, (0, 2), errno.ENOSPC, is_sticky=True),
    "EIO once": Harm(Fault.FAIL, (0, 2), errno.EIO),
    "half written": Harm(Fault.HALF, (0,)),
}
# How output is lost: from the start, or after so many lines.
OUTPUTS = ("full", "closed after 0", "closed after 1", "closed after 3")


class Trial(NamedTuple):
    """One trial: of which command, what went wrong, where, and what did not hold."""

    command: str
    harm: str
    where: str
    faults: list[str]


class Bench:
    """Runs one workload after another in the folder `folder/trial`."""

    def __init__(self, folder: Path, name: str, workload: Workload) -> None:
        self.name, self.workload = name, workload
        self.trial, self.log = folder / "trial", folder / "log.txt"
        self.calls_log = folder / f"{name}.calls"
        self._empty()
        import_what_it_imports(workload.command, workload.arguments, self.log)
        self._empty()
        ended = self._run(lambda: shim.arm(Fault.COUNT, self.trial, log=self.calls_log))
        assert ended.status == 0, ended
        self.calls = [call for call in read_log(self.calls_log) if not _is_transient(call.path)]
        self.expected = contents(self.trial)

    def harmed(self, harm_name: str, call: shim.Call) -> Trial:
        """A trial of one call."""
        harm = HARMS[harm_name]
        self._empty()
        ended = self._run(
            lambda: shim.arm(harm.fault, self.trial, target=call.number, error=harm.error, is_sticky=harm.is_sticky)
        )
        statuses = (*harm.statuses, *((0, 1) if self.name == "sweep" else ()))
        faults = [] if ended.status in statuses else [f"exit status {ended.status}: {ended.output[-300:]}"]
        if "Traceback" in ended.output:
            faults.append(f"a traceback: {ended.output[-600:]}")
        if ended.status == 0 and not harm.is_sticky:
            faults += [f"though it ended with 0: {fault}" for fault in self._judged() if "left over" not in fault]
        where = f"{call.number} {call.kind} {os.path.relpath(call.path, self.trial)}"
        return Trial(self.name, harm_name, where, faults + self._repeated())

    def unprinted(self, how: str) -> Trial:
        """A trial whose output is lost; nothing else may be different."""
        self._empty()
        if how == "full":
            ended = self._run(lambda: _output_to(os.open("/dev/full", os.O_WRONLY)))
        else:
            read_end, write_end = os.pipe()
            pid = start(self.name, self.workload.arguments, self.log, lambda: _output_to(write_end))
            os.close(write_end)
            with open(read_end, "rb", buffering=0) as file:
                for _ in range(int(how.split()[-1])):
                    file.readline()
            ended = finish(pid, self.log)
        faults = [] if ended.status == 0 else [f"exit status {ended.status}: {ended.output[-300:]}"]
        return Trial(self.name, "output lost", how, faults + self._judged())

    def power(self) -> Trial:
        """What a power cut could take of what the command has written."""
        return Trial(self.name, "power cut", f"{len(self.calls)} calls", unflushed(self.calls))

    def _repeated(self) -> list[str]:
        is_done = self.name == "corrupt" and not self._judged()  # what is there is never overwritten
        ended = self._run()
        if is_done and ended.status == 2 and "exists and is not empty" in ended.output:
            return self._judged()
        faults = [] if ended.status == 0 else [f"the same command again: {ended.status}: {ended.output[-300:]}"]
        return [*faults, *self._judged()]

    def _judged(self) -> list[str]:
        found = contents(self.trial)
        names = sorted(name for name in self.expected.keys() & found.keys() if self.expected[name] != found[name])
        faults = [f"{name} differs" for name in names]
        faults += [f"{name} is missing" for name in sorted(self.expected.keys() - found.keys())]
        left = [path for path in self.trial.rglob("*") if LEFTOVER.search(path.name)]
        return faults + [f"left over: {path.relative_to(self.trial)}" for path in left]

    def _empty(self) -> None:
        shutil.rmtree(self.trial, ignore_errors=True)
        self.trial.mkdir()
        self.workload.prepare()

    def _run(self, prepare: Callable[[], None] = lambda: None) -> Ended:
        return run(self.workload.command, self.workload.arguments, self.log, prepare)


def _is_transient(path: str) -> bool:
    """Whether a power cut may take it: nobody relies on it."""
    return "/tensorboard/" in path or path.endswith(("/tensorboard", "/.lock"))


def _output_to(descriptor: int) -> None:
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)


def sampled(items: list[Any], number: int) -> list[Any]:
    """So many of the items, evenly spread, the first and the last among them; 0: all."""
    if number == 0 or number >= len(items):
        return items
    return [items[round(i * (len(items) - 1) / max(1, number - 1))] for i in range(number)]


def trials_of(bench: Bench, harms: list[str], number: int) -> list[Trial]:
    done = []
    plans: list[Callable[[], Trial]] = []
    for harm in harms:
        if harm == "power cut":
            plans.append(bench.power)
        elif harm == "output lost":
            plans += [lambda how=how: bench.unprinted(how) for how in OUTPUTS]
        else:
            calls = [call for call in bench.calls if call.kind == "write" or HARMS[harm].fault != Fault.HALF]
            plans += [lambda harm=harm, call=call: bench.harmed(harm, call) for call in sampled(calls, number)]
    for plan in plans:
        begin = time.monotonic()
        trial = plan()
        seconds = time.monotonic() - begin
        verdict = "; ".join(trial.faults) or "held"
        print(f"{trial.command}, {trial.harm} {trial.where}: {verdict}  ({seconds:.1f} s)", flush=True)
        done.append(trial)
    return done


def show(done: list[Trial]) -> None:
    """A row for each command, a column for each harm: held / tried."""
    harms = list(dict.fromkeys(trial.harm for trial in done))
    table = Table(title="held / tried, one trial for each call")
    for header in ("command", *harms):
        table.add_column(header, justify="right" if header in harms else "left")
    for command in dict.fromkeys(trial.command for trial in done):
        row = []
        for harm in harms:
            faults = [trial.faults for trial in done if (trial.command, trial.harm) == (command, harm)]
            row.append(f"{sum(not fault for fault in faults)} / {len(faults)}")
        table.add_row(command, *row)
    Console(markup=False, highlight=False, width=150).print(table)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.calls", description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, default=0, help="so many calls for each command and harm; 0: all")
    parser.add_argument("--only", help="commands, separated by commas")
    parser.add_argument("--faults", help=f"some of {', '.join((*HARMS, 'output lost', 'power cut'))}, by commas")
    parser.add_argument("--out", type=Path, help="JSON file of every trial")
    chosen = parser.parse_args()
    harms = chosen.faults.split(",") if chosen.faults else [*HARMS, "output lost", "power cut"]
    if not shim.is_loaded():
        return shim.run_with_library("tests.faults.calls", sys.argv[1:])
    torch.set_num_threads(1)
    done = []
    with tempfile.TemporaryDirectory(prefix="fastmagn-calls-") as name:
        folder = Path(name)
        workloads = make_workloads(folder)
        commands = chosen.only.split(",") if chosen.only else list(workloads)
        make_sources(folder, commands)
        for command in commands:
            done += trials_of(Bench(folder, command, workloads[command]), harms, chosen.sample)
    show(done)
    failed = [trial for trial in done if trial.faults]
    print(f"{len(done) - len(failed)} of {len(done)} held")
    if chosen.out:
        chosen.out.write_text(json.dumps([trial._asdict() for trial in done], indent=2) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
