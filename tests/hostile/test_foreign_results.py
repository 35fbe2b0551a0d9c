"""A few hundred mutations of a results.json with all measures: every reader takes it or says one line."""

import copy
import dataclasses
import json
import random
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fastmagn import report
from fastmagn.config.schema import Config
from fastmagn.errors import InputError
from fastmagn.evaluation import trained
from fastmagn.evaluation.other_images import with_image_folders
from fastmagn.evaluation.shown import print_results
from fastmagn.exporting.card import model_card
from fastmagn.exporting.config import ExportConfig
from fastmagn.exporting.info import model_info
from fastmagn.reporting.experiments import group_experiments
from fastmagn.reporting.provenance import command, differing_fields, environments, runs_table, whole_config
from fastmagn.reporting.runs import read_runs
from fastmagn.runs.paths import RESULTS
from fastmagn.runs.reading import read_config
from fastmagn.runs.records import log_results
from fastmagn.sweeping.definition import Trial
from fastmagn.sweeping.shown import Board, print_summary
from fastmagn.sweeping.sweep import is_finished
from fastmagn.sweeping.trial import Outcome
from fastmagn.training.run import finished_results
from tests.helpers.report_folders import write_run
from tests.helpers.small_runs import knows_the_network
from tests.reporting.test_more_tables import add_measures

OLD_RUN = Path(__file__).parent.parent / "compatibility" / "whole"
NUM_MUTATIONS = 400
VALUES = (
    *(None, True, False, 0, -1, 3, 10**18, 2**70, 0.5, -0.5, 1.5, 1e308, "", "x", "0.5", "c18", "\x1b[2J"),
    *([], {}, [None], [0.5] * 4, [0.5] * 5, [None] * 5, ["0.5"] * 5, [[]], {"": 0}, {"c15": "1"}, {"eval": []}),
)


def mutations() -> list[tuple[str, str]]:
    """(what was changed, the text of the file): an entry dropped, added, or of another value, once to three times."""
    drawn = random.Random(0)
    real = json.loads((OLD_RUN / RESULTS).read_text())
    add_measures(real)
    made = []
    for _ in range(NUM_MUTATIONS):
        results, changes = copy.deepcopy(real), []
        for _ in range(drawn.choice((1, 1, 2, 3))):
            place, path = results, "results"
            while True:
                key = drawn.choice(list(place) if isinstance(place, dict) else range(len(place)))
                path += f"[{key!r}]"
                if isinstance(place[key], dict | list) and place[key] and drawn.random() < 0.6:
                    place = place[key]
                    continue
                break
            if drawn.random() < 0.3:
                del place[key]
                changes.append(f"without {path}")
            else:
                place[key] = drawn.choice(VALUES)
                changes.append(f"{path} = {place[key]!r}")
            if not results:
                break
        made.append(("; ".join(changes), json.dumps(results)))
    return made


def in_training(run_dir: Path, config: Config) -> None:
    """A finished run is resumed."""
    run = SimpleNamespace(config=config, last_step=8, steps_done=lambda progress: 8, world=SimpleNamespace(rank=0))
    results = finished_results(run, None)
    if results is not None:
        print_results(results, title=f"{results['config']['method']} on {results['config']['data']['name']}")
        log_results(run_dir, results, 2)


finished: list[bool] = []


def in_a_sweep(run_dir: Path, config: Config) -> None:
    trial = Trial("trial", {"train.seed": 0}, config)
    finished.append(is_finished(trial))
    if finished[-1]:
        board = Board([trial], set())
        board.started("trial")
        board.ended(Outcome("trial", "finished"))
        print_summary([trial])


def in_a_report(run_dir: Path, config: Config) -> None:
    runs, _ = read_runs([run_dir])
    experiments, _ = group_experiments(runs)
    runs_table(experiments), differing_fields(experiments), environments(experiments)
    command(runs[0]), whole_config(runs[0])


def in_an_export(run_dir: Path, config: Config) -> None:
    loaded = trained.load_run(run_dir)
    model_info(loaded).to_json()
    exported = ExportConfig(run=run_dir, format="onnx", out=Path("model.onnx"))
    model_card(loaded, "model.onnx", exported, "uint8")


def in_an_evaluation(run_dir: Path, config: Config) -> None:
    with_image_folders(run_dir / RESULTS, {"folder": {}}, ("steps", 1))


READERS: dict[str, Callable[[Path, Config], Any]] = {
    reader.__name__: reader for reader in (in_training, in_a_sweep, in_a_report, in_an_export, in_an_evaluation)
}


@pytest.mark.parametrize("name", READERS)
def test_a_reader_takes_it_or_says_one_line(name, tmp_path, monkeypatch):
    knows_the_network(monkeypatch)
    monkeypatch.setattr("fastmagn.runs.records.open_events", lambda *_: None)
    run_dir = Path(shutil.copytree(OLD_RUN, tmp_path / "run"))
    monkeypatch.setattr(trained, "read_checkpoint", cache(trained.read_checkpoint))  # it is the same each time
    config, refused = dataclasses.replace(read_config(run_dir), run_dir=run_dir), 0
    READERS[name](run_dir, config)
    assert name != "in_a_sweep" or finished == [True]
    step = 4 if name == "in_an_export" else 1  # it builds a network each time
    for change, text in mutations()[::step]:
        (run_dir / RESULTS).write_text(text)
        said = ""
        try:
            READERS[name](run_dir, config)
        except InputError as error:
            said, refused = str(error), refused + 1
        except Exception as error:
            raise AssertionError(f"{change}: {type(error).__name__}: {error}") from error
        assert "\n" not in said, change
        assert len(said) < 1000, change
    assert name not in ("in_a_report", "in_an_export") or 20 < refused < NUM_MUTATIONS // step


@pytest.mark.slow
def test_whole_reports_of_runs_that_are_taken(attack):
    """One page of every mutated run that a report takes: what its tables, figures and pages read."""
    folders = [write_run(attack.folder / "good", fields={"train.seed": 10**6})]
    for number, (_, text) in enumerate(mutations()):
        folder = write_run(attack.folder / f"run{number}")
        (folder / RESULTS).write_text(text)
        folders.append(folder)
    taken, warnings = read_runs(folders)
    assert len(taken) > 20
    assert len(taken) + len(warnings) == len(folders)
    status, errors = attack.run(report.main, *folders, "--out", "out")
    assert status == 0, errors
