"""Trials on Ray Tune. No other module imports Ray.

Tune places trials on cores and GPUs, here or on a cluster. Whether a trial is finished is read from its run folder.
Tune's own state is deleted.
"""

import logging
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastmagn.errors import InputError, Interrupted, one_line, without
from fastmagn.machine.signals import handled_by
from fastmagn.sweeping.arguments import Machines
from fastmagn.sweeping.trial import Outcome, run_trial
from fastmagn_kernels.threads import cpu_share

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune's own gives trials ten seconds to save
    "TUNE_MAX_PENDING_TRIALS_PG": "4",
}
for _name, _value in _QUIET.items():
    os.environ.setdefault(_name, _value)

try:
    import ray
    from ray import tune

    _fault: ImportError | None = None
except ImportError as error:
    ray, tune, _fault = None, None, error

# Off, Ray's servers listen on loopback, as they do by default on the systems in its name.
_REACHABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_OBJECT_STORE_BYTES = 100 * 2**20  # a trial's outcome is a line of text; Ray's default is a third of the memory


def check_ray() -> None:
    """Raise InputError if Ray cannot be imported."""
    if _fault is not None:
        raise without("ray", _fault, "sweep: needs Ray Tune; pip install 'fastmagn[ray]'.") from _fault


def run_trials(
    run_dirs: list[Path],
    machines: Machines,
    on_cpu: bool,
    started: Callable[[str], None],
    ended: Callable[[Outcome], None],
    imports: Path | None = None,
) -> int:
    """Run the trials of these run folders until all have ended.

    After SIGINT, SIGTERM or SIGHUP, running trials save and exit, and no further trial starts.

    Args:
        run_dirs: Run folders with a config.yaml, on a file system that all hosts share.
        machines: Where the trials run.
        on_cpu: The trials need no GPU, unless `machines` says so.
        started: Called with a trial's name when it starts.
        ended: Called with a trial's outcome when it has ended.
        imports: The file that `--import` names, for each trial.

    Returns:
        The signal that stopped the trials, 0 if none did.

    Raises:
        InputError: Ray cannot be started or reached, or none of its hosts has what a trial needs.
    """
    check_ray()
    with _connected(machines.address):
        gpus = _gpus(machines, on_cpu)
        _check_room(machines.cpus_per_trial, gpus)
        flag = ray.remote(num_cpus=0)(_StopFlag).remote()
        threads, folder = max(1, int(machines.cpus_per_trial)), Path.cwd()

        def trainable(config: dict[str, Any]) -> None:
            outcome = run_trial(Path(config["run_dir"]), folder, threads, lambda: ray.get(flag.read.remote()), imports)
            tune.report(outcome._asdict())

        watch = _Watch(started, ended)
        state_dir = run_dirs[0].parent / ".tune"
        shutil.rmtree(state_dir, ignore_errors=True)  # of a killed sweep
        try:
            with _signals_stop_trials(lambda: flag.set.remote(), watch):
                tune.Tuner(
                    tune.with_resources(trainable, {"cpu": machines.cpus_per_trial, "gpu": gpus}),
                    param_space={"run_dir": tune.grid_search([str(path) for path in run_dirs])},
                    tune_config=tune.TuneConfig(max_concurrent_trials=machines.max_concurrent or None),
                    run_config=tune.RunConfig(
                        storage_path=str(state_dir), name="state", callbacks=[watch], stop=watch.stopper(), verbose=0
                    ),
                ).fit()
        finally:
            shutil.rmtree(state_dir, ignore_errors=True)
        return watch.signal_number


class _StopFlag:
    """The Ray actor that every trial asks whether it must stop."""

    def __init__(self) -> None:
        self.value = False

    def set(self) -> None:
        self.value = True

    def read(self) -> bool:
        return self.value


_Callback: Any = tune.Callback if tune else object


class _Watch(_Callback):
    """Follows the trials. After a signal, it ends the experiment as soon as no trial runs any more."""

    def __init__(self, started: Callable[[str], None], ended: Callable[[Outcome], None]) -> None:
        self.started, self.ended = started, ended
        self.running: set[str] = set()
        self.signal_number = 0

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        name = Path(trial.config["run_dir"]).name
        self.running.add(name)
        if not self.signal_number:
            self.started(name)

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict[str, Any], **info: Any) -> None:
        self._ended(Outcome(result["name"], result["state"], result["error"]))

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        lines = str(trial.get_error() or "its worker died").strip().splitlines()
        self._ended(Outcome(Path(trial.config["run_dir"]).name, "failed", lines[-1]))

    def _ended(self, outcome: Outcome) -> None:
        self.running.discard(outcome.name)
        self.ended(outcome)

    def stopper(self) -> Any:
        watch = self

        class StopAfterSignal(tune.Stopper):
            def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
                return False

            def stop_all(self) -> bool:
                return bool(watch.signal_number) and not watch.running

        return StopAfterSignal()


@contextmanager
def _signals_stop_trials(tell_trials: Callable[[], Any], watch: _Watch) -> Iterator[None]:
    """SIGINT, SIGTERM or SIGHUP tells the trials to save and exit. A second SIGINT ends the sweep at once."""

    def receive(number: int) -> None:
        if watch.signal_number and number == signal.SIGINT:
            raise Interrupted(number)
        if not watch.signal_number:
            watch.signal_number = number
            tell_trials()

    with handled_by(receive):
        yield


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """Connect to Ray at `address`, or start it here; without its log output and its dashboard."""
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        here = {"num_cpus": cpu_share(), "object_store_memory": _OBJECT_STORE_BYTES, "include_dashboard": False}
        failure = "sweep: Ray could not be started on this machine; the same command tries again."
        with _loopback_only():
            _init("local", failure, **here, **quiet)
    else:
        _init(address, f"--ray.address: got {address!r};", **quiet)
    try:
        yield
    finally:
        ray.shutdown()


def _init(address: str, failure: str, **options: Any) -> None:
    """`ray.init`. InputError, which begins with `failure`, if it fails: Ray raises Exception itself if it is slow."""
    try:
        ray.init(address, **options)
    except Exception as error:
        raise InputError(f"{failure} Ray says: {one_line(error, None)}") from error


@contextmanager
def _loopback_only() -> Iterator[None]:
    """Ray's servers that start meanwhile listen on 127.0.0.1 only: whoever reaches them can run code."""
    from ray._private import ray_constants  # Ray reads its environment when it is imported

    environment, reachable = os.environ.get(_REACHABLE), ray_constants.ENABLE_RAY_CLUSTER
    os.environ[_REACHABLE], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = reachable
        if environment is None:
            del os.environ[_REACHABLE]
        else:
            os.environ[_REACHABLE] = environment


def _gpus(machines: Machines, on_cpu: bool) -> float:
    if machines.gpus_per_trial is not None:
        return machines.gpus_per_trial
    return 1.0 if not on_cpu and ray.cluster_resources().get("GPU", 0) >= 1 else 0.0


def _check_room(cpus: float, gpus: float) -> None:
    """Raise InputError unless one host has what a trial needs: Ray itself would wait for such a host for ever."""
    hosts = [host["Resources"] for host in ray.nodes() if host["Alive"]]
    for name, kind, wanted in (("cpus_per_trial", "CPU", cpus), ("gpus_per_trial", "GPU", gpus)):
        most = max(host.get(kind, 0.0) for host in hosts)
        if wanted > most:
            raise InputError(
                f"--{name}: got {wanted:g}; expected at most {most:g}, which is what the largest host has."
            )
    if not any(host.get("CPU", 0.0) >= cpus and host.get("GPU", 0.0) >= gpus for host in hosts):
        raise InputError(f"--cpus_per_trial: got {cpus:g} with {gpus:g} GPUs; no single host has both.")
