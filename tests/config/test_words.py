"""A value of the wrong type is one line in words: the field, what came, what is allowed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
import yaml

from fastmagn.config.command_line import make_parser, of_kind, parse, parse_config
from fastmagn.config.schema import Config
from fastmagn.config.words import in_words
from fastmagn.errors import InputError
from fastmagn.evaluation.corrupt_config import CorruptConfig
from fastmagn.exporting.config import ExportConfig
from fastmagn.sweeping.arguments import parse_arguments as parse_sweep
from fastmagn.sweeping.definition import FIELD_TYPES
from fastmagn.theory.config import GeometryConfig, TheoryConfig
from tests.config.test_command_line import main_of

JARGON = ("Literal", "Union", "Optional", "<class", "typing", "Parser key", "Problem", "subtypes", "NoneType", "Path")
SENTENCES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
    Path | None: "a path or null",
    str | None: "text or null",
    str | int: "text or a whole number",
    str | int | None: "text, a whole number or null",
    int | None: "a whole number or null",
    Literal["auto"] | bool: "auto, true or false",
}
SCHEMAS = {"corrupt": (CorruptConfig,), "export": (ExportConfig,), "theory": (TheoryConfig, GeometryConfig)}
# What each command needs beside the field.
REQUIRED = {
    "train": [],
    "evaluate": ["--logits", "l"],
    "sweep": ["--grid", "train.seed=0,1"],
    "corrupt": ["--out", "o"],
    "export": ["--run", "r", "--format", "onnx", "--out", "o.onnx"],
    "theory": ["r", "--out", "o"],
}


def fields_of(command: str) -> dict[str, Any]:
    """Every field of a command and its type."""
    if command not in SCHEMAS:
        return FIELD_TYPES
    return {name: kind for schema in SCHEMAS[command] for name, kind in schema.__annotations__.items()}


def is_text(kind: Any) -> bool:
    return kind in (str, Path) or bool({str, Path} & set(get_args(kind)))


def expected(kind: Any) -> str:
    if kind in SENTENCES:
        return SENTENCES[kind]
    values = [value for one in (get_args(kind) or ()) for value in (get_args(one) or (one,))]
    *first, last = ["null" if value is type(None) else str(value) for value in values]
    return f"{', '.join(first)} or {last}"


def check_line(error: InputError, name: str, got: str, kind: Any) -> None:
    line = str(error)
    assert line == f"{name}: got {got}; expected {expected(kind)}."
    assert not any(word in line for word in JARGON)


def typed_fields(command: str) -> dict[str, Any]:
    """The fields that do not take any text; those of one schema are tried by one of its commands."""
    typed = {name: kind for name, kind in fields_of(command).items() if not is_text(kind)}
    if command in ("evaluate", "sweep"):  # train has tried them all
        return {name: typed[name] for name in ("train.compile", "train.epochs", "optim.lr", "eval.binning")}
    return typed


TYPED = [(command, name, kind) for command in REQUIRED for name, kind in typed_fields(command).items()]


@pytest.mark.parametrize(("command", "name", "kind"), TYPED, ids=[f"{command} {name}" for command, name, _ in TYPED])
def test_every_field_of_every_command_says_what_it_takes(command, name, kind):
    with pytest.raises(InputError) as error:
        main_of(command)([*REQUIRED[command], f"--{name}", "abc"])
    check_line(error.value, name, "'abc'", kind)


@pytest.mark.parametrize("name", FIELD_TYPES)
def test_every_field_of_a_yaml_file_refuses_lists_and_mappings(name, tmp_path):
    value = [[1, 2], {"a": 1}, {"abc": [None]}][len(name) % 3]
    section, _, inner = name.rpartition(".")
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({section: {inner: value}} if section else {name: value}))
    with pytest.raises(InputError) as error:
        parse_config(["--config", str(tmp_path / "a.yaml")], "test", "")
    kind = FIELD_TYPES[name]
    got = ("a list" if isinstance(value, list) else "a mapping") if kind is Path else repr(value)
    check_line(error.value, name, got, kind)


NOT_NULL = [name for name in FIELD_TYPES if name in ("method", "data.name", "data.dir", "model.name", "resume")]


@pytest.mark.parametrize("name", [*NOT_NULL, "train.epochs", "optim.lr", "train.compile", "data.download"])
def test_null_is_refused_where_it_is_no_value(name, tmp_path):
    section, _, inner = name.rpartition(".")
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({section: {inner: None}} if section else {name: None}))
    with pytest.raises(InputError) as error:
        parse_config(["--config", str(tmp_path / "a.yaml")], "test", "")
    got = "null" if str(error.value).startswith(f"{name}: got null") else "'null'"
    check_line(error.value, name, got, FIELD_TYPES[name])


@pytest.mark.parametrize(
    ("command", "arguments", "line"),
    [
        ("train", ["--train.epochs", "1.5"], "train.epochs: got 1.5; expected a whole number."),
        ("train", ["--train.epochs="], "train.epochs: got ''; expected a whole number."),
        ("train", ["--train.epochs"], "train.epochs: got no value; expected a whole number."),
        ("train", ["--optim.lr", "[1]"], "optim.lr: got [1]; expected a number."),
        ("train", ["--optim.lr", "true"], "optim.lr: got true; expected a number."),
        ("train", ["--train.compile", "maybe"], "train.compile: got 'maybe'; expected auto, true or false."),
        ("train", ["--eval.binning", "x"], "eval.binning: got 'x'; expected width or adaptive."),
        ("train", ["--optim", "fast"], "optim: got another value than a mapping of its fields; expected th"),
        ("train", ["surplus"], "got 'surplus'; expected only options, each with one value."),
        ("train", ["--config", "{train: [}"], "config: cannot be read as YAML ("),
        ("train", ["--config", "- 1\n- 2"], "config: got '- 1 - 2'; expected fields, such as `train: {epochs: 3}`."),
        ("export", ["--run", "r", "--format", "tflite", "--out", "o"], "format: got 'tflite'; expected onnx or s"),
        ("evaluate", ["--run"], "run: got no value; expected a path."),
        ("evaluate", ["--run", "--eval.num_images", "3"], "run: got no value; expected a path."),
        ("sweep", ["--num_trials", "few"], "num_trials: got 'few'; expected a whole number."),
        ("sweep", ["--cpus_per_trial", "few"], "cpus_per_trial: got 'few'; expected a number."),
        ("report", ["r", "--out"], "out: got no value; expected a path."),
    ],
)
def test_one_line_in_words(command, arguments, line):
    with pytest.raises(InputError) as error:
        main_of(command)(arguments)
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)
    assert not any(word in str(error.value) for word in JARGON)


def test_a_value_of_any_length_is_cut():
    with pytest.raises(InputError) as error:
        parse_config(["--train.epochs", "x" * 5000], "test", "")
    assert len(str(error.value)) < 200


def test_a_schema_of_ones_own():
    @dataclass(frozen=True, kw_only=True)
    class Own:
        """A schema.

        Args:
            side: A side.
        """

        side: Literal[8, 16] = 8

    assert in_words(Literal[8, 16]) == "8 or 16"
    parser = make_parser("own", "", Own)
    assert of_kind(Own, parse(parser, ["--side", "16"])).side == 16
    with pytest.raises(InputError, match=r"^side: got 9; expected 8 or 16\.$"):
        parse(parser, ["--side", "9"])


def test_a_sweeps_values_are_checked_in_the_same_words(tmp_path, monkeypatch):
    from fastmagn.sweeping.definition import make_trials

    request = parse_sweep(["--grid", "train.epochs=1,many", "--out", str(tmp_path)])
    with pytest.raises(InputError, match=r"^train\.epochs: got 'many'; expected a whole number\.$"):
        make_trials(request.arguments, request.search, tmp_path)


def test_the_defaults_are_values_of_their_own_types():
    assert parse_config([], "test", "") == Config()
