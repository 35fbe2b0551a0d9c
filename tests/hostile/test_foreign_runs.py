"""Run folders from elsewhere in a report: names are shown as they are, in HTML, LaTeX, CSV and a terminal alike."""

import csv
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt

from fastmagn import report
from fastmagn.reporting.runs import read_runs
from tests.helpers.report_folders import rewrite, write_run

SCRIPT = "<script>alert(1)</script>"
NAMES = {
    "HTML": f"{SCRIPT}<img src=x onerror=alert(1)>",
    "HTML attribute": '" onmouseover="alert(1)',
    "LaTeX": r"\input{/etc/passwd}\write18{touch marker}$\frac{",
    "Markdown": "[x](javascript:alert(1)) ![x](http://example.com/x.png) ` | ``` <script>",
    "spreadsheet": "=cmd|' /C calc'!A0",
    "path": "../../../../tmp/x",
}


class Elements(HTMLParser):
    """The names of elements, and of attributes that run code."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.names += [name for name, value in attrs if name.startswith("on") or "javascript:" in (value or "")]


def check_files(out: Path) -> None:
    """No file of a report has one of the names as code."""
    for path in out.rglob("*"):
        if path.suffix == ".md":
            elements = Elements(MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(path.read_text()))
            assert not {"script", "onerror", "onmouseover", "href"} & set(elements.names), path
        elif path.suffix == ".html":
            page = Elements(path.read_text())
            assert not {"onerror", "onmouseover"} & set(page.names), path
            assert SCRIPT not in path.read_text()
        elif path.suffix == ".tex":
            text = path.read_text()
            assert r"\input{" not in text
            assert r"\write18" not in text
            assert not re.search(r"(?<!\\)\$(?!\\pm\$|-\$|\|)", re.sub(r"\$(\\pm|-)\$", "", text)), path
        elif path.suffix == ".csv":
            cells = [cell for row in csv.reader(path.read_text().splitlines()) for cell in row]
            assert not [cell for cell in cells if re.match(r"[=@]|[+-](?![\d.])", cell)], path
        elif path.suffix == ".svg":
            tags = {element.tag.rpartition("}")[2] for element in ElementTree.parse(path).iter()}
            assert "script" not in tags


def test_names_are_shown_and_do_nothing(attack):
    """As methods' names, each in turn; as the network's and the data set's, and in the environment."""
    runs = []
    for number, (kind, name) in enumerate(NAMES.items()):
        folder = attack.folder / f"run{number}"
        runs.append(str(write_run(folder, method=name, network=NAMES["LaTeX"], data=NAMES["HTML"])))
        rewrite(folder, lambda results, name=name: results["environment"].update(cpu=name, commit=name, torch=name))
        attack.note("report: a method's, network's, data set's name", kind, "escaped in every format")
    status, errors = attack.run(report.main, *runs, "--out", "out")
    assert status == 0, errors
    out = attack.folder / "out"
    check_files(out)
    assert {path.parent.name for path in out.rglob("*") if path.is_file()} <= {"out", "tables", "figures"}
    (data_set,) = json.loads((out / "report.json").read_text())["data_sets"]
    assert {run["method"] for run in data_set["runs"]} == set(NAMES.values())


def test_a_class_path_in_a_results_file_imports_nothing(attack, monkeypatch):
    """The report makes the run's views again from the configuration in its results.json."""
    run = write_run(attack.folder / "run", data="digits")
    (attack.folder / "report_payload.py").write_text(f"open({str(attack.marker)!r}, 'w').close()\nclass X: pass\n")
    monkeypatch.syspath_prepend(attack.folder)
    rewrite(run, lambda results: results["config"]["data"].update(class_path="report_payload.X"))
    status, errors = attack.run(report.main, str(run), "--out", "out")
    assert status == 0, errors
    assert "config: data.class_path: is not a field of this version." in Path("out", "report.html").read_text()
    attack.note("report results.json", "class_path to a module", "views are not shown, nothing is imported")


Change = Callable[[dict[str, Any]], Any]
VALUES: dict[str, tuple[Change, str]] = {
    "images_per_s 10^400": (lambda results: results.update(images_per_s=10**400), "above 2^64"),
    "seed 10^400": (lambda results: results["config"]["train"].update(seed=10**400), "above 2^64"),
    "seed as text": (lambda results: results["config"]["train"].update(seed="0"), "expected a int"),
    "num_images -1": (lambda results: results.update(num_images=-1), "expected 1 or more"),
    "counts 10^400": (lambda results: results["reliability"]["clean"].update(count=[10**400] * 4), "above 2^64"),
    "counts true": (lambda results: results["reliability"]["clean"].update(count=[True] * 4), "expected 0 or more"),
    "accuracy 2": (lambda results: results.update(clean_accuracy=2), "expected a fraction in 0..1"),
    "accuracy as a list": (lambda results: results.update(clean_accuracy=[0.5]), "expected a float"),
    "a terminal's escapes": (lambda results: results["config"].update(method="\x1b]0;x\x07"), "cannot be shown"),
    "letters that run backwards": (lambda results: results["config"].update(method="\u202egnam"), "cannot be shown"),
    "half a character": (lambda results: results["config"].update(method="\ud800"), "cannot be shown"),
    "a name of 5,000 letters": (lambda results: results["config"].update(method="m" * 5000), "cannot be shown"),
    "a name of 200 letters": (lambda results: results["config"]["data"].update(name="m" * 200), "a name of 1..100"),
    "no name": (lambda results: results["config"].update(method=""), "a name of 1..100"),
    "a line in a key": (lambda results: results["config"].update({"a\n```\n<b>": 1}), "cannot be shown"),
    "config as a list": (lambda results: results.update(config=[1]), "expected a dict"),
    "no config": (lambda results: results.pop("config"), "lacks config"),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_of_results(attack, name):
    """Such a run is left out, with a line that says why, and the others are read."""
    change, says = VALUES[name]
    run, good = write_run(attack.folder / "run"), write_run(attack.folder / "good", seed=1)
    rewrite(run, change)
    runs, warnings = read_runs([run, good])
    assert [read.path for read in runs] == [good]
    assert says in warnings[0]
    assert len(warnings[0]) < 1000
    attack.note("report results.json", name, f"left out: {warnings[0]}")


def test_names_of_folders_from_all_over_the_world_are_no_attack(tmp_path):
    """Spaces and joiners that a terminal does not show, which names of folders have."""
    run = write_run(tmp_path / "run")
    folders = {
        "dir": "研究\u3000データ",
        "train_shards": "می\u200cخواهم",
        "test_shards": "a\xa0\U0001f468\u200d\U0001f469",
    }
    rewrite(run, lambda results: results["config"]["data"].update(folders))
    ((read,), warnings) = read_runs([run])
    assert not warnings
    assert {name: read.config["data"][name] for name in folders} == folders
