"""The tables of the measures beside the paper's: every number comes from the results, and none is made up."""

import json
from typing import Any

import pytest

from fastmagn.corruptions import CORRUPTIONS
from fastmagn.corruptions.sets import CIFAR_CBAR, IMAGENET_CBAR
from fastmagn.errors import InputError
from fastmagn.reporting.document import make_report, write_report
from fastmagn.reporting.formats import headers, printed_rows
from fastmagn.reporting.names import CORRUPTION_KINDS, by_kind
from fastmagn.reporting.runs import read_run
from tests.helpers.report_folders import C19, SLOPE, of_classes, rewrite, with_few, write_run


def detection(auroc: float) -> dict[str, float]:
    return {"auroc": auroc, "aupr_in": 0.6, "aupr_out": 0.7, "fpr_at_95_tpr": 0.5, "fpr_at_95_tpr_out": 0.4}


def add_measures(results: dict[str, Any], shift: float = 0.0) -> None:
    """What an evaluation adds; `shift` makes another run's numbers."""
    rms = results["rms_calibration_error"]
    calibration = {
        "clean": {"ece": 0.04 + shift, "adaptive_ece": 0.05, "nll": 0.4, "brier": 0.2},
        "corrupt": {"ece": 0.08, "adaptive_ece": 0.09, "nll": 1.4, "brier": 0.4},
        "corruption_set": rms["corruption_set"],
    }
    selective = {"clean": {"aurc": 0.01, "risk_at_80_coverage": 0.02}, "corrupt": {"aurc": 0.11 + shift}}
    selective["corrupt"]["risk_at_80_coverage"] = 0.12
    results["calibration"] = calibration
    results["selective_prediction"] = {**selective, "corruption_set": rms["corruption_set"]}
    results["temperature_scaling"] = {
        **{"temperature": 1.25 + shift, "images": "validation", "num_images": 5000},
        "rms_calibration_error": rms | {"clean": 0.03, "corrupt": 0.06},
        "calibration": calibration | {"clean": {"ece": 0.021}, "corrupt": {"ece": 0.051}},
    }
    results["ood"] = {
        "cifar100": {
            **{"num_test_images": 10_000, "num_other_images": 10_000},
            **{"max_softmax": detection(0.8 + shift), "energy": None, "max_logit": detection(0.9)},
        }
    }


@pytest.fixture
def runs(tmp_path):
    means = {name: 0.5 if "noise" in name else 0.8 for name in C19}
    folders = [write_run(tmp_path / f"seed{seed}", means, seed=seed) for seed in (0, 1)]
    for seed, folder in enumerate(folders):
        rewrite(folder, lambda results, seed=seed: add_measures(results, 0.002 * seed))
    return folders


def test_what_one_seed_lacks_is_said(runs, tmp_path):
    """The third seed has no table of its own to vanish from: without the line nobody would miss the other two."""
    third = write_run(tmp_path / "seed2", {name: 0.7 for name in C19 if name != "fog"}, seed=2)
    alone = write_run(tmp_path / "alone", method="magn")
    same = {name: 0.5 if "noise" in name else 0.8 for name in C19}
    lines = make_report([*runs, alone]).warnings
    assert not any("lacks" in line for line in lines)
    rewrite(runs[1], lambda results: results["ood"].clear())
    (line,) = [line for line in make_report([*runs, alone]).warnings if "lacks" in line]
    assert line == (
        f"{runs[1]}: lacks out-of-distribution detection with CIFAR-100, which another seed of Standard, CIFAR-10,"
        " ResNet-18 has. The report has no mean of it: measure this run as the others, or leave it out."
    )
    whole = write_run(tmp_path / "seed3", same, seed=3)
    lines = [line for line in make_report([whole, third]).warnings if "lacks" in line]
    assert [line.split(", which")[0] for line in lines] == [f"{third}: lacks Fog"]


def shown(tables, name: str) -> tuple[list[str], list[list[str]]]:
    """The headers and the rows of a table as they are printed."""
    table = next(table for table in tables if table.name == f"cifar10_{name}")
    tops = [*table.row_headers, *(header.label for header in headers(table))]
    rows = [[*labels, *(f"{cell.value}{cell.rest}" for cell in cells)] for labels, cells in printed_rows(table)]
    return tops, rows


def test_every_table_has_the_results_numbers(runs):
    tables = make_report(runs).data_sets[0].tables
    who, spread = ["Standard", "ResNet-18"], " ± 0.14"  # the deviation of x and x + 0.2 is 0.2 / sqrt(2)
    # c15: 12 corruptions of error 20 %, 3 noises of 50 %; the slope's mean is 0.
    assert sum(SLOPE) == pytest.approx(0)
    errors = [f"{value} ± 0.00" for value in ("10.00", "26.00", "20.00")]
    assert shown(tables, "errors") == (
        ["Method", "Network", "Clean error", "Error c15", "Error c15 without noise"],
        [[*who, *errors]],
    )
    assert shown(tables, "ece") == (
        ["Method", "Network", "ECE clean", "adaptive ECE clean", "ECE c18", "adaptive ECE c18"],
        [[*who, f"4.10{spread}", "5.00 ± 0.00", "8.00 ± 0.00", "9.00 ± 0.00"]],
    )
    raw = ["RMS clean", "RMS clean, scaled", "RMS c18", "RMS c18, scaled"]
    assert shown(tables, "temperature") == (
        ["Method", "Network", "Temperature", "Fitted on", *raw, "ECE clean, scaled", "ECE c18, scaled"],
        [
            [
                *(*who, "1.250, 1.252", "5,000 of validation"),
                *(f"{value} ± 0.00" for value in ("5.00", "3.00", "10.00", "6.00", "2.10", "5.10")),
            ]
        ],
    )
    assert shown(tables, "selective") == (
        ["Method", "Network", "AURC clean", "Risk at 80 % clean", "AURC c18", "Risk at 80 % c18"],
        [[*who, "1.00 ± 0.00", "2.00 ± 0.00", f"11.10{spread}", "12.00 ± 0.00"]],
    )
    rest = ["60.00 ± 0.00", "70.00 ± 0.00", "50.00 ± 0.00", "40.00 ± 0.00"]
    _, rows = shown(tables, "ood")
    assert rows == [
        [*who, "CIFAR-100", "maximum softmax", f"80.10{spread}", *rest],
        [*who, "CIFAR-100", "maximum logit", "90.00 ± 0.00", *rest],
    ]


def with_classes(folder, **changed):
    rewrite(folder, lambda results: results.update(class_accuracy=of_classes(**changed)))
    return folder


def test_classes_stand_side_by_side(tmp_path):
    standard = [with_classes(write_run(tmp_path / f"seed{seed}", seed=seed)) for seed in (0, 1)]
    clean, corrupt = [0.95, 0.4], [0.7, 0.1]
    balanced = {"balanced_accuracy": {"clean": 0.675, "corrupt": 0.4}}
    changed = {"clean": clean, "corrupt": corrupt, "corruption_set": "c15", **balanced}
    augmix = with_classes(write_run(tmp_path / "augmix", method="augmix"), **changed)
    older = write_run(tmp_path / "older", method="magn")
    tables = make_report([*standard, augmix, older]).data_sets[0].tables
    tops, rows = shown(tables, "resnet18_classes")
    assert tops[2:] == ["Standard, clean", "AugMix, clean", "MAGN, clean", "Standard, c18", "AugMix, c15"]
    cells = [dict(zip(tops, row, strict=True)) for row in rows]
    assert [(row["Class"], row["Images"]) for row in cells] == [
        *(("whole", "95"), ("defect", "5"), ("Balanced accuracy", "")),
    ]
    assert [row["Standard, clean"] for row in cells] == ["90.00 ± 0.00", "60.00 ± 0.00", "75.00 ± 0.00"]
    assert [row["Standard, c18"] for row in cells] == ["80.00 ± 0.00", "", ""]
    assert [row["AugMix, c15"] for row in cells] == ["70.00", "10.00", "40.00"]
    assert {row["MAGN, clean"] for row in cells} == {""}
    table = next(table for table in tables if table.name == "cifar10_resnet18_classes")
    assert (
        "The smallest class has 5 images: the standard error of its clean accuracy is up to 22.4 points."
        in table.caption
    )
    (alone,) = [one for one in make_report(standard[:1]).data_sets[0].tables if one.name == table.name]
    assert [column.label for column in alone.columns] == ["clean", "c18"]
    assert not [one for one in make_report([older]).data_sets[0].tables if one.name == table.name]


def test_of_many_classes_the_worst_are_shown(tmp_path):
    names, clean = [f"n{k}" for k in range(101)], [(k * 37 % 101) / 101 for k in range(101)]
    many = {"class_names": names, "num_images": [12] * 101, "clean": clean, "corrupt": clean}
    folder = with_classes(write_run(tmp_path / "run"), **many)
    tables = make_report([folder]).data_sets[0].tables
    _, rows = shown(tables, "resnet18_classes")
    worst = sorted(range(101), key=lambda k: clean[k])[:50]
    assert [row[0] for row in rows] == [*(names[k] for k in worst), "Balanced accuracy"]
    rewrite(folder, lambda results: [results["class_accuracy"][name].pop() for name in many])
    _, rows = shown(make_report([folder]).data_sets[0].tables, "resnet18_classes")
    assert [row[0] for row in rows] == [*names[:100], "Balanced accuracy"]


def test_the_normalised_mce_has_its_column_where_it_was_measured(runs):
    rewrite(runs[0], lambda results: results.update(mce_alexnet=0.745))
    tables = make_report(runs[:1]).data_sets[0].tables
    tops, rows = shown(tables, "errors")
    assert (tops[-1], rows[0][-1]) == ("mCE by AlexNet's", "74.50")
    assert [top for top in tops if "mce" in top.lower()] == ["mCE by AlexNet's"]  # readers take mCE as normalised


@pytest.mark.parametrize("members", [CIFAR_CBAR, IMAGENET_CBAR], ids=["cifar", "imagenet"])
def test_cbar_has_its_place_in_every_table_of_means(tmp_path, members):
    means = dict.fromkeys(C19[:15], 0.8) | {name: 0.3 + 0.02 * place for place, name in enumerate(members)}  # mean 0.39
    both = write_run(tmp_path / "both", means, network="resnet_small")
    rewrite(both, lambda results: results["mca"].update(cbar=0.39))
    table = {name: [mean + 0.1] * 5 for name, mean in means.items()}
    adapted = {"clean_accuracy": 0.95, "batch_size": 100, "corruption_accuracy": table}
    rewrite(both, lambda results: results.update(adapted_batch_norm=adapted))
    without = write_run(tmp_path / "without", dict.fromkeys(C19[:15], 0.7), method="augmix", network="resnet_small")
    tables = make_report([both, without]).data_sets[0].tables
    tops, rows = shown(tables, "errors")
    assert tops[2:] == ["Clean error", "Error c15", "Error c15 without noise", "Error cbar"]
    assert [row[-1] for row in rows] == ["61.00", ""]
    tops, rows = shown(tables, "adapted")
    assert dict(zip(tops, rows[0], strict=True))["mCA cbar"] == "49.00"
    tops, rows = shown(tables, "summary")
    assert [dict(zip(tops, row, strict=True))["mCA cbar"] for row in rows] == ["39.00", ""]
    _, rows = shown(tables, "networks")
    assert [row[1:3] for row in rows] == [
        *(["CIFAR-10", "90.00"], ["CIFAR-10-C c15", "80.00"], ["CIFAR-10-C-bar", "39.00"]),
    ]


def test_runs_with_no_corruption_in_common_keep_their_means(tmp_path):
    runs = [
        write_run(tmp_path / "c", dict.fromkeys(C19[:15], 0.7), network="resnet_small"),
        write_run(tmp_path / "cbar", dict.fromkeys(CIFAR_CBAR, 0.6), method="magn", network="resnet_small"),
    ]
    rewrite(runs[1], lambda results: results["mca"].update(cbar=0.6))
    for run in runs:
        table = json.loads((run / "results.json").read_text())["corruption_accuracy"]
        adapted = {"clean_accuracy": 0.95, "batch_size": 100, "corruption_accuracy": table}
        rewrite(run, lambda results, adapted=adapted: results.update(adapted_batch_norm=adapted))
    tables = make_report(runs).data_sets[0].tables
    _, rows = shown(tables, "networks")
    assert [row[1:] for row in rows] == [
        *(["CIFAR-10", "90.00", "90.00"], ["CIFAR-10-C c15", "70.00", ""], ["CIFAR-10-C-bar", "", "60.00"]),
    ]
    tops, rows = shown(tables, "adapted")
    assert tops[3:] == ["Clean", "mCA c15", "mCA cbar"]
    assert [row[3:] for row in rows] == [["95.00", "70.00", ""], ["95.00", "", "60.00"]]
    tops, _ = shown(make_report(runs[1:]).data_sets[0].tables, "adapted")
    assert tops[3:] == ["Clean", "mCA cbar"]


def test_older_results_have_only_what_they_measured(tmp_path):
    run = write_run(tmp_path / "old")
    names = {table.name for table in make_report([run]).data_sets[0].tables if table.section}
    assert names == {"cifar10_errors"}


def test_numbers_over_other_corruptions_are_not_mixed(runs, tmp_path):
    few = write_run(tmp_path / "few", {"fog": 0.7}, method="augmix")
    rewrite(few, add_measures)
    tops, rows = shown(make_report([*runs, few]).data_sets[0].tables, "selective")
    assert tops[2:] == [
        *("AURC clean", "Risk at 80 % clean", "AURC c18", "Risk at 80 % c18", "AURC fog", "Risk at 80 % fog"),
    ]
    assert [row[4] for row in rows] == ["11.10 ± 0.14", ""]
    assert [row[6] for row in rows] == ["", "11.00"]


@pytest.mark.parametrize("title", ["c18", "c18 at severity 1"])  # as 0.2.0 wrote it, and since
def test_numbers_over_fewer_severities_are_not_mixed(runs, tmp_path, title):
    few = with_few(write_run(tmp_path / "few", method="augmix", rms=(0.03, 0.01)), {name: [1] for name in C19})
    rewrite(few, lambda results: results["rms_calibration_error"].update(corruption_set=title))
    rewrite(few, add_measures)
    tables = make_report([*runs, few]).data_sets[0].tables
    for name in ("summary", "ece", "selective", "temperature"):
        table = next(table for table in tables if table.name == f"cifar10_{name}")
        measured = {}
        for column, *cells in zip(table.columns, *(row.cells for row in table.rows), strict=True):
            _, c18, severities = column.label.removesuffix(", scaled").partition(" c18")
            if c18 and not column.label.startswith("mCA"):
                measured.setdefault(severities, set()).add(tuple(cell is not None for cell in cells))
        assert measured == {"": {(True, False)}, " at severity 1": {(False, True)}}, name
    _, rows = shown(tables, "calibration")
    assert [row[1] for row in rows] == ["CIFAR-10", "CIFAR-10-C c18", "CIFAR-10-C c18 at severity 1"]
    calibration = next(table for table in tables if table.name == "cifar10_calibration")
    (alone,) = (cell for cell in calibration.rows[2].cells if cell is not None)
    assert (alone.mean, alone.paper) == (0.01, None)
    named = {figure.name: figure for figure in make_report([few]).data_sets[0].figures}
    assert named["cifar10_calibration"].axes["corruption_set"] == "c18 at severity 1"


def test_the_page_and_the_data_have_them(runs, tmp_path):
    write_report(make_report(runs), tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text()
    assert '<a href="#set0-more">More measures</a>' in page
    assert "Out-of-distribution detection, CIFAR-10" in page
    data = json.loads((tmp_path / "report" / "report.json").read_text())
    assert data["data_sets"][0]["runs"][0]["ood"]["cifar100"]["max_logit"]["auroc"] == 0.9
    assert (tmp_path / "report" / "tables" / "cifar10_ood.tex").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda results: results["ood"]["cifar100"].pop("energy"), "it lacks ood.cifar100.energy"),
        (lambda results: results["ood"].update(cifar100=[]), "it lacks ood.cifar100.num_test_images"),
        (
            lambda results: results["ood"]["cifar100"]["max_logit"].update(auroc=1.5),
            "ood.cifar100.max_logit.auroc is '1.5', not a fraction in 0..1 or null",
        ),
        (lambda results: results.update(ood=3), "ood is '3', not an object"),
        (
            lambda results: results["temperature_scaling"].update(temperature="x"),
            "temperature_scaling.temperature is 'x', not a number, 0 or more",
        ),
        (lambda results: results.update(selective_prediction={}), "it lacks selective_prediction.corruption_set"),
        (
            lambda results: results["calibration"]["clean"].update(adaptive_ece=[]),
            "calibration.clean.adaptive_ece is '[]', not a fraction",
        ),
    ],
)
def test_damaged_measures_are_one_line(runs, change, message):
    rewrite(runs[0], change)
    with pytest.raises(InputError) as error:
        read_run(runs[0])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_run_from_before_a_field_existed_joins_the_other_seeds(tmp_path):
    folders = [write_run(tmp_path / f"seed{seed}", seed=seed) for seed in range(3)]
    rewrite(folders[0], lambda results: results["config"]["optim"].pop("filter_lr_ratio"))
    rewrite(folders[2], lambda results: results["config"]["optim"].update(filter_lr_ratio=2.0))
    experiments = make_report(folders).data_sets[0].experiments
    assert [[run.seed for run in item.runs] for item in experiments] == [[0, 1], [2]]
    assert [item.label for item in experiments] == ["Standard", "Standard (filter_lr_ratio 2)"]


def test_every_corruption_is_of_a_kind():
    assert sorted(name for names in CORRUPTION_KINDS.values() for name in names) == sorted(CORRUPTIONS)
    others = {kind: [] for kind in CORRUPTION_KINDS}
    assert by_kind(["fog", "smudge"]) == others | {"Weather": ["fog"], "Other": ["smudge"]}
