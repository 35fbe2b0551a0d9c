"""The tables of what is measured beside accuracy and calibration, against numbers worked out by hand."""

import pytest

from fastmagn.reporting.experiments import group_experiments
from fastmagn.reporting.more_tables import more_tables
from fastmagn.reporting.runs import read_runs
from fastmagn.reporting.tables import Cell, Table
from tests.helpers.report_folders import with_protocols


def tables_of(paths) -> dict[str, Table]:
    return {table.name: table for table in more_tables(group_experiments(read_runs(paths)[0])[0])}


def cell(table: Table, method: str, column: str) -> Cell | None:
    (found,) = [row for row in table.rows if row.labels[0] == method]
    return found.cells[[item.label for item in table.columns].index(column)]


def test_perturbations_frequencies_and_adapted_statistics(fake_run):
    runs = [
        with_protocols(fake_run("a"), flip=0.1, error=0.4, adapted=0.6),
        with_protocols(fake_run("b", seed=1), flip=0.3, error=0.2, adapted=0.8),
        with_protocols(fake_run("c", method="magn"), flip=0.1, error=0.1, adapted=0.65),
        fake_run("d", method="augmix"),
    ]
    tables = tables_of(runs)
    stability, adapted = tables["cifar10_stability"], tables["cifar10_adapted"]
    half = (0.5 * 8 + 7 / 15 + 0.5 * 1) / 10  # of the frames of each sequence
    flip = cell(stability, "Standard", "Flip probability")
    assert (flip.mean, flip.num_runs, flip.is_best) == (pytest.approx(0.2 * half), 2, False)
    assert cell(stability, "MAGN", "Flip probability").is_best
    assert cell(stability, "MAGN", "Fourier error").mean == pytest.approx(0.1 * 1026 / 1024)
    assert cell(stability, "AugMix", "Fourier error") is None
    assert cell(adapted, "Standard", "mCA c18").mean == pytest.approx(0.7)
    assert cell(adapted, "Standard", "mCA c18").is_best
    assert cell(adapted, "AugMix", "Clean") is None
    assert {row.labels[0]: row.labels[2] for row in adapted.rows} == {"Standard": "50", "AugMix": "–", "MAGN": "50"}
    assert not {"cifar10_stability", "cifar10_adapted"} & set(tables_of(runs[3:]))
