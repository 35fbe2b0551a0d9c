"""The numbers of README and of the page on performance are those of benchmarks/results and of the paper."""

import json
import re
from functools import cache
from typing import Any

import pytest

from tests.helpers.pages import DOCS, README
from tests.helpers.processes import ROOT

PERFORMANCE, RUNNING, GPUS = DOCS / "performance.md", DOCS / "running.md", DOCS / "gpus.md"
OPENCV = "OpenCV (not Pillow's pixels)"
WHOLE_BATCH = "torchvision v2.AugMix, one draw a batch"
ENGINES = {
    "`fastmagn.AugMix`": "AugMix",
    "the `numba` engine": "numba",
    "torchvision's `v2.AugMix` on the whole batch": WHOLE_BATCH,
    "OpenCV": OPENCV,
    "`kornia`": "kornia",
    "Pillow, tuned": "Pillow, tuned",
    "Pillow in the shape": "Pillow, normalised loop",
    "our Pillow reference": "Pillow reference",
    "timm's": "timm AugMixAugment",
    "`dali`": "dali",
    "torchvision's `v2.AugMix`, 2 workers": "torchvision v2.AugMix",
}
OF_PILLOW = "contenders AugMix ratio_to_pillow"
ENGINE_OF_PILLOW = "contenders numba ratio_to_pillow"
VARIANT_COLUMNS = [
    ("step_s median", 1000),
    ("times_as_it_is median", 1),
    ("times_as_it_is lowest", 1),
    ("times_as_it_is highest", 1),
    ("faults_per_step median", 1),
    ("resident_mib", 1),
    ("first_step_s", 1),
]
NEW_RECIPE = ("recipes", "gaussian_noise, 8 epochs")
STEP_AND_EVALUATION = "a step and its evaluation"
WORKERS = r"a DataLoader with two workers # times \(`eval"
# Page, the words around a number (#), its file, its keys there, and what it is multiplied with.
SHOWN = [
    (README, "made # times as fast as by Pillow", "augment-32", f"{OF_PILLOW} median", 1),
    (README, "at 224 px it is # and", "augment-224", f"{OF_PILLOW} median", 1),
    (README, r"\(# times compiled without AVX-512", "augment-sse2-32", f"{ENGINE_OF_PILLOW} median", 1),
    (README, r"trained to # % under corruption \(mCA", "time-to-75", (*NEW_RECIPE, "mca", "mean"), 100),
    (README, r"\(mCA c18\) on CIFAR-10 in # s", "time-to-75", (*NEW_RECIPE, "trained_after_s", "mean"), 1),
    (PERFORMANCE, "single round was between # and", "augment-32", f"{OF_PILLOW} lowest", 1),
    (PERFORMANCE, "and # at 32 pixels", "augment-32", f"{OF_PILLOW} highest", 1),
    (PERFORMANCE, "and between # and", "augment-224", f"{OF_PILLOW} lowest", 1),
    (PERFORMANCE, "and # at 224", "augment-224", f"{OF_PILLOW} highest", 1),
    (PERFORMANCE, "in four views, takes # ms", "train-small", "step_s median", 1000),
    (PERFORMANCE, "Making the views is # ms", "train-small", "parts_ms views median", 1),
    (PERFORMANCE, r"random views a step is # % faster", "train-small", "over_ceiling_pct median", 1),
    (PERFORMANCE, "a step run at # Gflop/s", "train-small", "gflop_per_s", 1),
    (PERFORMANCE, "Gflop/s, # % of what", "train-small", "share_of_peak_pct median", 1),
    (PERFORMANCE, r"not AugMix \| # times ours", "train-small", "ratio_to_conventional median", 1),
    (PERFORMANCE, r"not AugMix \| [\d.]+ times ours \| # times", "train-small", "ratio_to_tight median", 1),
    (README, "usual training loop needs # times as long", "train-small", "ratio_to_conventional median", 1),
    (README, "a loop written for speed # times", "train-small", "ratio_to_tight median", 1),
    (PERFORMANCE, "take the step from # ms", "step-variants", "variants memory_given_back step_s median", 1000),
    (PERFORMANCE, "191 ms to # ms", "step-variants", "variants compiled step_s median", 1000),
    (RUNNING, "on two cores that is # MiB", "step-variants", "variants as_it_is resident_mib", 1),
    (RUNNING, "between steps instead of #, and", "step-variants", "variants memory_given_back resident_mib", 1),
    (RUNNING, "a peak of # MiB", "step-variants", "variants as_it_is peak_mib", 1),
    (RUNNING, r"MiB instead of # \(", "step-variants", "variants memory_given_back peak_mib", 1),
    (PERFORMANCE, r"test_vit` \| # times ours", "train-test-vit", "ratio_to_conventional", 1),
    (PERFORMANCE, r"eight operations \| # times ours", "train-augmix-dominates", "ratio_to_conventional", 1),
    (PERFORMANCE, "two cores process # images/s with DALI", "train-folder", "feeding dali images_per_s median", 1),
    (PERFORMANCE, "DALI and # with Pillow", "train-folder", "feeding torchvision images_per_s median", 1),
    (PERFORMANCE, "on threads, # and", "train-folder", "feeding dali ratio_to_conventional median", 1),
    (PERFORMANCE, "and # times the usual", "train-folder", "feeding torchvision ratio_to_conventional median", 1),
    (PERFORMANCE, "usual loop's # ", "train-folder", "feeding conventional images_per_s median", 1),
    (PERFORMANCE, "test set take # s,", "corrupt", "set 10000_images_s", 1),
    (PERFORMANCE, "That is # times as", "corrupt", "set library_ratio", 1),
    (PERFORMANCE, "imagecorruptions-imaug` and # times", "corrupt", "set plain_ratio", 1),
    (PERFORMANCE, "over 500 images take # s,", "evaluate-small", "contenders evaluate s median", 1),
    (PERFORMANCE, "s, # % longer than the time inside the model", "evaluate-small", "outside_model_pct median", 1),
    (
        PERFORMANCE,
        "stored images takes # times",
        "evaluate-small",
        ("contenders", "plain loop", "times_of_evaluate", "median"),
        1,
    ),
    (PERFORMANCE, WORKERS, "evaluate-small", ("contenders", "DataLoader, 2 workers", "times_of_evaluate", "median"), 1),
    (
        PERFORMANCE,
        "so is the gain: # times",
        "evaluate-small",
        ("contenders", "evaluate, fast", "times_of_evaluate", "median"),
        1,
    ),
    (PERFORMANCE, "its evaluation take # s", "start", ("cold", STEP_AND_EVALUATION, "wall_s", "median"), 1),
    (PERFORMANCE, "in the first run and # s later", "start", ("warm", STEP_AND_EVALUATION, "wall_s", "median"), 1),
    (
        PERFORMANCE,
        "import fastmagn.train` takes # s",
        "start",
        ("answers", "import fastmagn.train", "wall_s", "median"),
        1,
    ),
    (PERFORMANCE, "a training imports # s", "start", ("answers", "what a training imports", "wall_s", "median"), 1),
    (PERFORMANCE, "of which PyTorch is # s", "start", ("answers", "import torch", "wall_s", "median"), 1),
    (PERFORMANCE, "For ResNet-18 the passes take # % longer", "evaluate-resnet18", "outside_model_pct median", 1),
]


@cache
def measured(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}-cpu-2cores.json").read_text())


def at(tree: Any, keys: str | tuple[str, ...]) -> float:
    for key in keys.split() if isinstance(keys, str) else keys:
        tree = tree[key]
    return tree


def rounds_to(shown: str, value: float) -> bool:
    """Whether a number as a page writes it, `1,950` or `**0.9**`, is the value, rounded to its decimals."""
    number = shown.strip(" *")
    decimals = len(number.partition(".")[2])
    return abs(float(number.replace(",", "")) - value) <= 0.5001 * 10**-decimals


def words_of(page: Any) -> str:
    return " ".join(page.read_text().split())


@pytest.mark.parametrize(("page", "words", "name", "keys", "scale"), SHOWN, ids=lambda value: None)
def test_a_number_is_the_measured_one(page, words, name, keys, scale):
    (shown,) = re.findall(words.replace("#", r"([\d.,]+)"), words_of(page))
    assert rounds_to(shown, scale * at(measured(name), keys)), (shown, keys)


def test_the_table_of_engines_is_the_measured_one():
    """Views/s to three digits, ratios to the digits that are shown."""
    for begins, contender in ENGINES.items():
        (row,) = re.findall(rf"^\| {re.escape(begins)}.*$", PERFORMANCE.read_text(), re.MULTILINE)
        _, _, *cells, _ = row.split("|")
        for size, views, ratio in (("32", *cells[:2]), ("224", *cells[2:])):
            found = measured(f"augment-{size}")["contenders"][contender]
            assert float(views.strip(" *").replace(",", "")) == pytest.approx(found["views_per_s"]["median"], rel=0.005)
            assert rounds_to(ratio, found["ratio_to_pillow"]["median"]), (row, size)


@pytest.mark.parametrize("size", ["32", "224"])
def test_the_strongest_rival_is_named_beside_the_usual_one(size):
    contenders = measured(f"augment-{size}")["contenders"]
    views = {name: contenders[name]["views_per_s"]["median"] for name in ("AugMix", OPENCV)}
    said = {
        README: {"32": "and # times as fast as by OpenCV", "224": "at 224 px it is 25 and # times"},
        PERFORMANCE: {"32": "is # times as fast at 32 px", "224": "at 32 px and # times at 224"},
    }
    for page, words in said.items():
        (shown,) = re.findall(words[size].replace("#", r"([\d.,]+)"), words_of(page))
        assert rounds_to(shown, views["AugMix"] / views[OPENCV])


def test_the_strongest_rival_of_each_size_is_called_so():
    for size, strongest in (("32", WHOLE_BATCH), ("224", OPENCV)):
        contenders = measured(f"augment-{size}")["contenders"]
        views = {name: row["views_per_s"]["median"] for name, row in contenders.items()}
        rivals = {name: number for name, number in views.items() if not name.startswith(("AugMix", "numba"))}
        assert max(rivals, key=rivals.__getitem__) == strongest
        if size == "32":
            words = r"rival at 32 px is torchvision's `v2\.AugMix` on the whole batch.*? is ([\d.]+) times as fast\."
            (shown,) = re.findall(words, words_of(PERFORMANCE))
            assert rounds_to(shown, views["AugMix"] / views[strongest])


def test_the_table_of_a_steps_variants_is_the_measured_one():
    variants = measured("step-variants")["variants"]
    rows = re.findall(r"^\| `(\w+)`[^|]*\|(.*)\|$", PERFORMANCE.read_text(), re.MULTILINE)
    cells_of = {name: cells for name, cells in rows if name in variants}
    assert set(cells_of) == set(variants)
    for name, cells in cells_of.items():
        *numbers, loss = re.split(r"\||\.\.|\(|\)\s*\|", cells)
        for number, (keys, scale) in zip(numbers, VARIANT_COLUMNS, strict=True):
            assert rounds_to(number, scale * at(variants[name], keys)), (name, keys)
        assert not loss.strip() or rounds_to(loss.strip(" %"), 100 * variants[name]["loss_difference"])


def test_the_table_of_convolutions_is_the_measured_one():
    sums = measured("conv-layouts")["sums_ms"]
    kinds = ("forward", "gradient of the maps", "gradient of the weights")
    for begins in ("channels last", "channels first", "oneDNN's blocked", "product of patches"):
        layout = "im2col" if begins == "product of patches" else begins
        (row,) = re.findall(rf"^\| {begins}[^|]*\|(.*)\|$", PERFORMANCE.read_text(), re.MULTILINE)
        for kind, cell in zip(kinds, row.split("|"), strict=True):
            name = f"{layout}: {kind}"
            assert rounds_to(cell, sums[name]["median"]) if cell.strip() else name not in sums


@pytest.mark.parametrize(
    ("begins", "compiled"), [("this CPU, AVX-512", "avx512"), ("AVX2", "avx2"), ("any x86-64", "sse2")]
)
def test_the_table_of_older_cpus_is_the_measured_one(begins, compiled):
    """Medians, and the lowest and the highest."""
    (row,) = re.findall(rf"^\| {re.escape(begins)}.*$", PERFORMANCE.read_text(), re.MULTILINE)
    for size, cell in zip(("32", "224"), row.split("|")[3:5], strict=True):
        ratios = at(measured(f"augment-{compiled}-{size}"), ENGINE_OF_PILLOW)
        shown = re.fullmatch(r" ([\d.]+) \(([\d.]+)\.\.([\d.]+)\) ", cell).groups()
        for number, key in zip(shown, ("median", "lowest", "highest"), strict=True):
            assert rounds_to(number, ratios[key]), (row, size, key)


def test_the_runs_of_the_picture_are_in_readme():
    text, runs = words_of(README), measured("accuracy-by-corruption-digits")["runs"]
    shown = {"standard": r"it reached # clean and # mCA", "magn_augmix": r"`magn_augmix` \| # \([^)]+\) \| \*\*#\*\*"}
    for run in runs:
        clean, mca = re.search(shown[run["method"]].replace("#", r"([\d.]+)"), text).groups()
        assert rounds_to(clean, 100 * run["clean_accuracy"])
        assert rounds_to(mca, 100 * run["mca"]["c18"])


def test_the_papers_numbers_are_the_papers():
    results = (ROOT / "fastmagn" / "reporting" / "paper_results.json").read_text()
    for number in ("94.66", "90.64", "94.74", "77.47"):
        assert number in words_of(README)
        assert number in results


def test_the_numbers_of_the_h100_are_the_measured_ones():
    def of(name: str) -> dict[str, Any]:
        return json.loads((ROOT / "benchmarks" / "results" / f"{name}-h100.json").read_text())

    views, train, kernels, fast = (
        of("view-times")["views"],
        of("train-paper"),
        of("step-kernels-paper"),
        of("fast-cifar10"),
    )

    def millions(name: str, kind: str, share: float = 1.0) -> float:
        return share * views[name]["num_views"] / views[name][kind]["median"] / 1000

    families = kernels["families_ms"]
    before = of("step-kernels-clean-epoch-before")
    clean_ms = [1000 * row["epoch_s"] / 195 for row in fast["epochs"] if "jensen_shannon" not in row][1:]
    compiling = [row["epoch"] for row in fast["epochs"] if row["images_per_s"] < 5000]
    others = [row["epoch_s"] for row in fast["epochs"] if row["epoch"] not in compiling]
    half = 0.5  # of four views, two are AugMix's
    for page, words, values in (
        (README, "the kernel makes # million", [millions("magn_augmix, 8192", "device_ms", half)]),
        (README, "trains on # images/s in four", [train["images_per_s"] / 100]),
        (GPUS, "views beside them | # million", [millions("magn_augmix, 8192", "device_ms", half)]),
        (
            GPUS,
            "calls by the host | # and # million",
            [millions("magn_augmix, 512", f"{kind}_ms", half) for kind in ("device", "elapsed")],
        ),
        (
            GPUS,
            "loop of calls | # and # million",
            [millions("trivialaugment, 8192", f"{kind}_ms") for kind in ("device", "elapsed")],
        ),
        (GPUS, "four views, bf16: images/s | #", [train["images_per_s"] / 100]),
        (
            GPUS,
            "already made | # % shorter (# to # %)",
            [-train["over_ceiling_pct"][key] for key in ("median", "highest", "lowest")],
        ),
        (GPUS, "of a step of # ms: convolutions", [kernels["step_ms"]]),
        (
            GPUS,
            "ReLU and sums; views | #, # and # ms",
            [
                sum(v for name, v in families.items() if "convolution" in name),
                families["compiled: batch normalisation, ReLU, sums, loss"],
                families["views"],
            ],
        ),
        (GPUS, "memory of the step | # GiB", [train["peak_memory_mib"] / 1024]),
        (GPUS, "clean images took # ms before", [before["step_ms"]]),
        (GPUS, "host's time, and # to # ms in a", [min(clean_ms), max(clean_ms)]),
        (PERFORMANCE, "`jsd_weight` 12: # s of training without compiling", [sum(others) * 30 / len(others)]),
        (
            PERFORMANCE,
            "without compiling, clean # %, c18 # %",
            [100 * fast["clean_accuracy"], 100 * fast["mca"]["c18"]],
        ),
        (
            PERFORMANCE,
            "corrupt RMS error # % (`benchmarks/results/fast",
            [100 * fast["rms_calibration_error"]["corrupt"]],
        ),
    ):
        pattern = re.escape(words).replace(r"\#", r"([\d.,]*\d)")
        (shown,) = re.findall(pattern, words_of(page))
        for number, value in zip([shown] if isinstance(shown, str) else shown, values, strict=True):
            number, value = (number.removesuffix("00"), value) if "," in number else (number, value)
            assert rounds_to(number, value), (words, number, value)


def test_the_table_of_the_time_to_75_percent_is_the_measured_one():
    recipes = measured("time-to-75")["recipes"]
    columns = (("trained_after_s", 1), ("mca", 100), ("clean_accuracy", 100), ("rms_calibration_error", 100))
    for begins, name in (
        ("`magn_augmix`, fast", "magn_augmix, 10 epochs"),
        ("`gaussian_noise`, 8", "gaussian_noise, 8 epochs"),
    ):
        (row,) = re.findall(rf"^\| {begins}[^|]*\|(.*)\|$", PERFORMANCE.read_text(), re.MULTILINE)
        for cell, (key, scale) in zip(row.split("|"), columns, strict=True):
            check_mean_and_sd(cell, recipes[name][key], scale)
        assert recipes[name]["reached"] == 3
    assert measured("time-to-75")["settings"]["target"] == 0.75


PARTS = {
    "small-networks": {
        "resnet_small": "`resnet_small`: widths",
        "resnet_small_wide": "widths 32, 64",
        "deep": "and a second block",
        "whitened_stem": "or a fixed stem",
        "pooled_stem": "or a stem at 32 px",
        "max_pooling": "or a maximum",
        "gelu": "or GELU",
        "all_noisy": "or noise on all",
        "rate_0.05": "or a learning rate",
    },
    "training-parts": {
        "drawn_flips": "the recipe of eight epochs",
        "alternating_flips": "or flips in every second epoch",
        "others_x4": "or four times the learning rate",
        "others_div4": "or a quarter of it",
        "growing_images": "or images of 24 px",
    },
}


@pytest.mark.parametrize("name", PARTS)
def test_the_tables_of_parts_are_the_measured_ones(name):
    result, begins = measured(name), PARTS[name]
    plan, keys = result["settings"]["plan"], ("clean_accuracy", "mca_c18", "rms_corrupt")
    assert set(begins) == set(result["recipes"])
    assert f"{plan['budget_s']:.0f} s" in words_of(PERFORMANCE)
    for name, row in result["recipes"].items():
        (cells,) = re.findall(rf"^\| {begins[name]}[^|]*\|(.*)\|$", PERFORMANCE.read_text(), re.MULTILINE)
        speed, epochs, *shown = cells.split("|")
        assert rounds_to(speed, plan["recipes"][name]["images_per_s"])
        assert int(epochs) == plan["recipes"][name]["epochs"]
        for cell, key in zip(shown, keys, strict=True):
            check_mean_and_sd(cell, row[key], 100)


def test_no_part_of_the_training_is_called_better_than_chance():
    recipes, keys = measured("training-parts")["recipes"], ("clean_accuracy", "mca_c18", "rms_corrupt")
    least = min(row["p_values"][key] for name, row in recipes.items() if name != "drawn_flips" for key in keys)
    (said,) = re.findall(r"from the first row may be chance \(p ≥ (0\.\d+)\)", words_of(PERFORMANCE))
    assert rounds_to(said, least)
    c18 = {name: row["mca_c18"]["mean"] for name, row in recipes.items()}
    assert max(c18, key=c18.get) == "growing_images"
    assert recipes["growing_images"]["mca_c18"]["sd"] == pytest.approx(
        c18["growing_images"] - c18["drawn_flips"], rel=0.1
    )


def check_mean_and_sd(cell: str, number: dict[str, float], scale: float) -> None:
    mean, sd = cell.replace("*", "").strip().removesuffix(" s").split(" ± ")
    assert rounds_to(mean, scale * number["mean"])
    assert rounds_to(sd, scale * number["sd"])
