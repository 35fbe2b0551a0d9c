"""From the command line and YAML to Config, and back to a run's config.yaml."""

import difflib
import re
from argparse import ArgumentError
from dataclasses import fields, is_dataclass
from pathlib import Path

from jsonargparse import ArgumentParser

from fastmagn.config.plain_yaml import read_plain_yaml
from fastmagn.config.schema import Config
from fastmagn.config.text import flatten
from fastmagn.errors import EXIT_CODES, InputError

# A text in their place would be read as the name of a further file.
_SECTIONS = frozenset({"config", *(field.name for field in fields(Config) if is_dataclass(field.type))})


def config_parser(prog: str, description: str) -> ArgumentParser:
    """The command line of Config: `--config FILE`, `--section.field value`, `--print_config`, `--help`."""
    parser = ArgumentParser(prog=prog, description=description, epilog=EXIT_CODES, exit_on_error=False)
    parser.add_argument(
        "--config",
        action="config",
        help="YAML file of these fields, or the name of a shipped one, such as digits_quickstart; later arguments "
        "override it. A line `base: OTHER.yaml`, relative to the file, starts from another.",
    )
    parser.add_class_arguments(Config)
    return parser


def parse_config(arguments: list[str], prog: str, description: str) -> Config:
    """Config from command-line arguments.

    Raises:
        InputError: An unknown field (named, with the nearest known one), a value of another type or out of its range,
            a YAML file that cannot be read, a `base` that is no file or leads back to itself.
    """
    parser = config_parser(prog, description)
    try:
        values = vars(parser.instantiate(parser.parse_args(with_bases(arguments))))
    except ArgumentError as error:
        raise InputError(_one_line(str(error))) from error
    return Config(**{field.name: values[field.name] for field in fields(Config)})


def shipped_configs() -> Path:
    """The folder of the shipped configurations: in a wheel inside the package, in a checkout beside it."""
    package = Path(__file__).parent.parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def config_file(name: str) -> str:
    """The file that `--config NAME` means: one that is there, or a shipped one; YAML text stays what it is.

    Raises:
        InputError: It is neither; the nearest shipped ones are named.
    """
    if any(mark in name for mark in "\n:{") or Path(name).is_file():
        return name
    folder, wanted = shipped_configs(), name.removeprefix("configs/").removesuffix(".yaml")
    shipped = {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}
    if wanted in shipped:
        return str(shipped[wanted])
    nearest = difflib.get_close_matches(wanted, shipped, n=3)
    hint = f" Did you mean {', '.join(nearest)}?" if nearest else ""
    raise InputError(
        f"config: {name} does not exist, nor is it a shipped configuration, such as digits_quickstart or "
        f"paper/table1/magn_augmix.{hint}"
    )


def with_bases(arguments: list[str]) -> list[str]:
    """The arguments with each `--config FILE` that has a `base` preceded by what it starts from; all are plain YAML.

    Raises:
        InputError: A file that is not plain YAML; a `base` that is no file or leads back to itself.
    """
    expanded = []
    for previous, argument in zip(["", *arguments], arguments, strict=False):
        name = argument.removeprefix("--config=")
        if previous == "--config":
            expanded.pop()
        elif name == argument:
            expanded.append(argument)
            continue
        expanded += [part for config in _with_base(config_file(name), ()) for part in ("--config", config)]
    return expanded


def _with_base(config: str, above: tuple[Path, ...]) -> list[str]:
    """The configs that a file stands for, first to last: its name, or, where it has a `base`, its text after that."""
    path = Path(config)
    if not path.exists():
        return [config]  # the parser says so
    text = read_plain_yaml(path, _SECTIONS)
    line = re.search(r"^base:(.*)$", text, re.MULTILINE)
    if line is None:
        return [config]
    name = re.sub(r"\s#.*", "", line[1]).strip().strip("'\"")
    base = path.parent / name
    chain = (*above, path)
    if not base.is_file():
        raise InputError(f"{path}: base: got {name!r}; expected a YAML file, but there is no {base}.")
    if any(base.samefile(other) for other in chain):
        raise InputError(f"{path}: base: got {name!r}, which leads back to itself; expected a file without this one.")
    own = (
        text[: line.start()] + text[line.end() :]
    )  # text, not values: the parser reads 1e-3 as a number, PyYAML does not
    is_empty = all(row.strip() == "" or row.lstrip().startswith("#") for row in own.splitlines())
    return [*_with_base(str(base), chain), *([] if is_empty else [own])]


def _one_line(message: str) -> str:
    """jsonargparse's message in one line, with the nearest field where it names one that does not exist."""
    line = re.sub(r"\s+", " ", message).strip()
    known = flatten(Config())
    sections = {name.split(".")[0] for name in known if "." in name}
    group = re.search(r"Group '(\w+)'", line)
    for word in re.findall(r"(?:'|--)([\w.]+)", line):
        name = f"{group[1]}.{word}" if group else word
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
        if nearest and word not in sections and name not in known:
            return f"{line}. Did you mean {nearest[0]!r}?"
    return line
