"""--help answers without PyTorch and Numba, which take seconds to import."""

import importlib
import re

import pytest

from fastmagn.__main__ import VERBS
from fastmagn.config.schema import Config
from fastmagn.config.text import flatten
from tests.config.test_command_line import main_of
from tests.helpers.processes import run

FIELDS = {
    **{"train": "--eval.", "evaluate": "--eval.", "corrupt": "--num_images", "theory": "--num_probes"},
    **{"report": "--out", "export": "--weights", "sweep": "--grid", "warm_up": "NUMBA_CACHE_DIR"},
}
BENCHMARKS = ("augment", "corrupt", "evaluate", "scaling", "start", "time_to_mca", "train")
MAX_LINES = 60  # two screens


def shown(main, option: str, capsys, monkeypatch) -> str:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as left:
        main([option])
    assert not left.value.code
    return capsys.readouterr().out


@pytest.mark.parametrize("command", sorted(VERBS))
def test_help_is_two_screens_in_words(command, capsys, monkeypatch):
    text = shown(main_of(command), "--help", capsys, monkeypatch)
    check_words(text)
    assert FIELDS[command] in text
    assert command == "theory" or "Exit codes: 0 done; 2 unusable input" in " ".join(text.split())
    assert len(text.splitlines()) <= MAX_LINES
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_help_of_a_benchmark_is_in_words(benchmark, capsys, monkeypatch):
    text = shown(importlib.import_module(f"benchmarks.{benchmark}").main, "--help", capsys, monkeypatch)
    check_words(text)
    paths = {"--out", "--pictures", "--data_dir", "--checkout", "--corrupted", "--run", "--runs_dir"}
    assert set(re.findall(r"^  (--\w+) PATH\b", text, re.MULTILINE)) <= paths


def check_words(text: str) -> None:
    assert text.startswith("usage: ")
    assert not any(word in text for word in ("<class", "Literal", "Union", "Optional", "CONFIG", "==SUPPRESS=="))


def test_the_trainers_help_begins_with_examples_and_names_the_whole_list(capsys, monkeypatch):
    text = shown(main_of("train"), "--help", capsys, monkeypatch)
    assert text.index("  python -m fastmagn.train --config") < text.index("--data.dir PATH")
    assert "--help_all" in text
    assert "--attack.epsilon" not in text


def test_help_all_explains_every_field(capsys, monkeypatch):
    text = " ".join(shown(main_of("train"), "--help_all", capsys, monkeypatch).split())
    check_words(text)
    for name in flatten(Config()):
        assert f"--{name.replace('imports', 'import')} " in text
    assert (
        "--attack.steps N Number of steps of projected gradient descent, 1 or more. (a whole number; default: 7)"
        in text
    )
    assert "--train.compile {auto,true,false} Whether" in text
    assert "(a path or null; default: none)" in text
    assert "up over 30 % of the steps" in text


@pytest.mark.process
@pytest.mark.parametrize("command", sorted(VERBS))
def test_help_imports_neither_torch_nor_numba(command, tmp_path):
    done = run(["-X", "importtime", "-m", f"fastmagn.{command}", "--help"], tmp_path)
    assert "usage: " in done.stdout
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "argparse" in imported
    assert imported.isdisjoint({"torch", "numba"})
