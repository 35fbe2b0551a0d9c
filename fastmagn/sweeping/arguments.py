"""A sweep's command line, and its YAML file."""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from fastmagn.config.called import command
from fastmagn.config.command_line import OwnOptions, as_file, config_file, given_fields, parse_own
from fastmagn.config.paths import user_path
from fastmagn.config.plain_yaml import load_plain_yaml
from fastmagn.errors import EXIT_CODES, InputError, as_integer, check, nearest
from fastmagn.sweeping.definition import Search, check_field, parse_grid, parse_random, parse_range

_MARKS = frozenset({"trials", "grid", "random"})  # a YAML file with one of these keys is a sweep's, not a run's
_KEYS = ("base", "fields", "trials", "grid", "random", "num_trials", "search_seed", "out")
DEFAULT_OUT = Path("runs/sweep")
T = TypeVar("T")


class Machines(NamedTuple):
    """Where the trials run. This does not change their results.

    Args:
        address: Address of a Ray cluster; `auto` is the one that this host belongs to. None starts Ray on this machine.
        cpus_per_trial: Cores of each trial, above 0. A trial has as many threads, rounded down, and at least one.
        gpus_per_trial: GPUs of each trial: a share such as 0.5, or a whole number. None means one GPU if there are any
            and `device` is not cpu, else none.
        max_concurrent: How many trials run at a time; 0 means as many as fit.
    """

    address: str | None = None
    cpus_per_trial: float = 1.0
    gpus_per_trial: float | None = None
    max_concurrent: int = 0


class Request(NamedTuple):
    """What a sweep's command line asks for.

    `arguments` are those of `python -m fastmagn.train`, for all trials. `given` are the fields that the command line
    names, without those of files.
    """

    search: Search
    arguments: list[str]
    given: list[str]
    out: Path
    machines: Machines


def parse_arguments(arguments: list[str]) -> Request:
    """The whole command line.

    Raises:
        InputError: An argument, a sweep's file or a value in it cannot be used.
    """
    own, fields = parse_own(command_parser(), arguments)
    configs = [config_file(config) for config in own.config]
    files = [config for config in configs if isinstance(config, Path) and _is_sweep(config)]
    if len(files) > 1:
        raise InputError(f"--config: got two sweeps, {files[0]} and {files[1]}; expected one at most.")
    given = _read_sweep(files[0]) if files else {}
    shared: list[str] = []
    for config in configs:
        shared += given["arguments"] if config in files else ["--config", str(config)]
    for name in given_fields(fields):
        if name in ("run_dir", "resume"):
            check_field(name, "sweep")
    grid = given.get("grid", {}) | _each_once("--grid", map(parse_grid, own.grid))
    random = given.get("random", {}) | _each_once("--random", map(parse_random, own.random))
    num_trials = own.num_trials if own.num_trials is not None else given.get("num_trials", 0)
    search_seed = own.search_seed if own.search_seed is not None else given.get("search_seed", 0)
    search = Search(
        trials=given.get("trials", ({},)), grid=grid, random=random, num_trials=num_trials, search_seed=search_seed
    )
    _check_search(search)
    machines = Machines(getattr(own, "ray.address"), own.cpus_per_trial, own.gpus_per_trial, own.max_concurrent)
    _check_machines(machines)
    out = (own.out or given.get("out") or DEFAULT_OUT).absolute()
    return Request(search, [*shared, *fields], given_fields(fields), out, machines)


def _each_once(option: str, given: Iterable[tuple[str, T]]) -> dict[str, T]:
    """What an option that may be repeated gives each field."""
    fields: dict[str, T] = {}
    for name, value in given:
        if name in fields:
            raise InputError(f"{option}: got {name} twice; expected each field once. Put all of it into one {option}.")
        fields[name] = value
    return fields


def command_parser() -> OwnOptions:
    """The parser of the command's own options; the fields of the configuration are beside them."""
    parser = OwnOptions(
        command("sweep"),
        "Train and measure many runs on Ray: a grid or a random search over any fields of the configuration. Each "
        "trial has an ordinary run folder in DIR. The same command resumes an interrupted sweep. A sweep ends with a "
        "report.",
        "Any field of the configuration may follow, such as --train.epochs 5 or --import FILE (your own code). It "
        "holds for all trials. "
        f"{command('train')} --help_all lists the fields. {EXIT_CODES} With 1, a trial failed.",
    )
    add = parser.add_argument
    add(
        "--config",
        action="append",
        default=[],
        metavar="FILE",
        help="a YAML file: fields for all trials, or a whole sweep; may be repeated",
    )
    add(
        *("--grid", "-g"),
        action="append",
        default=[],
        metavar="FIELD=A,B,C",
        help="a field and its values; with several --grid, every combination is a trial",
    )
    add(
        "--random",
        action="append",
        default=[],
        metavar="FIELD=LOW..HIGH[:log]",
        help="a field to draw at random, uniformly or (:log) uniformly in its logarithm; may be repeated",
    )
    add(
        "--num_trials",
        type=int,
        metavar="N",
        help="number of random draws; with a grid, each draw is combined with each point",
    )
    add("--search_seed", type=int, metavar="SEED", help="seed of the random draws (default: 0)")
    add("--out", type=Path, metavar="DIR", help=f"folder for the run folders and the report (default: {DEFAULT_OUT})")
    add(
        "--ray.address",
        metavar="ADDRESS",
        help="a Ray cluster's address, or auto for this host's cluster; all its hosts must share DIR",
    )
    add("--cpus_per_trial", type=float, default=1.0, metavar="X", help="cores of each trial (default: 1)")
    add(
        "--gpus_per_trial",
        type=float,
        metavar="X",
        help="GPUs of each trial; 0.5 puts two trials on each GPU (default: 1 if there are GPUs and device is not cpu)",
    )
    add(
        "--max_concurrent",
        type=int,
        default=0,
        metavar="N",
        help="how many trials run at a time (default: as many as fit)",
    )
    return parser


def _check_search(search: Search) -> None:
    check(search.search_seed >= 0, "--search_seed", search.search_seed, "0 or more")
    if search.random:
        check(search.num_trials >= 1, "--num_trials", search.num_trials, "1 or more with --random")
    else:
        check(search.num_trials == 0, "--num_trials", search.num_trials, "none without --random")
    if search.varied() == [] and len(search.trials) == 1:
        raise InputError(
            "sweep: no field varies; expected --grid FIELD=A,B, --random FIELD=LOW..HIGH or a sweep's file."
        )
    ways = [set().union(*search.trials), set(search.grid), set(search.random)]
    for first, second in itertools.combinations(ways, 2):
        twice = sorted(first & second)
        if twice:
            raise InputError(f"sweep: {twice[0]} varies in two ways; expected one of trials, --grid and --random.")


def _check_machines(machines: Machines) -> None:
    check(machines.cpus_per_trial > 0, "--cpus_per_trial", machines.cpus_per_trial, "a number above 0")
    gpus = machines.gpus_per_trial or 0.0
    shares = 0 <= gpus <= 1 or gpus % 1 == 0
    check(shares and gpus >= 0, "--gpus_per_trial", gpus, "0..1, or a whole number")
    check(machines.max_concurrent >= 0, "--max_concurrent", machines.max_concurrent, "0 (as many as fit) or more")


def _is_sweep(config: Path) -> bool:
    given = load_plain_yaml(config)
    return isinstance(given, dict) and not _MARKS.isdisjoint(given)


def _read_sweep(path: Path) -> dict[str, Any]:
    """A sweep's file. `base` and `fields` become `arguments`; the other keys keep their names.

    Raises:
        InputError: A key or a value in it cannot be used.
    """
    given = load_plain_yaml(path)
    for key in given:
        if key not in _KEYS:
            raise InputError(f"{path}: got {key!r}; expected some of {', '.join(_KEYS)}.{nearest(str(key), _KEYS)}")
    try:
        fields = {name: _argument(value) for name, value in _fields_of(given.get("fields", {}), path).items()}
        arguments = [*_base_arguments(path, given), *as_file(fields)]
        read: dict[str, Any] = {"arguments": arguments}
        if "trials" in given:
            read["trials"] = tuple(
                {name: _argument(value) for name, value in _fields_of(trial, path).items()}
                for trial in _list_of(given["trials"])
            )
            check(len(read["trials"]) > 0, "trials", given["trials"], "at least one")
        if "grid" in given:
            grid = _fields_of(given["grid"], path)
            read["grid"] = {name: _values_of(f"{path}: grid: {name}", values) for name, values in grid.items()}
        if "random" in given:
            read["random"] = {name: parse_range(name, one) for name, one in _fields_of(given["random"], path).items()}
        read |= {
            name: as_integer(f"{path}: {name}", given[name], range(1 << 64), "a whole number, 0 or more")
            for name in ("num_trials", "search_seed")
            if name in given
        }
    except (TypeError, AttributeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: cannot be read as a sweep; expected fields: {{FIELD: value}}, trials: [{{FIELD: value}}], grid: "
            "{FIELD: [a, b]}, random: {FIELD: low..high}."
        ) from error
    if "out" in given:
        out = given["out"]
        check(isinstance(out, str) and out != "", f"{path}: out", out, "a path, in quotes if it looks like a number")
        read["out"] = user_path(out, f"{path}: out")
    return read


def _base_arguments(path: Path, given: dict[str, Any]) -> list[str]:
    if "base" not in given:
        return []
    base = path.parent / user_path(given["base"], f"{path}: base")
    if not base.is_file():
        raise InputError(f"{path}: base: got {given['base']!r}; expected a YAML file, but {base} is not a file.")
    return ["--config", str(base)]


def _fields_of(given: Any, path: Path) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise TypeError(given)
    for name in given:
        check_field(name, str(path))
    return given


def _list_of(given: Any) -> list[Any]:
    if not isinstance(given, list):  # a text would be a list of its letters
        raise TypeError(given)
    return given


def _values_of(name: str, values: Any) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise TypeError(values)
    check(values != [], name, values, "at least one value")
    return tuple(_argument(value) for value in values)


def _argument(value: Any) -> str:
    """A value of a YAML file as the command line takes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if not isinstance(value, str | int | float):
        raise TypeError(value)
    return str(value)
