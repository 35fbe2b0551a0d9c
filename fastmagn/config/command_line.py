"""The one parser of all commands: options from dataclasses and YAML, dataclasses back, errors in one line."""

import argparse
import os
import re
from argparse import ArgumentError
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import yaml
from jsonargparse import ArgumentParser, set_dumper

from fastmagn.config import own_code
from fastmagn.config.help import HelpFormatter, brief_formatter, hide_sections
from fastmagn.config.paths import kept_path, user_path, with_user_paths
from fastmagn.config.plain_yaml import read_plain_yaml
from fastmagn.config.schema import Config
from fastmagn.config.text import flatten, yaml_text
from fastmagn.config.words import allows_none, describe_fault, in_words
from fastmagn.errors import EXIT_CODES, InputError, nearest, one_line

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

# If one of these were given a string, the parser would read it as the name of a file.
_SECTIONS = frozenset({"config", *(field.name for field in fields(Config) if is_dataclass(field.type))})
_FORMAT = "fastmagn"  # of what --print_config prints
set_dumper(_FORMAT, partial(yaml_text, allow_unicode=True))
_YAML_TEXT = re.compile(r"\n|^\s*\{|:(\s|$)")  # a name with this is YAML itself, unless there is such a file
_NEAR = 0.75  # how similar to an unknown option or field a suggestion must be, 0..1
_SHORT = 4  # characters of an option of which one may be wrong: rum is near run
_OTHER_NAMES = {"out": "run_dir"}  # what other commands call it


class _Parser(ArgumentParser):
    def dump(self, cfg: Any, *, format: str = "parser_mode", with_comments: bool = False, **options: Any) -> str:
        form = _FORMAT if format == "parser_mode" and not with_comments else format
        return super().dump(cfg, format=form, with_comments=with_comments, **options)


def make_parser(prog: str, description: str, *kinds: type, epilog: str = EXIT_CODES) -> ArgumentParser:
    """A parser with an option for each field of the dataclasses `kinds`; further options can be added to it."""
    parser = _Parser(
        prog=prog,
        description=description,
        epilog=epilog,
        formatter_class=HelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
    )
    for kind in kinds:
        parser.add_class_arguments(kind)
    return parser


def parse(parser: ArgumentParser, arguments: list[str]) -> dict[str, Any]:
    """The value of every option by its name, `~` expanded in paths; `of_kind` makes dataclasses of them.

    An option overrides the files of `--config`, wherever it stands, and a later file an earlier one.

    Raises:
        InputError: An option or a field is unknown (the nearest known one is named) or missing, or its value has the
            wrong type or range, or is not UTF-8; a YAML file cannot be read, or a `base` is not a file or leads back to
            itself.
    """
    _check_utf8(arguments)
    if own_code.OPTION in parser._option_string_actions:
        own_code.run_imported(arguments)
    if "--config" in parser._option_string_actions:
        arguments = _files_first(arguments)
    hints = _hints(parser)
    try:
        values = parser.parse_args(arguments)
    except ArgumentError as error:
        known = option_names(parser)
        check_options(arguments, known, parser.prog)
        line = one_line(error, None)
        positionals = [action.dest for action in parser._actions if not action.option_strings]
        fault = describe_fault(line, hints, positionals)
        is_of_a_value = any(fault.startswith(f"{name}: got ") for name in hints)
        raise InputError(fault if is_of_a_value else fault + _nearest_field(line, known)) from error
    except OverflowError as error:  # which the parser does not catch
        raise InputError("arguments: got a whole number of over 308 digits; expected numbers below 1e308.") from error
    for name, hint in hints.items():
        if values.get(name) is None and not allows_none(hint):
            raise InputError(f"{name}: got null; expected {in_words(hint)}.")
    with own_code.explained(values.get("imports")):
        return vars(parser.instantiate(with_user_paths(values, path=kept_path)))


def add_import_option(parser: ArgumentParser) -> None:
    """Add `--import FILE` to the parser of a command that does not take the fields of `Config`."""
    parser.add_argument(own_code.OPTION, type=Path | None, metavar="FILE", help=own_code.HELP)


def _check_utf8(arguments: list[str]) -> None:
    """Raise InputError for an argument of other bytes, such as an old name of a file: YAML and JSON cannot hold it."""
    for previous, argument in zip(["", *arguments], arguments, strict=False):
        try:
            argument.encode()
        except UnicodeEncodeError:
            option, _, value = argument.rpartition("=") if argument.startswith("--") else (previous, "", argument)
            field = f"{option.removeprefix('--')}: " if option.startswith("--") else ""
            raise InputError(
                f"{field}{value!r} is not UTF-8; expected names in UTF-8. Rename the file or folder."
            ) from None


def of_kind(kind: type[T], values: dict[str, Any]) -> T:
    """The dataclass `kind`, its fields taken from `values`."""
    return kind(**{field.name: values[field.name] for field in fields(kind)})


def _hints(parser: ArgumentParser) -> dict[str, Any]:
    """The type of every field and argument of a parser by its name."""
    return {action.dest: action._typehint for action in parser._actions if hasattr(action, "_typehint")}


def option_names(parser: argparse.ArgumentParser) -> list[str]:
    """The long options of a parser, without their dashes."""
    return [name.removeprefix("--") for name in parser._option_string_actions if name.startswith("--")]


def given_fields(arguments: list[str]) -> list[str]:
    """The options that the arguments of a command name, without their dashes; not the fields of a YAML file."""
    return [argument.removeprefix("--").partition("=")[0] for argument in arguments if argument.startswith("--")]


def check_options(arguments: list[str], known: Iterable[str], prog: str) -> None:
    """Check that every argument that starts with two dashes is a known option.

    Raises:
        InputError: One is not; the nearest known option is named.
    """
    known = set(known)
    sections = {option.partition(".")[0] for option in known if "." in option}
    for name in given_fields(arguments):
        if name and name not in known:
            meant = _OTHER_NAMES.get(name, name)
            in_other_sections = [option for option in known if option.rpartition(".")[2] == meant.rpartition(".")[2]]
            hint = nearest(meant, in_other_sections, cutoff=0) or nearest(
                name, known - sections, cutoff=_NEAR if len(name) > _SHORT else 0.6
            )
            hint = hint or f" {prog} --help lists all options."
            raise InputError(f"--{name}: is not an option of {prog}.{hint}")


def _nearest_field(line: str, known: list[str]) -> str:
    """The hint that ends a message about a YAML file's unknown field; empty if no known field is near."""
    group = re.search(r"Group '(\w+)'", line)
    for word in re.findall(r"'([\w.]+)", line):
        name = f"{group[1]}.{word}" if group else word
        hint = nearest(name, (field for field in known if field not in _SECTIONS), cutoff=_NEAR)
        if hint and word not in _SECTIONS and name not in known:
            return hint
    return ""


class OwnOptions(argparse.ArgumentParser):
    """The options of a command that may also take every field of `Config`; see `parse_own`.

    Its errors are InputErrors, no option may be abbreviated, and `~` is expanded in paths.
    """

    description: str

    def __init__(self, prog: str, description: str, epilog: str = "") -> None:
        super().__init__(
            prog=prog, description=description, epilog=epilog, formatter_class=HelpFormatter, allow_abbrev=False
        )

    def parse_known_args(  # type: ignore[override]  # one signature for the two overloads of argparse
        self, args: Any = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        own, left = super().parse_known_args(args, namespace)
        return with_user_paths(own), left

    def error(self, message: str) -> NoReturn:
        raise InputError(describe_fault(message, {action.dest: action.type or str for action in self._actions}))


def parse_own(parser: OwnOptions, arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The command's own options, and the arguments that are left: fields of `Config`, for `parse_config`.

    Raises:
        InputError: An option is neither the command's own nor a field (the nearest is named), or an own option is
            missing or has a wrong value, or is not UTF-8.
    """
    _check_utf8(arguments)
    known = option_names(parser) + option_names(config_parser(parser.prog, ""))
    try:
        own, left = parser.parse_known_args(arguments)
    except InputError:
        check_options(arguments, known, parser.prog)
        raise
    check_options(left, known, parser.prog)
    return own, left


def config_parser(
    prog: str, description: str, epilog: str = EXIT_CODES, shown: frozenset[str] | None = None
) -> ArgumentParser:
    """The command line of Config: `--config FILE`, `--section.field value`, `--print_config`, `--help`, `--help_all`.

    Args:
        prog: The command, as the user writes it.
        description: Begins the help.
        epilog: Ends the help.
        shown: The options that `--help` shows; `--help_all` shows all. None shows all at once.
    """
    parser = make_parser(prog, description, epilog=epilog)
    parser.usage = "%(prog)s [--config FILE] [--section.field VALUE ...]"
    parser.add_argument(
        "--config",
        action="config",
        metavar="FILE",
        help="A YAML file of these fields, or the name of a shipped one, such as digits_quickstart. Options and later "
        "files override it. A file with the line `base: OTHER.yaml` (relative to the file) holds only its differences.",
    )
    parser.add_argument("--help_all", action=_HelpAll, help="Show every field with its default, and exit.")
    parser.add_class_arguments(Config)
    # A field of a dataclass cannot be called import.
    action = parser._option_string_actions.pop("--imports")
    action.option_strings = [own_code.OPTION]
    parser._option_string_actions[own_code.OPTION] = action
    hide_sections(parser)
    if shown is not None:
        parser.formatter_class = brief_formatter(shown)
    return parser


class _HelpAll(argparse._HelpAction):
    """Prints the help with every field."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        print(config_parser(parser.prog, parser.description or "", parser.epilog or "").format_help(), end="")
        raise SystemExit(0)


def parse_config(
    arguments: list[str], prog: str, description: str, epilog: str = EXIT_CODES, shown: frozenset[str] | None = None
) -> Config:
    """A Config from command-line arguments; see `config_parser`.

    Raises:
        InputError: A field is unknown (the nearest known one is named), a value has the wrong type or range, a YAML
            file cannot be read, or a `base` is not a file or leads back to itself.
    """
    return of_kind(Config, parse(config_parser(prog, description, epilog, shown), arguments))


def config_of(values: dict[str, Any]) -> Config:
    """A Config from nested values of unknown origin: the `config` of a results.json. Absent fields have their defaults.

    Raises:
        InputError: This version does not know a field or a value.
    """
    _check_fields(values)
    parser = make_parser("config", "", Config)
    try:
        return of_kind(Config, vars(parser.instantiate(parser.parse_object(values))))
    except InputError:
        raise
    except Exception as error:  # the parser raises many kinds of errors for values that no version has written
        fault = describe_fault(one_line(error), _hints(parser))
        raise InputError(f"config: this version cannot read it ({fault.removesuffix('.')}).") from error


def _check_fields(values: dict[str, Any]) -> None:
    """Raise InputError for a name that is not a field: the parser would import the module of a `class_path`."""
    known = flatten(Config())
    for name, value in values.items():
        is_section = name in _SECTIONS
        if is_section and not isinstance(value, dict):
            raise InputError(f"config: {name}: is not a mapping of its fields.")
        for field in [f"{name}.{inner}" for inner in value] if is_section else [name]:
            if field not in known:
                raise InputError(f"config: {field}: is not a field of this version.{nearest(field, known)}")


def shipped_configs() -> Path:
    """The folder of the shipped configurations: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).parent.parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def config_file(name: str) -> Path | str:
    """The file that `--config NAME` means: an existing one, or a shipped one. YAML text is returned as it is.

    Raises:
        InputError: The file does not exist. The message names the nearest shipped ones.
    """
    if _YAML_TEXT.search(name) and not os.path.isfile(name):
        return name
    path = user_path(name, "config")
    if path.is_file():
        return path
    folder, wanted = shipped_configs(), name.removeprefix("configs/").removesuffix(".yaml")
    shipped = {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}
    if wanted in shipped:
        return shipped[wanted]
    raise InputError(
        f"config: {name} {'is not a file' if path.exists() else 'does not exist'}, nor is it a shipped configuration, "
        f"such as digits_quickstart or paper/table1/magn_augmix.{nearest(wanted, shipped, 3)}"
    )


def as_file(fields: dict[str, Any]) -> list[str]:
    """Arguments that set fields, by their dotted names, as a file does: an option or a later file overrides them."""
    return ["--config", yaml_text(fields)] if fields else []


def _files_first(arguments: list[str]) -> list[str]:
    """The arguments, with each `--config FILE` and the files that it is based on put before all options.

    Raises:
        InputError: A file is not plain YAML, or a `base` is not a file or leads back to itself.
    """
    configs, options = split_configs(arguments)
    texts = [text for name in configs for text in _with_base(config_file(name), ())]
    return [*(part for text in texts for part in ("--config", text)), *options]


def split_configs(arguments: list[str]) -> tuple[list[str], list[str]]:
    """What each `--config` names, and the other arguments."""
    configs: list[str] = []
    options: list[str] = []
    for previous, argument in zip(["", *arguments], arguments, strict=False):
        name = argument.removeprefix("--config=")
        if previous == "--config":
            options.pop()
        elif name == argument:
            options.append(argument)
            continue
        configs.append(name)
    return configs, options


def _with_base(config: Path | str, above: tuple[Path, ...]) -> list[str]:
    """The configs to read for a file, first to last: its name if it has no `base`, else its base's and its own text.

    Args:
        config: A file, or YAML text.
        above: The files that are based on it.
    """
    if isinstance(config, str):
        return [config]
    text = read_plain_yaml(config, _SECTIONS)
    name, own = _base_and_rest(config, text)
    if name is None:
        if _is_empty(text):
            raise InputError(f"{config}: has no fields; expected some, such as `train: {{epochs: 3}}`.")
        return [str(config)]
    base = config.parent / user_path(name, f"{config}: base")
    chain = (*above, config)
    if not base.is_file():
        raise InputError(f"{config}: base: got {name!r}; expected a YAML file, but {base} is not a file.")
    if any(base.samefile(other) for other in chain):
        raise InputError(f"{config}: base: got {name!r}, which leads back to itself; expected a file without this one.")
    return [*_with_base(base, chain), *([] if _is_empty(own) else [own])]


def _base_and_rest(path: Path, text: str) -> tuple[str | None, str]:
    """The `base` that a file's text names, or None, and the text without it.

    The rest is text and not values: the parser reads 1e-3 as a number, PyYAML does not.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    for key, value in root.value if isinstance(root, yaml.MappingNode) else []:
        if key.value == "base":
            if root.flow_style:
                raise InputError(f"{path}: base: got it within braces; expected a line of its own, base: OTHER.yaml.")
            start, end = key.start_mark.index, value.end_mark.index
            name = value.value if isinstance(value, yaml.ScalarNode) else text[value.start_mark.index : end]
            return name, text[:start] + text[end:]
    return None, text


def _is_empty(text: str) -> bool:
    return all(row.strip() == "" or row.lstrip().startswith("#") for row in text.splitlines())
