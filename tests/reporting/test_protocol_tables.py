"""The tables of what is measured beside accuracy and calibration, against numbers worked out by hand."""

import pytest

from fastmagn.reporting.experiments import group_experiments
from fastmagn.reporting.more_tables import more_tables
from fastmagn.reporting.runs import read_runs
from fastmagn.reporting.tables import Cell, Table
from tests.helpers.report_folders import rewrite, with_protocols


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
    assert cell(stability, "MAGN", "Fourier error, norm 4").mean == pytest.approx(0.1 * 1026 / 1024)
    assert cell(stability, "AugMix", "Fourier error, norm 4") is None
    assert cell(adapted, "Standard", "mCA c18").mean == pytest.approx(0.7)
    assert cell(adapted, "Standard", "mCA c18").is_best
    assert cell(adapted, "AugMix", "Clean") is None
    assert {row.labels[0]: row.labels[2] for row in adapted.rows} == {"Standard": "50", "AugMix": "–", "MAGN": "50"}
    assert not {"cifar10_stability", "cifar10_adapted"} & set(tables_of(runs[3:]))


def test_numbers_that_were_measured_in_other_ways_are_not_mixed(fake_run):
    mixed = [with_protocols(fake_run(f"a{seed}", seed=seed), flip=0.2, norm=4.0 + 4 * seed) for seed in (0, 1)]
    stored = [with_protocols(fake_run(f"b{seed}", method="magn", seed=seed), error=0.3, norm=8.0) for seed in (0, 1)]
    few = with_protocols(fake_run("c", method="augmix"), error=0.2)
    for run in stored:
        rewrite(run, lambda results: results["perturbations"].update(source={"dir": "CIFAR-10-P"}))
    rewrite(few, lambda results: results["fourier"].update(num_images=50))
    table = tables_of([*mixed, *stored, few])["cifar10_stability"]
    fourier = [f"Fourier error, norm {way}" for way in ("4, 50 images", "4, 500 images", "8")]
    labels = [column.label for column in table.columns]
    assert labels == ["Flip probability", "Flip probability, -P set", *fourier]
    shown = {row.labels[0]: [label for label in labels if cell(table, row.labels[0], label)] for row in table.rows}
    assert shown == {
        "Standard": ["Flip probability"],
        "MAGN": ["Flip probability, -P set", "Fourier error, norm 8"],
        "AugMix": ["Flip probability", "Fourier error, norm 4, 50 images"],
    }
    assert cell(table, "MAGN", "Fourier error, norm 8").mean == pytest.approx(0.3 * 1026 / 1024)


def test_a_seed_without_adapted_statistics_leaves_the_experiment_no_mean(fake_run):
    runs = [
        with_protocols(fake_run("a", seed=1), adapted=0.5),
        fake_run("b"),
        with_protocols(fake_run("c", method="magn")),
    ]
    table = tables_of(runs)["cifar10_adapted"]
    assert [(row.labels[0], row.labels[2]) for row in table.rows] == [("Standard", "–"), ("MAGN", "50")]
    assert set(table.rows[0].cells) == {None}
    assert None not in table.rows[1].cells


def test_batches_of_other_sizes_are_rows_of_their_own(fake_run):
    runs = [with_protocols(fake_run(f"a{seed}", seed=seed), adapted=0.5 + 0.1 * seed) for seed in (0, 1, 2)]
    rewrite(runs[2], lambda results: results["adapted_batch_norm"].update(batch_size=8))
    table = tables_of(runs)["cifar10_adapted"]
    clean = {row.labels[2]: row.cells[0] for row in table.rows}
    assert {batch: (one.mean, one.num_runs) for batch, one in clean.items()} == {
        "50": (pytest.approx(0.65), 2),
        "8": (pytest.approx(0.8), 1),
    }
