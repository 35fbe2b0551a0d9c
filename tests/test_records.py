"""The tables of README and of the page on records are those of benchmarks/records, which are those of their runs."""

import json
import re
import statistics
from itertools import combinations
from pathlib import Path

import pytest
from scipy import stats

from benchmarks import paper_record
from benchmarks.equal_time_plan import TABLE
from benchmarks.records import COLUMNS, RECORDS, markdown
from fastmagn.corruptions import CORRUPTION_SETS
from tests.helpers.pages import DOCS, README, ROOT

ALL = sorted(path for path in RECORDS.iterdir() if path.is_dir())
FOLDERS = [record for record in ALL if (record / TABLE).exists()]
PAPERS = [record for record in ALL if record not in FOLDERS]
FIVE_MINUTES = RECORDS / "2026-11-27-cifar10-twenty-three-recipes"


def read(record: Path) -> dict:
    return json.loads((record / TABLE).read_text())


def results_of(record: Path, name: str, seed: int) -> dict:
    return json.loads((record / name / f"seed{seed}" / "results.json").read_text())


@pytest.mark.parametrize("record", FOLDERS, ids=lambda path: path.name)
def test_a_records_table_is_on_the_page(record):
    page = (DOCS / "records.md").read_text()
    later = [other for other in FOLDERS if other != record and holds(other, record)]
    assert later or markdown(read(record)) in page
    assert f"benchmarks/records/{record.name}`" in page


def holds(record: Path, other: Path) -> bool:
    """Whether a record extends another: it has all of its runs."""
    runs = [path.relative_to(other) for path in other.glob("*/seed*/results.json")]
    return all((record / run).is_file() and (record / run).read_bytes() == (other / run).read_bytes() for run in runs)


@pytest.mark.parametrize("record", FOLDERS, ids=lambda path: path.name)
def test_a_records_numbers_are_the_means_of_its_runs(record):
    measured = read(record)
    for name, row in measured["recipes"].items():
        runs = [results_of(record, name, seed) for seed in measured["settings"]["seeds"]]
        for kind in ("clean", "corrupt"):
            assert row[f"rms_{kind}"]["mean"] == pytest.approx(
                statistics.fmean(run["rms_calibration_error"][kind] for run in runs)
            )
        means = [mean_of(run["corruption_accuracy"], CORRUPTION_SETS["c15"]) for run in runs]
        assert row["mca_c15"]["mean"] == pytest.approx(statistics.fmean(means))
        assert row["mca_c15"]["sd"] == pytest.approx(statistics.stdev(means))
        clean = [run["clean_accuracy"] for run in runs]
        assert row["clean_accuracy"]["mean"] == pytest.approx(statistics.fmean(clean))
        for run, seed in zip(runs, measured["settings"]["seeds"], strict=True):
            assert run["config"]["train"]["seed"] == seed
            assert run["config"]["train"]["epochs"] == measured["settings"]["plan"]["recipes"][name]["epochs"]
            assert run["config"]["optim"]["lr"] == measured["settings"]["learning_rates"][name]


def mean_of(table: dict[str, list[float]], names: tuple[str, ...]) -> float:
    return statistics.fmean(statistics.fmean(table[name]) for name in names)


@pytest.mark.parametrize("record", PAPERS, ids=lambda path: path.name)
def test_a_paper_records_tables_are_on_the_page(record):
    page, runs = (DOCS / "records.md").read_text(), paper_record.read_runs(record)
    assert paper_record.summary_table(runs) in page
    assert paper_record.corruption_table(runs) in page
    assert f"benchmarks/records/{record.name}`" in page


@pytest.mark.parametrize("record", ALL, ids=lambda path: path.name)
def test_a_record_names_no_folder_of_a_machine(record):
    for path in record.rglob("*"):
        assert path.is_dir() or not re.search(r"/(home|root|work|tmp|Users)/", path.read_text()), path


def test_readmes_table_is_the_records():
    measured, page = read(FIVE_MINUTES)["recipes"], README.read_text()
    keys = [COLUMNS[heading][0] for heading in ("clean", "c15", "C-bar", "corrupt")]
    rows = {
        name: row for name, row in measured.items() if f"| `{name}` | {100 * row['clean_accuracy']['mean']:.1f}" in page
    }
    assert {"standard", "augmix_no_jsd", "gaussian_noise", "magn", "magn_augmix"} <= set(rows)
    for name, row in rows.items():
        (cells,) = re.findall(rf"^\| `{name}` \|(.*)\|$", page, re.MULTILINE)
        shown = [cell.strip(" *") for cell in cells.split("|")[-len(keys) :]]
        assert shown == [f"{100 * row[key]['mean']:.1f} ± {100 * row[key]['sd']:.1f}" for key in keys]


# Their pages say it in words of their own, which the tests below compare with the record.
OWN_WORDS = {"standard", "augmix_no_jsd", "gaussian_noise", "magn", "magn_augmix", "ta_noise"}


def test_the_page_of_a_method_has_its_numbers():
    measured = read(FIVE_MINUTES)["recipes"]

    def numbers(name: str) -> tuple[str, str, str, int]:
        keys = ("clean_accuracy", "mca_c15", "rms_corrupt")
        shown = [f"{100 * measured[name][key]['mean']:.1f}" for key in keys]
        return *shown, measured[name]["seeds"][0]["epochs"]

    of_standard = "`standard` has {}, {} and {} %, after {}.".format(*numbers("standard"))
    pages = {name: DOCS / "methods" / f"{name}.md" for name in measured}
    pages = {name: page for name, page in pages.items() if page.exists() and name not in OWN_WORDS}
    assert len(pages) >= 2
    for name, page in pages.items():
        of_method = "it reaches {} % clean, {} % c15 and a calibration error of {} % under corruption, after {} epochs;"
        assert f"{of_method.format(*numbers(name))} {of_standard}" in " ".join(page.read_text().split()), page


def difference(measured: dict, name: str, other: str, key: str) -> float:
    """How far two recipes' means are apart, in points."""
    return 100 * (measured[name][key]["mean"] - measured[other][key]["mean"])


def p_value(measured: dict, name: str, other: str, key: str) -> float:
    """How likely such a difference of two recipes' means is if there is none."""
    values = [[seed[key] for seed in measured[one]["seeds"]] for one in (name, other)]
    return stats.ttest_ind(*values, equal_var=False).pvalue


def gains_by_corruption(name: str) -> dict[str, float]:
    """Corruption -> how far the recipe's accuracy under it is above that of `standard`, in points."""
    ours, reference = (
        [results_of(FIVE_MINUTES, recipe, seed)["corruption_accuracy"] for seed in range(3)]
        for recipe in (name, "standard")
    )
    return {
        corruption: 100
        * statistics.fmean(
            mean_of(run, (corruption,)) - mean_of(other, (corruption,))
            for run, other in zip(ours, reference, strict=True)
        )
        for corruption in ours[0]
    }


def test_what_is_said_of_magn_is_in_the_record():
    measured = read(FIVE_MINUTES)["recipes"]

    def shown(name: str, key: str) -> float:
        return round(100 * measured[name][key]["mean"], 1)

    def gain(name: str, key: str) -> str:
        return f"{abs(difference(measured, name, 'standard', key)):.1f}"

    gains = gains_by_corruption("magn")

    def under(corruption: str, sign: int = 1) -> str:
        return f"{sign * gains[corruption]:.1f}"

    losses = sorted(-change for name, change in gains.items() if name not in CORRUPTION_SETS["c19"] and change < 0)
    assert len(losses) == 6
    least, most = f"{losses[0]:.1f}", f"{losses[-1]:.1f}"
    magn, both = gain("magn", "mca_c15"), gain("magn_augmix", "mca_c15")
    by_chance = measured["magn"]["p_values"]["mca_c15_without_noises"]
    said = {
        README: [
            f"Gaussian noise on half of the images gains {gain('gaussian_noise', 'mca_c15')} points of accuracy under"
            f" corruption (c15) over standard training and loses {gain('gaussian_noise', 'clean_accuracy')} on clean",
            f"one AugMix view of each image gains {gain('augmix_no_jsd', 'mca_c15')} and loses"
            f" {gain('augmix_no_jsd', 'clean_accuracy')}, which may be chance",
            f"MAGN gains {magn}, is level without the noises, and loses {gain('magn', 'clean_accuracy')};",
            f"under corruption is {shown('magn', 'rms_corrupt')} %, that of standard training"
            f" {shown('standard', 'rms_corrupt')} %",
        ],
        DOCS / "records.md": [
            f"{gain('augmix_no_jsd', 'mca_c15')} points of c15 over `standard`,"
            f" {gain('augmix_no_jsd', 'mca_c15_without_noises')} without the noises,"
            f" {gain('augmix_no_jsd', 'mca_cbar')} on C-bar, and {gain('augmix_no_jsd', 'clean_accuracy')} behind",
            f"the errors are {shown('magn_augmix_jsd1', 'rms_clean')} %"
            f" and {shown('magn_augmix_jsd1', 'rms_corrupt')} %",
            f"`magn` gains {magn} points of c15 over `standard`, and loses {gain('magn', 'clean_accuracy')} on clean",
            f"Without them it has {shown('magn', 'mca_c15_without_noises')} %, and `standard`"
            f" {shown('standard', 'mca_c15_without_noises')} %, which may be chance (p = {by_chance:.2f}):",
            f"it gains {under('gaussian_noise')}, {under('shot_noise')} and {under('impulse_noise')} points.",
            f"it gains {under('glass_blur')} points under glass blur, {under('pixelate')} under pixelation,"
            f" {under('snow')} under snow and {under('frost')} under frost, and loses {under('contrast', -1)} under"
            f" contrast, {under('fog', -1)} under fog and {under('brightness', -1)} under brightness.",
            f"On C-bar it gains {gain('magn', 'mca_cbar')} points: {under('blue_noise_sample')} under blue noise,"
            f" {under('inverse_sparkles')} under inverse sparkles, {under('lines')} under lines and"
            f" {under('brownish_noise')} under brownish noise; under the other six it loses {least} to {most}.",
            f"its calibration error is {shown('magn_augmix', 'rms_clean')} % on clean images and"
            f" {shown('magn_augmix', 'rms_corrupt')} % under corruption",
        ],
        DOCS / "methods" / "augmix_no_jsd.md": [
            f"{gain('augmix_no_jsd', 'mca_c15')} points of c15 over `standard`, and"
            f" {gain('augmix_no_jsd', 'mca_c15_without_noises')} without the noises.",
        ],
        DOCS / "methods" / "ta_noise.md": [
            f"it reaches {shown('ta_noise', 'mca_c15')} % c15: {gain('ta_noise', 'mca_c15')} points over `standard`,"
            f" and {gain('ta_noise', 'clean_accuracy')} behind it on clean images."
            f" [gaussian_noise](gaussian_noise.md) has {shown('gaussian_noise', 'mca_c15')}.",
        ],
        DOCS / "methods" / "magn.md": [
            f"it gained {magn} points of c15 over `standard`, with a calibration error of",
            f"it gained under glass blur ({under('glass_blur')} points), pixelation, snow and frost, and lost",
        ],
        DOCS / "methods" / "magn_augmix.md": [
            f"{both} points of c15 ahead of `standard`, {gain('magn_augmix', 'clean_accuracy')} behind on clean images"
        ],
    }
    for page, sentences in said.items():
        for sentence in sentences:
            assert sentence in " ".join(page.read_text().split()), sentence


def test_what_is_said_of_the_methods_of_other_groups_is_in_the_record():
    measured = read(FIVE_MINUTES)["recipes"]

    def shown(name: str, key: str) -> float:
        return round(100 * measured[name][key]["mean"], 1)

    def by_chance(name: str, other: str, key: str) -> str:
        return f"(p = {p_value(measured, name, other, key):.2f})"

    def behind(key: str) -> str:
        first, second, third = (f"{difference(measured, 'standard', name, key):.1f}" for name in mixing)
        return f"{first}, {second} and {third}"

    def epochs(name: str) -> int:
        return measured[name]["seeds"][0]["epochs"]

    mixing = ("cutout", "mixup", "cutmix")
    chances = [f"{p_value(measured, name, 'standard', 'mca_c15'):.2f}" for name in mixing]
    quiet = "mca_c15_without_noises"
    calibrated = ("dign", "apr", "hybridaugment", "magn")
    assert set(calibrated) == set(sorted(measured, key=lambda name: measured[name]["rms_corrupt"]["mean"])[:4])

    def of_four(key: str) -> str:
        return ", ".join(str(shown(name, key)) for name in calibrated[:3]) + f" and {shown('magn', key)} %"

    page = " ".join((DOCS / "records.md").read_text().split())
    for said in (
        f"their RMS calibration errors there are {of_four('rms_corrupt')}, and that of `standard` is"
        f" {shown('standard', 'rms_corrupt')} %.",
        f"The four have {of_four('clean_accuracy')} on clean images, {of_four('mca_c15')} c15, and {of_four(quiet)}"
        " without the noises.",
        f"and the better calibration of `dign` {by_chance('dign', 'apr', 'rms_corrupt')}.",
        f"It is {difference(measured, 'dign', 'magn', 'mca_c15'):.1f} points of c15 ahead of `magn`"
        f" {by_chance('dign', 'magn', 'mca_c15')}, {difference(measured, 'dign', 'magn', quiet):.1f} without the noises"
        f" (p = {p_value(measured, 'dign', 'magn', quiet):.3f}), and"
        f" {difference(measured, 'magn', 'dign', 'mca_cbar'):.1f} behind on C-bar"
        f" {by_chance('dign', 'magn', 'mca_cbar')}, after {epochs('dign')} epochs to {epochs('magn')}.",
        f"`at` completed {epochs('at')} epochs, and has {shown('at', 'clean_accuracy')} % on clean"
        f" images and {shown('at', 'mca_c15')} % c15",
        f"`trades` completed {epochs('trades')}, and has {shown('trades', 'clean_accuracy')} % on clean"
        f" images and {shown('trades', 'mca_c15')} % c15.",
        f"`afa` has {shown('afa', 'mca_c15')} % c15,"
        f" {difference(measured, 'afa', 'magn', 'mca_c15'):.1f} points over `magn`"
        f" {by_chance('afa', 'magn', 'mca_c15')}, and {shown('afa', quiet)} % without the noises,"
        f" level with `standard` {by_chance('afa', 'standard', quiet)}.",
        f"{shown('prime', 'rms_clean')} % calibration error on clean images and {shown('prime', 'rms_corrupt')} % under"
        " corruption.",
        f"they are {behind('clean_accuracy')} points behind `standard` on clean images, and {behind('mca_c15')} on c15"
        f" (p = {', '.join(chances[:2])} and {chances[2]})",
        f"with a calibration error of {shown('mixup', 'rms_clean')} %; under corruption `cutmix` has"
        f" {shown('cutmix', 'rms_corrupt')} %, and `standard` {shown('standard', 'rms_corrupt')} %.",
        f"`autoaugment` has {shown('autoaugment', 'mca_c15')} % c15,"
        f" {difference(measured, 'autoaugment', 'standard', 'mca_c15'):.1f} points over `standard`"
        f" {by_chance('autoaugment', 'standard', 'mca_c15')} and"
        f" {difference(measured, 'trivialaugment', 'autoaugment', 'mca_c15'):.1f} behind `trivialaugment` (p = "
        f"{p_value(measured, 'autoaugment', 'trivialaugment', 'mca_c15'):.3f})",
        f"On C-bar the two are level {by_chance('autoaugment', 'trivialaugment', 'mca_cbar')}.",
    ):
        assert said in page, said


def test_what_is_said_of_gaussian_noise_is_in_the_record():
    measured = read(FIVE_MINUTES)["recipes"]
    keys = ("mca_c15", "mca_c15_without_noises", "mca_cbar", "clean_accuracy")

    def shown(name: str, key: str) -> float:
        return round(100 * measured[name][key]["mean"], 1)

    def ahead(name: str, other: str) -> list[str]:
        return [f"{difference(measured, name, other, key):.1f}" for key in keys]

    def epochs(name: str) -> int:
        return measured[name]["seeds"][0]["epochs"]

    c15, quiet, cbar, clean = ahead("gaussian_noise", "standard")
    of_magn, of_deep = ahead("gaussian_noise", "magn"), ahead("gaussian_noise_deep", "gaussian_noise")
    by_chance = p_value(measured, "gaussian_noise", "augmix_no_jsd", keys[1])
    assert of_deep[3] in ("0.0", "-0.0")
    mean = {name: measured[name][keys[0]]["mean"] for name in measured}
    assert set(sorted(mean, key=mean.get)[-3:]) == {"gaussian_noise", "gaussian_noise_deep", "augmix_noise"}

    def both(key: str) -> tuple[float, float, str]:
        chance = p_value(measured, "augmix_noise", "gaussian_noise", key)
        return shown("augmix_noise", key), shown("gaussian_noise", key), f"(p = {chance:.2f})"

    over_view = ahead("augmix_noise", "augmix_no_jsd")[0]
    said = {
        DOCS / "records.md": [
            f"gains {c15} points of c15 over `standard`, {quiet} without the noises and {cbar} on C-bar, and"
            f" loses {clean.removeprefix('-')} on clean images.",
            "has {} % c15 and `gaussian_noise` {} % {}, on clean images".format(*both(keys[0])),
            "on clean images {} and {} % {}, and a calibration error".format(*both(keys[3])),
            "calibration error under corruption of {} and {} % {}.".format(*both("rms_corrupt")),
            f"It is {over_view} points of c15 ahead of `augmix_no_jsd`, its AugMix view alone.",
            f"{of_magn[0]} points of c15 ahead of it, {of_magn[1]} without the noises, {of_magn[2]} on C-bar and"
            f" {of_magn[3]} on clean images.",
            f"so completed {epochs('gaussian_noise')} epochs instead of {epochs('magn')}. `magn` is better calibrated"
            f" under corruption: {shown('magn', 'rms_corrupt')} %, and {shown('gaussian_noise', 'rms_corrupt')} %.",
            f"completed {epochs('gaussian_noise_deep')} epochs, and gained {of_deep[0]} points of c15",
            f"level with `gaussian_noise` (p = {by_chance:.2f})",
        ],
        DOCS / "methods" / "gaussian_noise.md": [
            f"it gained {c15} points of c15 over `standard`, {quiet} without the noises and {cbar} on C-bar, and"
            f" lost {clean.removeprefix('-')} on clean images.",
        ],
        DOCS / "methods" / "augmix_noise.md": [
            f"{over_view} points of c15 ahead of [augmix_no_jsd](augmix_no_jsd.md), its AugMix view alone, and level",
            f"level with [gaussian_noise](gaussian_noise.md), its noise alone {both(keys[0])[2]}.",
        ],
        DOCS / "methods" / "magn.md": [
            "[gaussian_noise](gaussian_noise.md), the same noise without the agreement,"
            f" was {of_magn[0]} points of c15 ahead",
        ],
    }
    for page, sentences in said.items():
        for sentence in sentences:
            assert sentence in " ".join(page.read_text().split()), sentence


def test_what_is_said_of_the_paper_at_small_scale_is_in_the_record():
    runs = {
        method: results_of(RECORDS / "2026-11-27-cifar10-paper-small", method, 0)
        for method in ("standard", "augmix", "magn", "magn_augmix")
    }
    paper = json.loads((ROOT / "fastmagn/reporting/paper_results.json").read_text())["table_1_cifar10_c"]

    def gains(scores: dict[str, float]) -> str:
        rises = [f"{scores[method] - scores['standard']:.1f}" for method in ("augmix", "magn", "magn_augmix")]
        return f"{rises[0]}, {rises[1]} and {rises[2]} points"

    ours = {method: 100 * run["mca"]["c18"] for method, run in runs.items()}
    corruptions = CORRUPTION_SETS["c18"]
    table = {
        method: {name: 100 * mean_of(run["corruption_accuracy"], (name,)) for name in corruptions}
        for method, run in runs.items()
    }
    alike = sum(
        (table[one][name] - table[other][name]) * (paper[one][name] - paper[other][name]) > 0
        for name in corruptions
        for one, other in combinations(runs, 2)
    )
    ahead = [name for name in corruptions if table["magn_augmix"][name] > table["augmix"][name]]
    assert sorted(ahead) == ["glass_blur", "impulse_noise", "shot_noise", "speckle_noise"]

    def clean_loss(clean: dict[str, float]) -> float:
        return round(clean["standard"] - clean["magn_augmix"], 1)

    both = runs["magn_augmix"]
    bins = both["reliability"]["clean"]
    confidence = sum(n * (c or 0) for n, c in zip(bins["count"], bins["confidence"], strict=True)) / sum(bins["count"])
    cbar = 100 * (runs["augmix"]["mca"]["cbar"] - both["mca"]["cbar"])
    page = " ".join((DOCS / "records.md").read_text().split())
    for said in (
        f"{gains(ours)} of c18 with `augmix`, `magn` and `magn_augmix`. In the paper these are"
        f" {gains({method: row['mca'] for method, row in paper.items()})}.",
        f"The order holds in {alike} of {6 * len(corruptions)} pairs",
        f"it leads `augmix` by {paper['magn_augmix']['mca'] - paper['augmix']['mca']:.1f} points of c18; here it is"
        f" {ours['augmix'] - ours['magn_augmix']:.1f} behind, level on c15 and {cbar:.1f} behind on C-bar",
        f"It is {clean_loss({method: 100 * run['clean_accuracy'] for method, run in runs.items()})} points behind"
        f" `standard` on clean images, and in the paper"
        f" {clean_loss({method: row['clean'] for method, row in paper.items()})}.",
        f"its confidence is {100 * confidence:.1f} % on clean images, and its accuracy"
        f" {100 * both['clean_accuracy']:.1f} %.",
    ):
        assert said in page, said


@pytest.mark.parametrize("table", ["policies", "methods"])
def test_the_older_tables_say_who_trained_with_colour_jitter(table):
    measured = json.loads((ROOT / f"benchmarks/results/equal-time-{table}-cpu-1core.json").read_text())
    configs = measured["settings"]["plan"]["configs"]
    fields = ("augment.color_jitter", "augment.rotation_deg")
    jittered = [name for name, config in configs.items() if all(config[field] > 0 for field in fields)]
    others = [name for name, config in configs.items() if not any(config[field] for field in fields)]
    assert sorted(jittered + others) == sorted(configs)
    heading = {"policies": "## Policies", "methods": "## Methods"}[table]
    section = (DOCS / "records.md").read_text().partition(heading)[2].partition("\n## ")[0]
    (names,) = re.findall(
        r"(`[^.]*) trained with colour jitter and rotation, the others without\.", " ".join(section.split())
    )
    assert sorted(re.findall(r"`(\w+)`", names)) == sorted(jittered)
