"""`fastmagn VERB` is `python -m fastmagn.VERB`."""

import importlib
import importlib.metadata
import importlib.util
import subprocess
import sys
import tomllib

import pytest

from fastmagn import __version__
from fastmagn.__main__ import VERBS, main
from tests.helpers.commands import call
from tests.helpers.processes import ROOT, command_environment, run


def run_main(monkeypatch, capsys, *words: str, program: str = "fastmagn") -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["fastmagn", *words])
    status = 0
    try:
        main(program)
    except SystemExit as left:
        status = left.code or 0
    return status, *capsys.readouterr()


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_names_every_verb(words, monkeypatch, capsys):
    status, shown, _ = run_main(monkeypatch, capsys, *words)
    assert status == 0
    assert all(f"  {verb} " in shown for verb in VERBS)
    assert all(importlib.util.find_spec(f"fastmagn.{verb}") for verb in VERBS)
    assert len(shown.splitlines()) <= 24
    assert max(map(len, shown.splitlines())) <= 80


def test_the_version(monkeypatch, capsys):
    assert run_main(monkeypatch, capsys, "--version") == (0, f"fastmagn {__version__}\n", "")
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == __version__
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
    newest = (ROOT / "CHANGELOG.md").read_text().partition("\n## ")[2].partition("\n")[0]
    assert newest.partition(" - ")[0] == __version__


def test_the_installed_command_is_main():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert importlib.metadata.EntryPoint("fastmagn", scripts["fastmagn"], "console_scripts").load() is main


def test_an_unknown_verb_is_one_line(monkeypatch, capsys):
    status, shown, error = run_main(monkeypatch, capsys, "trian")
    assert (status, shown) == (2, "")
    assert error == (
        "error: VERB: got 'trian'; expected one of train, evaluate, corrupt, report, sweep, export, theory, warm_up."
        " Did you mean 'train'?\n"
    )


def test_a_verb_does_what_its_module_does(monkeypatch, capsys):
    """Its help, and its exit status and message for a missing run."""
    status, shown, error = run_main(monkeypatch, capsys, "report", "--out", "o")
    with_module = call(["fastmagn.report", "--out", "o"], capsys, expect=2)
    assert (status, shown, error) == (2, *with_module)
    status, _, error = run_main(
        monkeypatch, capsys, "export", "--run", "nowhere", "--format", "onnx", "--out", "m.onnx"
    )
    assert (status, error) == (2, "error: nowhere: no such folder; expected the folder of a run.\n")


@pytest.mark.parametrize("program", ["fastmagn", "python -m fastmagn"])
@pytest.mark.parametrize("verb", VERBS)
def test_help_and_errors_name_the_command_as_it_was_called(program, verb, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    status, shown, _ = run_main(monkeypatch, capsys, verb, "--help", program=program)
    assert status == 0
    assert shown.startswith(f"usage: {program} {verb} ")
    assert "python -m fastmagn." not in shown
    other = call([f"fastmagn.{verb}", "--help"], capsys).stdout
    assert other.startswith(f"usage: python -m fastmagn.{verb} ")
    status, _, error = run_main(monkeypatch, capsys, verb, "--zzqqxx", program=program)
    assert status == 2
    assert error == (
        f"error: --zzqqxx: is not an option of {program} {verb}. {program} {verb} --help lists all options.\n"
    )


def test_a_verb_warns_of_nothing_where_its_module_has_been_imported(monkeypatch, capsys, recwarn):
    """Python warns of a module that is imported and then run again as __main__, a second copy of it."""
    for module in ("fastmagn.theory.__main__", "fastmagn.report", "fastmagn.warm_up"):
        importlib.import_module(module)
    for verb in VERBS:
        assert run_main(monkeypatch, capsys, verb, "--help")[::2] == (0, "")
    assert not recwarn.list


def test_a_verb_may_be_written_with_hyphens(monkeypatch, capsys):
    assert run_main(monkeypatch, capsys, "warm-up", "--help") == run_main(monkeypatch, capsys, "warm_up", "--help")


@pytest.mark.process
def test_a_verb_imports_what_its_module_does(tmp_path):
    """And the entry itself: a cold start costs no more."""

    def imported(*words: str) -> set[str]:
        done = run(["-X", "importtime", "-m", *words, "--help"], tmp_path)
        lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
        return {line.rsplit("|", 1)[1].strip() for line in lines}

    more = imported("fastmagn", "report") - imported("fastmagn.report")
    assert more <= {"fastmagn.__main__", "fastmagn.report"}


@pytest.mark.process
def test_completion_of_verbs_options_and_values(tmp_path):
    """What Tab does in bash after these words."""
    pytest.importorskip("shtab")
    script = run(["fastmagn", "--print_completion", "bash"], tmp_path).stdout
    for words, expected in (
        ("fastmagn exp", ["export"]),
        ("fastmagn train --optim.l", ["--optim.lr"]),
        ("fastmagn train --train.amp bf", ["bf16"]),
        ("fastmagn train --method trad", ["trades"]),
        ("fastmagn evaluate --save_l", ["--save_logits"]),
        ("fastmagn evaluate --eval.num_im", ["--eval.num_images"]),
        ("fastmagn sweep --gr", ["--grid"]),
        ("fastmagn export --format onn", ["onnx"]),
        ("fastmagn theory --num_pr", ["--num_probes"]),
        ("fastmagn corrupt --veri", ["--verify"]),
        ("fastmagn report --form", ["--format"]),
        ("fastmagn warm", ["warm_up"]),
    ):
        typed = f"COMP_WORDS=({words}) COMP_CWORD={len(words.split()) - 1}"
        complete = "$(complete -p fastmagn | sed 's/.*-F \\([^ ]*\\).*/\\1/')"
        done = subprocess.run(
            ["bash", "-c", f"{script}\n{typed}\n{complete}\necho ${{COMPREPLY[@]}}"],
            cwd=tmp_path,
            env=command_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.split() == expected, (words, done.stderr)


def test_completion_of_another_shell_is_one_line(monkeypatch, capsys):
    status, shown, error = run_main(monkeypatch, capsys, "--print_completion", "fish")
    assert (status, shown) == (2, "")
    assert error == "error: --print_completion: got 'fish'; expected bash, zsh or tcsh.\n"
    monkeypatch.setitem(sys.modules, "shtab", None)
    status, _, error = run_main(monkeypatch, capsys, "--print_completion", "bash")
    assert (status, error) == (2, "error: --print_completion: needs shtab; pip install 'fastmagn[completion]'.\n")
