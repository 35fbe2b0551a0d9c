"""`fastmagn VERB` is `python -m fastmagn.VERB`."""

import importlib.util
import sys

import pytest

from fastmagn import __version__
from fastmagn.__main__ import VERBS, main
from tests.helpers.commands import call


def run_main(monkeypatch, capsys, *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["fastmagn", *words])
    status = 0
    try:
        main()
    except SystemExit as left:
        status = left.code or 0
    return status, *capsys.readouterr()


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_names_every_verb(words, monkeypatch, capsys):
    status, shown, _ = run_main(monkeypatch, capsys, *words)
    assert status == 0
    assert all(f"  {verb} " in shown for verb in VERBS)
    assert all(importlib.util.find_spec(f"fastmagn.{verb}") for verb in VERBS)


def test_the_version(monkeypatch, capsys):
    assert run_main(monkeypatch, capsys, "--version") == (0, f"fastmagn {__version__}\n", "")


def test_an_unknown_verb_is_one_line(monkeypatch, capsys):
    status, shown, error = run_main(monkeypatch, capsys, "trian")
    assert (status, shown) == (2, "")
    assert error == (
        "error: VERB: got 'trian'; expected one of train, evaluate, corrupt, report, sweep, export, theory."
        " Did you mean 'train'?\n"
    )


def test_a_verb_does_what_its_module_does(monkeypatch, capsys):
    """Its help, and its exit status and message for a missing run."""
    by_verb = run_main(monkeypatch, capsys, "report", "--help")
    assert by_verb == (0, call(["fastmagn.report", "--help"], capsys).stdout, "")
    status, _, error = run_main(
        monkeypatch, capsys, "export", "--run", "nowhere", "--format", "onnx", "--out", "m.onnx"
    )
    assert (status, error) == (2, "error: nowhere: no such folder; expected the folder of a run.\n")
