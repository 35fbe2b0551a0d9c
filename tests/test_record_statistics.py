"""What the pages say of chance in the records: p values, comparisons, spreads, and the floor of a calibration error."""

import json
import math
import re
import statistics

import numpy as np
import pytest

from benchmarks.equal_time import SIGNIFICANT
from tests.helpers.pages import DOCS, ROOT
from tests.test_records import FIVE_MINUTES, difference, p_value, read, results_of

RECIPES = read(FIVE_MINUTES)["recipes"]
KEYS = ("clean_accuracy", "mca_c15", "mca_c15_without_noises", "mca_cbar")


def text_of(page: str) -> str:
    return " ".join((DOCS / page).read_text().split())


def by_chance(name: str, other: str, key: str) -> str:
    return f"(p = {p_value(RECIPES, name, other, key):.2f})"


def test_the_number_of_comparisons_behind_the_stars():
    compared = [row["p_values"] for name, row in RECIPES.items() if name != "standard"]
    assert f"not corrected for the table's {sum(map(len, compared))} comparisons" in text_of("records.md")
    assert SIGNIFICANT == 0.01


def test_a_leader_of_four_is_named_with_its_exceptions():
    four = ("dign", "apr", "hybridaugment", "magn")
    leaders = {key: max(four, key=lambda name: RECIPES[name][key]["mean"]) for key in KEYS}
    assert leaders == dict.fromkeys(KEYS[:3], "apr") | {"mca_cbar": "hybridaugment"}
    page = text_of("records.md")
    assert f"Its lead over `dign` on c15 may be chance {by_chance('apr', 'dign', 'mca_c15')}" in page
    said = f"So may the lead of `hybridaugment` over `apr` on C-bar {by_chance('hybridaugment', 'apr', 'mca_cbar')}"
    assert said in page


def test_the_deeper_network_leads_with_these_chances():
    c15, quiet, cbar = (
        f"{difference(RECIPES, 'gaussian_noise_deep', 'gaussian_noise', key):.1f}"
        f"{{}} {by_chance('gaussian_noise_deep', 'gaussian_noise', key)}"
        for key in KEYS[1:]
    )
    said = f"{c15.format(' points of c15')}, {quiet.format(' without the noises')} and {cbar.format(' on C-bar')};"
    assert said in text_of("records.md")
    chance = by_chance("gaussian_noise_deep", "gaussian_noise", "mca_c18")
    gain = difference(RECIPES, "gaussian_noise_deep", "gaussian_noise", "mca_c18")
    assert f"with three seeds, it is {gain:.1f} points {chance}" in text_of("performance.md")


def test_the_spread_of_a_difference_is_that_of_two_runs():
    spread = math.sqrt(statistics.fmean((100 * row["mca_c18"]["sd"]) ** 2 for row in RECIPES.values()))
    said = f"c18 of single runs has a standard deviation of about {spread:.1f} points, so the difference between two"
    assert f"{said} runs has one of about {math.sqrt(2) * spread:.1f}." in text_of("records.md")


def test_how_many_recipes_would_take_a_lower_rate():
    rates = read(FIVE_MINUTES)["settings"]["learning_rates"]
    lowest = sum(rate == min(rates.values()) for rate in rates.values())
    said = (
        f"{min(rates.values())}, the lowest learning rate that was tried, was the best for {lowest} of the {len(rates)}"
    )
    assert f"{said} recipes." in text_of("records.md")


def perfectly_calibrated(bins: dict, samples: int) -> np.ndarray:
    """RMS errors of models whose answers are right as often as their confidences say, drawn with a fixed seed."""
    draws, counts = np.random.default_rng(0), np.array(bins["count"])
    kept = counts > 0
    counts, confidence = counts[kept], np.array([mean for mean in bins["confidence"] if mean is not None])
    accuracy = draws.binomial(counts, confidence, (samples, len(counts))) / counts
    return np.sqrt((counts * (accuracy - confidence) ** 2).sum(1) / counts.sum())


def test_the_floor_of_a_calibration_error_is_what_chance_gives():
    diagrams = [results_of(FIVE_MINUTES, name, 0)["reliability"]["clean"] for name in RECIPES]
    errors = 100 * np.concatenate([perfectly_calibrated(bins, 2000) for bins in diagrams])
    floor, exceeded = np.sqrt((errors**2).mean()), np.quantile(errors, 0.95)
    said = f"{floor:.1f} % on the 10,000 clean images, and in one of twenty samples more than {exceeded:.1f}"
    assert said in text_of("which_numbers.md")
    assert f"error of about {floor:.1f} % [by chance alone]" in text_of("records.md")


@pytest.mark.parametrize("page", [*DOCS.glob("methods/*.md")], ids=lambda page: page.stem)
def test_one_run_on_digits_ranks_no_accuracies(page):
    for sentence in re.split(r"(?<=[.:;]) ", " ".join(page.read_text().split())):
        if "digits" in sentence and ("mCA" in sentence or "accura" in sentence):
            assert not re.search(r"(lowest|highest|best|worst) of all", sentence), sentence


def test_a_recipe_that_was_chosen_on_test_images_is_said_to_be():
    chosen = json.loads((ROOT / "benchmarks/results/recipes-small-cpu-2cores.json").read_text())
    assert "--eval.num_images 500" in chosen["command"]
    assert "chosen with `magn_augmix` on 500 test images" in text_of("records.md")
    assert "The parts were chosen by this table, so on test images" in text_of("performance.md")
