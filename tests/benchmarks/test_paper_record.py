"""benchmarks.paper_record keeps finished sweeps beside the paper's table, without folders of the machine."""

import json
import re
import shutil
import statistics
from pathlib import Path

import pytest

from benchmarks import paper_record, records
from fastmagn.errors import InputError
from tests.helpers.pages import ROOT

RUNS = records.RECORDS / "2026-11-27-cifar10-nine-recipes"
METHODS = ("standard", "augmix", "magn", "magn_augmix")
PAPER = json.loads((ROOT / "fastmagn/reporting/paper_results.json").read_text())["table_1_cifar10_c"]


def sweep_of(folder: Path, seed: int, methods: tuple[str, ...] = METHODS) -> Path:
    """A finished sweep's folder, whose runs are those of a record, as if trained on a machine with its own folders."""
    for method in methods:
        shutil.copytree(RUNS / method / f"seed{seed}", folder / f"method-{method}")
        for file in (folder / f"method-{method}").iterdir():
            moved = file.read_text().replace("DIR", str(folder)).replace("DATA", "/data/of/a/machine")
            file.write_text(moved)
    (folder / "sweep.yaml").write_text(f"fields:\n  train.seed: {seed}\n")
    return folder


def results(method: str, seed: int) -> dict:
    return json.loads((RUNS / method / f"seed{seed}" / "results.json").read_text())


def cells(table: str, name: str) -> list[str]:
    (line,) = re.findall(rf"^\| {name} \|(.*)\|$", table, re.MULTILINE)
    return [cell.strip() for cell in line.split("|")]


@pytest.fixture
def kept(tmp_path, monkeypatch, capsys):
    """The record of two seeds' sweeps, and what was printed."""
    monkeypatch.setattr(records, "RECORDS", tmp_path / "kept")
    sweeps = [str(sweep_of(tmp_path / f"out{seed}", seed)) for seed in (0, 1)]
    assert paper_record.main(["2026-01-31-paper", "--add", *sweeps]) == 0
    return tmp_path / "kept" / "2026-01-31-paper", capsys.readouterr().out


def test_a_record_has_every_run_and_definition_and_no_folder_of_the_machine(kept, tmp_path):
    folder, _ = kept
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    runs = {f"{method}/seed{seed}/" for method in METHODS for seed in (0, 1)}
    files = {run + name for run in runs for name in ("config.yaml", "results.json", "metrics.jsonl")}
    assert names == files | {"seed0-sweep.yaml", "seed1-sweep.yaml"}
    for name in names:
        text = (folder / name).read_text()
        assert str(tmp_path) not in text
        assert "/data/of/a/machine" not in text
    assert json.loads((folder / "magn/seed1/results.json").read_text())["config"]["data"]["dir"] == "DATA"


def test_the_tables_have_our_means_and_the_papers_numbers(kept):
    _, printed = kept
    for method in METHODS:
        clean = [100 * results(method, seed)["clean_accuracy"] for seed in (0, 1)]
        row = cells(printed, f"`{method}`")
        assert row[1] == f"{statistics.fmean(clean):.1f} ± {statistics.stdev(clean):.1f}"
        assert row[-2:] == [f"{PAPER[method]['clean']:.1f}", f"{PAPER[method]['mca']:.1f}"]
    for condition in ("fog", "glass_blur", "saturate"):
        ours = [
            statistics.fmean(
                statistics.fmean(results(method, seed)["corruption_accuracy"][condition]) for seed in (0, 1)
            )
            for method in METHODS
        ]
        paper = [PAPER[method][condition] for method in METHODS]
        alike = sum((ours[i] < ours[j]) == (paper[i] < paper[j]) for i in range(len(METHODS)) for j in range(i))
        row = cells(printed, condition.replace("_", " "))
        assert [cell.strip("*") for cell in row[:-1]] == [f"{100 * value:.1f}" for value in ours] + [
            f"{value:.1f}" for value in paper
        ]
        assert [cell.startswith("**") for cell in row[:-1]] == [value == max(ours) for value in ours] + [
            value == max(paper) for value in paper
        ]
        assert row[-1] == f"{alike} of 6"


def test_the_corruptions_are_the_papers_eighteen(kept):
    _, printed = kept
    rows = re.findall(r"^\| ([a-z0-9 ]+) \|", printed, re.MULTILINE)
    assert sorted(rows) == sorted([*(name.replace("_", " ") for name in PAPER["magn"] if name != "mca"), "mean of c18"])


def test_what_cannot_be_kept_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "RECORDS", tmp_path / "kept")
    sweep = sweep_of(tmp_path / "out", 0)
    arguments = ["2026-01-31-paper", "--add", str(sweep)]
    with pytest.raises(InputError, match="is a second run of this method and seed"):
        paper_record.main([*arguments, str(sweep_of(tmp_path / "same", 0))])
    with pytest.raises(InputError, match="is not the folder of a sweep"):
        paper_record.main([*arguments, str(tmp_path)])
    (sweep / "method-magn" / "results.json").unlink()
    with pytest.raises(InputError, match="method-magn: is not finished; the command of the sweep resumes"):
        paper_record.main(arguments)
    with pytest.raises(InputError, match="has no runs"):
        paper_record.main(arguments[:1])
    assert not (tmp_path / "kept").exists()


def change(run: Path, **changed: object) -> None:
    """Change fields of a run's results, those of its configuration by their section."""
    results = json.loads((run / "results.json").read_text())
    for name, value in changed.items():
        if isinstance(results.get(name), dict):
            results[name] |= value
        else:
            results["config"][name] |= value
    (run / "results.json").write_text(json.dumps(results))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train": {"epochs": 200}}, r"method-magn: train\.epochs: got 200; expected \d+, as the other seeds\.$"),
        ({"model": {"name": "resnet18"}}, r"method-magn: model\.name: got 'resnet18'; expected resnet_small, as"),
        ({"mca": {"c18": None}}, r"method-magn: mca\.c18: got None; expected a run that has measured c18\.$"),
    ],
)
def test_seeds_of_other_recipes_or_without_the_papers_mean_are_refused(changed, message, tmp_path, monkeypatch):
    monkeypatch.setattr(records, "RECORDS", tmp_path / "kept")
    sweeps = [sweep_of(tmp_path / f"out{seed}", seed) for seed in (0, 1)]
    change(sweeps[1] / "method-magn", **changed)
    with pytest.raises(InputError, match=message):
        paper_record.main(["2026-01-31-paper", "--add", *map(str, sweeps)])
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("first", [0, 1])
def test_a_smaller_test_batch_and_a_field_that_is_newer_than_a_run_are_no_other_recipe(first, tmp_path, monkeypatch):
    monkeypatch.setattr(records, "RECORDS", tmp_path / "kept")
    sweeps = [sweep_of(tmp_path / f"out{seed}", seed) for seed in (0, 1)]
    change(sweeps[first] / "method-magn", eval={"batch_size": 100})
    file = sweeps[1 - first] / "method-magn" / "results.json"
    older = json.loads(file.read_text())
    del older["config"]["optim"]["filter_lr_ratio"]
    file.write_text(json.dumps(older))
    assert paper_record.main(["2026-01-31-paper", "--add", *map(str, sweeps)]) == 0


def test_two_sweeps_of_one_seed_would_replace_each_others_definition(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "RECORDS", tmp_path / "kept")
    sweeps = [sweep_of(tmp_path / method, 0, (method,)) for method in ("magn", "standard")]
    with pytest.raises(InputError, match="method-standard: is of a second sweep of this seed"):
        paper_record.main(["2026-01-31-paper", "--add", *map(str, sweeps)])
    assert not (tmp_path / "kept").exists()


def test_runs_that_the_paper_does_not_have_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "RECORDS", tmp_path / "kept")
    sweep = sweep_of(tmp_path / "out", 0, ("standard", "trivialaugment"))
    with pytest.raises(InputError, match="trivialaugment, cifar10: the paper has no clean for this run"):
        paper_record.main(["2026-01-31-paper", "--add", str(sweep)])
    assert not (tmp_path / "kept").exists()
