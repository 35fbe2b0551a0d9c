"""The report command: its folder, its data, its messages."""

import csv
import json
import os
import re

import pytest

import fastmagn.reporting.document as document
from fastmagn.errors import InputError
from fastmagn.report import main
from fastmagn.reporting.document import make_report, report_runs, to_data, to_text, write_report
from fastmagn.reporting.page import MOST_OPEN
from tests.helpers.commands import call
from tests.helpers.report_folders import C19, rewrite


def files_below(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def no_drawing(monkeypatch):
    """Figures cost seconds; most tests need only their places."""
    monkeypatch.setattr(document, "to_files", lambda figure: {"png": b"png", "svg": b"svg"})


def test_the_whole_report(fake_run, tmp_path, capsys):
    paths = [fake_run("a"), fake_run("b", 0.9, method="my_method", data="digits"), fake_run("c", data="digits")]
    unfinished = fake_run("d")
    (unfinished / "results.json").unlink()
    out = tmp_path / "deep" / "report"
    assert main([*map(str, [*paths, unfinished]), "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith(f"warning: {unfinished}: has no results.json")
    assert printed.err.count("\n") == 1
    assert "my_method" in printed.out
    assert "JPEG compression" in printed.out
    assert printed.out.endswith(f"written to {out / 'report.html'}\n")
    files = files_below(out)
    data = json.loads(files["report.json"])
    assert sorted(files) == data["files"]
    assert all(files.values())
    assert [item["name"] for item in data["data_sets"]] == ["cifar10", "digits"]
    text = files["report.md"].decode()
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert picture in files
    assert text.count("](figures/") == len([name for name in files if name.endswith(".png")])
    for kind in ("md", "csv", "tex"):
        assert f"tables/digits_resnet18_corruptions.{kind}" in files
    lines = list(csv.reader(files["tables/digits_resnet18_corruptions.csv"].decode().splitlines()))
    assert lines[1] == ["Clean", "90.0000", "", "1", "90.0000", "", "1"]
    assert f"{unfinished}: has no results.json" in text
    for path in paths:
        assert f"--run_dir {path}" in text
    assert os.listdir(out.parent) == ["report"]


@pytest.mark.parametrize("kind", ["page", "robustbench"])
def test_a_run_that_cannot_be_looked_at_is_a_warning_of_the_command(kind, fake_run, tmp_path, no_drawing, capsys):
    good, long, out = fake_run("good", network="resnet18"), tmp_path / ("x" * 300), tmp_path / "report"
    assert main([str(long), str(good), "--out", str(out), "--format", kind]) == 0
    assert capsys.readouterr().err == f"warning: {long}: cannot be read (File name too long). Left out.\n"
    assert str(good) in (out / "report.json").read_text()


def test_many_warnings_are_folded_and_counted(fake_run, tmp_path, no_drawing, capsys):
    runs, out = [fake_run(f"run{number:02}") for number in range(3)], tmp_path / "report"
    missing = [tmp_path / f"missing{number:02}" for number in range(20)]
    assert main([*map(str, (*runs, *missing)), "--out", str(out)]) == 0
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == MOST_OPEN + 1
    assert printed[-1] == f"warning: {21 - MOST_OPEN} more, in {out / 'report.html'}"
    html = (out / "report.html").read_text()
    assert f"<summary>{21 - MOST_OPEN} more</summary>" in html
    text = (out / "report.md").read_text()
    copies = f"{runs[1]}, {runs[2]}: have the same configuration and seed 0 as {runs[0]}"
    for line in (copies, *map(str, missing)):
        assert line in text
        assert line in html


@pytest.mark.parametrize("part", ["logits", "views.png"])
def test_pictures_that_cannot_be_looked_at_are_not_shown(part, fake_run, tmp_path, no_drawing):
    """A link to a name that is too long fails as a disk does: it is neither there nor missing."""
    folder, out = fake_run("run"), tmp_path / "report"
    (folder / part).symlink_to("x" * 300)
    with pytest.raises(OSError, match="File name too long"):
        (folder / part).exists()
    write_report(make_report([folder]), out)
    assert "not shown" in (out / "report.html").read_text()


def test_the_data_hold_everything_as_fractions(fake_run):
    report = make_report([fake_run("a", 0.75), fake_run("b", 0.85, seed=1)])
    data = json.loads(json.dumps(to_data(report), allow_nan=False))
    (data_set,) = data["data_sets"]
    assert [run["seed"] for run in data_set["runs"]] == [0, 1]
    first = data_set["runs"][0]
    assert first["environment"]["commit"] == "0123456789ab"
    assert first["config"]["train"]["seed"] == 0
    assert first["command"].startswith("python -m fastmagn.train --method standard ")
    assert first["mca"] == {name: pytest.approx(0.75) for name in ("c15", "c18", "c19")}
    table = next(table for table in data_set["tables"] if table["name"] == "cifar10_resnet18_corruptions_paper")
    row = next(row for row in table["rows"] if row["labels"] == ["mCA c18"])
    assert row["cells"] == [
        {
            "mean": pytest.approx(0.8),
            "sd": pytest.approx(0.1 / 2**0.5),
            "num_runs": 2,
            "paper": pytest.approx(0.7747),
            "difference": pytest.approx(0.0253),
            "is_best": False,
        }
    ]
    profile = next(figure for figure in data_set["figures"] if figure["kind"] == "corruption_profile")
    assert profile["series"][0]["accuracy"] == {name: pytest.approx(0.8) for name in C19}


def test_the_same_runs_give_the_same_bytes_and_an_older_report_is_replaced(fake_run, tmp_path, no_drawing):
    a, b, c = fake_run("a"), fake_run("b", seed=1), fake_run("c", method="magn")
    out = tmp_path / "report"
    write_report(make_report([a, b, c]), out)
    first = files_below(out)
    write_report(make_report([c, b, a]), out)
    assert files_below(out) == first
    write_report(make_report([fake_run("d", data="digits")]), out)
    names = set(files_below(out))
    assert "tables/digits_networks.md" in names
    assert not any("cifar10" in name for name in names)


def test_names_that_differ_only_in_what_file_names_lack(fake_run, tmp_path, no_drawing, monkeypatch):
    """Two data sets, two networks and two methods; no file of one replaces another's."""
    monkeypatch.setattr(document, "to_page", lambda *_: "page")
    places = [("pets-v1", "net-1"), ("pets_v1", "net-1"), ("pets-v1", "net_1"), ("pets_v1_2", "net-1")]
    places += [("/\u6570/\u732b", "net-1"), ("/\u6570/\u72d7", "net-1")]
    runs = [
        fake_run(f"run{number}", 0.61 + number / 100, data=data, network=network)
        for number, (data, network) in enumerate(places)
    ]
    for method in ("my-method", "my_method"):
        for weight in (6.0, 12.0):
            fields = {"loss.consistency_weight": weight}
            runs.append(fake_run(f"{method}{weight}", method=method, data="digits", fields=fields))
    report, out = make_report(runs), tmp_path / "report"
    write_report(report, out)
    files = files_below(out)
    assert json.loads(files["report.json"])["files"] == sorted(files)
    for kind in ("tables", "figures"):
        names = [item.name for data_set in report.data_sets for item in getattr(data_set, kind)]
        assert len(names) == len(set(names))
        assert {name.split("/")[1].partition(".")[0] for name in files if name.startswith(kind)} == set(names)
    text = "".join(content.decode() for name, content in files.items() if re.search(r"corruptions\w*\.csv$", name))
    assert set(re.findall(r"^Fog,(\d+)\.0000", text, re.MULTILINE)) == {*map(str, range(61, 67)), "80"}
    labels = [re.search(r"label\{(.*?)\}", files[name].decode())[1] for name in files if name.endswith(".tex")]
    assert len(labels) == len(set(labels))
    assert set(re.findall(r"\]\((figures/.*?)\)", files["report.md"].decode())) <= set(files)


def test_a_report_killed_between_two_renames_is_put_back_before_anything_else(fake_run, tmp_path, no_drawing):
    """Also one that left its process id alone. A report that cannot be made then leaves it as it was."""
    out = tmp_path / "report"
    write_report(make_report([fake_run("a")]), out)
    before = files_below(out)
    out.rename(tmp_path / "report.old-1")
    (tmp_path / "report.partial-1-abcdef").mkdir()
    with pytest.raises(InputError, match="nowhere"):
        report_runs([tmp_path / "nowhere"], out)
    assert files_below(out) == before
    assert sorted(os.listdir(tmp_path)) == ["a", "report"]


def test_what_is_not_a_report_stays(fake_run, tmp_path, no_drawing):
    out, run = tmp_path / "report", str(fake_run("a"))
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"report is not empty, and it holds no older report \(report\.json\)\."):
        main([run, "--out", str(out)])
    (out / "report.json").write_text("[]")
    with pytest.raises(InputError, match=r"is not empty, and it holds no older report"):
        main([run, "--out", str(out)])
    (out / "report.json").unlink()
    (out / "notes.txt").unlink()
    main([run, "--out", str(out)])
    (out / "tables" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"report holds tables/notes\.txt, which does not belong to the report there"):
        main([run, "--out", str(out)])
    assert (out / "tables" / "notes.txt").read_text() == "mine"
    with pytest.raises(InputError, match=r"out: .*notes\.txt is a file; expected a new folder"):
        main([run, "--out", str(out / "tables" / "notes.txt")])


def test_a_report_is_never_half_there(fake_run, tmp_path, monkeypatch):
    out, run = tmp_path / "out" / "report", fake_run("a")
    monkeypatch.setattr(document, "to_files", lambda figure: {"png": b"old", "svg": b"old"})
    write_report(make_report([run]), out)
    before = files_below(out)

    def fail(figure):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(document, "to_files", fail)
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\); nothing there has changed"):
        write_report(make_report([run, fake_run("b", method="magn")]), out)
    assert files_below(out) == before
    assert os.listdir(out.parent) == ["report"]


def test_no_good_run_is_an_error_and_writes_nothing(tmp_path, fake_run):
    bad = fake_run("a")
    rewrite(bad, lambda results: results.pop("mca"))
    with pytest.raises(
        InputError, match=r"^RUN: nowhere: no such folder; .* Left out\. .*lacks mca; .*Nothing is left"
    ):
        main(["nowhere", str(bad), "--out", str(tmp_path / "report")])
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "x"], "RUN: required; --help says what to give."),
        (["a"], "--out: required; --help says what to give."),
        (["a", "--out", "x", "--colour", "red"], "--colour"),
    ],
)
def test_arguments_that_are_missing_or_unknown(arguments, message):
    with pytest.raises(InputError) as error:
        main(arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_names_that_would_break_markdown(fake_run):
    text = to_text(make_report([fake_run("a|b*c", method="my|method_[x]")]))
    assert r"my\|method\_\[x\]" in text
    assert r"a\|b\*c" in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        widths = {len(re.split(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1


def test_the_exit_status(tmp_path, capsys):
    shown = call(["fastmagn.report", "nowhere", "--out", tmp_path / "x"], capsys, expect=2)
    expected = "nowhere: no such folder; expected the folder of a run. Left out. Nothing is left to report."
    assert shown.stderr == f"error: RUN: {expected}\n"
