"""The first lines of a report: what they say of one method, several, ties, missing measures, networks and seeds."""

import json

import pytest

import fastmagn.reporting.document as document
import fastmagn.reporting.page as page
from fastmagn.reporting.document import make_report, report_runs
from fastmagn.reporting.unlike import unlike
from tests.helpers.report_folders import C19, rewrite, with_few


def said(runs):
    """The headlines of each data set."""
    return [list(data_set.headlines) for data_set in make_report(runs).data_sets]


def differing(runs):
    (data_set,) = make_report(runs).data_sets
    assert list(data_set.unlike) == unlike(data_set.experiments)
    return list(data_set.unlike)


def test_one_method(fake_run):
    assert said([fake_run("a", 0.75, clean=0.9)]) == [
        ["Standard reaches 75.0 % mCA c18 and 90.0 % clean. This rests on one seed."]
    ]


@pytest.mark.parametrize(
    ("clean", "cost"),
    [(0.897, "costs 0.3 clean"), (0.905, "gains 0.5 clean"), (0.9004, "keeps the clean accuracy")],
)
def test_the_best_method_against_standard(clean, cost, fake_run):
    runs = [fake_run("a", 0.7), fake_run("b", 0.72, method="augmix"), fake_run("c", 0.763, method="magn", clean=clean)]
    assert said(runs) == [[f"MAGN gains 6.3 points mCA c18 over Standard and {cost}. This rests on one seed each."]]


def test_standard_is_the_best(fake_run):
    runs = [fake_run("a", 0.8), fake_run("b", 0.72, method="augmix"), fake_run("c", 0.75, method="magn")]
    best = "No method gains over Standard: it has the highest mCA c18, 80.0 %, 5.0 points above MAGN."
    assert said(runs) == [[f"{best} This rests on one seed each."]]


def test_without_standard(fake_run):
    runs = [fake_run("b", 0.72, method="augmix"), fake_run("c", 0.75, method="magn")]
    assert said(runs) == [
        ["MAGN has the highest mCA c18, 75.0 %, 3.0 points above AugMix. This rests on one seed each."]
    ]


def test_ties(fake_run):
    standard = fake_run("a", 0.7, clean=0.9)
    tied = [fake_run("b", 0.75, method="augmix", clean=0.89), fake_run("c", 0.7503, method="magn", clean=0.92)]
    cost = "AugMix costs 1.0 clean; MAGN gains 2.0 clean"
    assert said([standard, *tied]) == [
        [f"AugMix and MAGN tie: they gain 5.0 points mCA c18 over Standard ({cost}). This rests on one seed each."]
    ]
    assert said(tied) == [["AugMix and MAGN tie at 75.0 % mCA c18. This rests on one seed each."]]
    equal = [standard, fake_run("d", 0.7, method="magn"), fake_run("e", 0.6, method="at")]
    assert said(equal) == [
        ["Standard and MAGN tie at 70.0 % mCA c18, 10.0 points above AT. This rests on one seed each."]
    ]


def test_runs_that_share_other_corruptions_or_none(fake_run):
    fog = fake_run("a", {"fog": 0.5})
    assert said([fog, fake_run("b", {"fog": 0.6, "snow": 0.1}, method="magn")]) == [
        ["MAGN gains 10.0 points mCA over fog over Standard and keeps the clean accuracy. This rests on one seed each."]
    ]
    snow = fake_run("c", {"snow": 0.6}, method="magn", clean=0.95)
    lacking = "The runs share no corruption, so only clean accuracy is compared."
    assert said([fog, snow]) == [
        [f"MAGN gains 5.0 points clean accuracy over Standard. {lacking} This rests on one seed each."]
    ]


def test_runs_that_share_corruptions_but_not_all_their_severities(fake_run):
    runs = [fake_run("a", {"fog": 0.5}), fake_run("b", {"fog": 0.6}, method="magn", clean=0.95)]
    with_few(runs[1], {"fog": [1, 2, 3]})
    lacking = "The runs share no corruption at all five severities, so only clean accuracy is compared."
    assert said(runs) == [
        [f"MAGN gains 5.0 points clean accuracy over Standard. {lacking} This rests on one seed each."]
    ]


def test_each_network_and_each_data_set_has_its_own(fake_run):
    runs = [
        *(fake_run("a", 0.7), fake_run("b", 0.8, method="magn")),
        *(fake_run("c", 0.6, network="densenet121"), fake_run("d", 0.65, network="densenet121", method="magn")),
        fake_run("e", 0.5, data="cifar100"),
    ]
    rest = "and keeps the clean accuracy. This rests on one seed each."
    assert said(runs) == [
        [
            f"ResNet-18: MAGN gains 10.0 points mCA c18 over Standard {rest}",
            f"DenseNet-121: MAGN gains 5.0 points mCA c18 over Standard {rest}",
        ],
        ["Standard reaches 50.0 % mCA c18 and 90.0 % clean. This rests on one seed."],
    ]


def test_seeds_and_their_spread(fake_run):
    ours = [fake_run(f"b{seed}", 0.8 + 0.01 * seed, method="magn", seed=seed) for seed in range(3)]
    theirs = [fake_run(f"a{seed}", 0.7 + 0.01 * seed, seed=seed) for seed in range(3)]
    gain = "MAGN gains 10.0 points mCA c18 over Standard and keeps the clean accuracy."
    assert said([*ours, *theirs]) == [[f"{gain} Means over 3 seeds each."]]
    near = [fake_run(f"c{seed}", 0.795 + 0.01 * seed, seed=seed) for seed in range(3)]
    (line,) = said([*ours, *near])[0]
    assert line.endswith("Means over 3 seeds each. The difference is within the spread of the seeds (± 1.0 and ± 1.0).")
    (line,) = said([*ours, theirs[1]])[0]
    assert line.endswith("This rests on different numbers of seeds: MAGN on 3 seeds, Standard on 1 seed.")
    assert said(ours) == [["MAGN reaches 81.0 % mCA c18 and 90.0 % clean. Means over 3 seeds."]]


def test_alike_runs_are_said_to_differ_in_nothing(fake_run):
    runs = [fake_run(f"{method}{seed}", method=method, seed=seed) for method in ("standard", "magn") for seed in (0, 1)]
    assert differing(runs) == []


def test_what_runs_differ_in_is_named_by_method(fake_run):
    a, b = fake_run("a"), fake_run("b", method="augmix", fields={"train.epochs": 5, "data.num_validation_images": 500})
    c = fake_run("c", method="magn", seed=3, fields={"train.max_steps": 20})
    rewrite(c, lambda results: results.update(num_images=100))
    epochs = json.loads((a / "results.json").read_text())["config"]["train"]["epochs"]
    assert differing([a, b, c]) == [
        f"Epochs: {epochs} (Standard); 5 (AugMix); {epochs}, ended by train.max_steps 20 (MAGN).",
        "Test images: 10,000 (Standard, AugMix); 100 (MAGN).",
        "Training data: all training images (Standard, MAGN); data.num_validation_images 500 (AugMix).",
        "Seeds: 0 (Standard, AugMix); 3 (MAGN).",
    ]


def test_what_the_seeds_of_a_method_differ_in_is_named_by_run(fake_run):
    a, b = fake_run("a"), fake_run("b", method="magn")
    c = with_few(fake_run("c", method="magn", seed=1), {"fog": [1]})
    assert differing([a, b, c])[0] == f"Severities: 1 to 5 (Standard, {b}); 1 ({c})."


def test_severities_that_differ_are_named(fake_run):
    a, d = fake_run("a"), fake_run("d", {"frost": 0.8}, method="augmix")
    b = with_few(fake_run("b", method="magn"), {"fog": [1], "snow": [1, 2]})
    c = with_few(fake_run("c", {"fog": 0.8, "snow": 0.8}, method="mixup"), {"snow": [1, 2]})
    assert differing([a, b, c, d]) == [
        "Corruptions: c19 (Standard, MAGN); snow + fog (Mixup); frost (AugMix).",
        "Severities: 1 to 5 (Standard); 1 and 2 of snow, severities 1 to 5 of the others (Mixup); "
        "1 and 2 of snow, severity 1 of fog (MAGN).",
    ]
    alike = [with_few(fake_run(f"e{method}", method=method), {"fog": [1]}) for method in ("standard", "magn")]
    assert differing(alike) == []


def test_corrupted_images_of_two_makers_are_named(fake_run):
    a, b = fake_run("a"), fake_run("b", method="magn", fields={"eval.corrupted_dir": "CIFAR-10-C"})
    assert differing([a, b]) == [
        "Corrupted images: made by fastmagn, version 1, no JPEG (Standard); of a published set (MAGN)."
    ]


def test_unlike_ways_to_bin_a_calibration_error_are_named(fake_run):
    a, b, c = fake_run("a"), fake_run("b", method="magn"), fake_run("c", method="mixup")
    binned = {"binning": "adaptive", "pooling": "per_corruption"}
    rewrite(b, lambda results: results["rms_calibration_error"].update(binned))
    assert differing([a, b, c]) == [
        "Calibration errors: 4 bins of equal width, corruptions pooled (Standard, Mixup); "
        "4 bins of equal numbers of predictions, mean of the corruptions' errors (MAGN)."
    ]


def test_the_report_shows_both(fake_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(document, "to_files", lambda figure: {"png": b"png", "svg": b"<svg/>"})
    monkeypatch.setattr(page, "to_svg", lambda figure, **_: b"<svg/>")
    runs = [fake_run("a", 0.7), fake_run("b", 0.763, method="magn", fields={"train.epochs": 7})]
    report_runs(runs, tmp_path / "out")
    shown = capsys.readouterr()
    line = "MAGN gains 6.3 points mCA c18 over Standard and keeps the clean accuracy."
    assert f"CIFAR-10: {line}" in " ".join(shown.out.split())
    assert "warning: CIFAR-10: the runs differ: Epochs: " in shown.err
    html, text = ((tmp_path / "out" / f"report.{ending}").read_text() for ending in ("html", "md"))
    assert html.index(line) < html.index('id="unlike"') < html.index("<main>")
    assert line in text
    assert "These runs differ in more than their method" in text
    (data_set,) = json.loads((tmp_path / "out" / "report.json").read_text())["data_sets"]
    assert data_set["headlines"][0].startswith(line)
    assert data_set["unlike"][0].startswith("Epochs: ")


def test_single_corruptions_and_some_severities_are_not_compared_with_whole_sets(fake_run):
    c15, c19 = fake_run("a", dict.fromkeys(C19[:15], 0.7)), fake_run("b", 0.8, method="augmix")
    assert differing([c15, c19]) == []  # both are whole sets: each column says its set
    fog = fake_run("c", {"fog": 0.9}, method="magn", fields={"eval.corruption_set": "fog"})
    assert differing([c15, fog]) == ["Corruptions: c15 (Standard); fog (MAGN)."]
    assert said([c15, fog]) == [
        ["MAGN gains 20.0 points mCA over fog over Standard and keeps the clean accuracy. This rests on one seed each."]
    ]
    fields = {"eval.severities": "1,3,5"}
    three = with_few(fake_run("d", 0.9, method="magn", fields=fields), {name: [1, 3, 5] for name in C19})
    assert differing([c19, three]) == ["Severities: 1 to 5 (AugMix); 1, 3 and 5 (MAGN)."]
    (line,) = said([c19, three])[0]
    assert "no corruption at all five severities, so only clean accuracy is compared" in line
    (tables,) = (item.tables for item in make_report([c19, three]).data_sets)
    for name in ("summary", "corruptions"):
        (table,) = (table for table in tables if table.name.endswith(f"_{name}"))
        cells = zip(*(row.cells for row in table.rows), strict=True)
        columns = {column.label: of_column for column, of_column in zip(table.columns, cells, strict=True)}
        if name == "summary":
            assert [cell is None for cell in columns["mCA c18"]] == [False, True]
        else:
            assert set(columns["MAGN"][1:]) == {None}  # no mean of three beside means of five


def test_runs_of_one_method_on_other_cells_are_other_experiments(fake_run):
    whole, again = fake_run("a"), fake_run("b", {"fog": 0.8}, seed=1, fields={"eval.corruption_set": "fog"})
    three = with_few(fake_run("c", seed=2, fields={"eval.severities": "1,3,5"}), {name: [1, 3, 5] for name in C19})
    older = fake_run("d", seed=3)
    rewrite(older, lambda results: results["config"]["eval"].pop("severities"))
    experiments = [item for group in make_report([whole, again, three, older]).data_sets for item in group.experiments]
    assert {item.label: len(item.runs) for item in experiments} == {
        "Standard": 2,
        "Standard (corruption_set fog)": 1,
        "Standard (severities 1,3,5)": 1,
    }
