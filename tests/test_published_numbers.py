"""The page of published numbers: its sources and configurations are there; pages of methods print the same numbers."""

import json
import re
import shlex
import statistics
from functools import cache

import pytest

from fastmagn.config.command_line import parse_config
from tests.helpers.pages import DOCS, of_checkout
from tests.helpers.processes import ROOT

PAGE = DOCS / "published_numbers.md"
SETS = ("CIFAR-10", "CIFAR-100", "ImageNet")
NETWORKS = {
    "ResNet-18": "resnet18",
    "ResNet-50": "resnet50",
    "WideResNet-40-2": "wideresnet40_2",
    "WideResNet-28-4": "wideresnet28_4",
    "ResNeXt-29": "resnext29_4x32d",
}
PAPER = {"standard": "standard", "augmix": "AugMix", "magn": "MAGN", "magn_augmix": "MAGN + AugMix"}
PAPER_TABLES = {"CIFAR-10": "table_1_cifar10_c", "CIFAR-100": "table_5_cifar100_c"}
NO_ROW = ("at", "trades", "rse")  # the paper's rows of its other methods
BOTH, TO_C15 = ("clean", "c15"), ("c15",)
# A method's page, the words around its numbers (#), the row (set, network, method, source), and the row's columns.
PRINTED = [
    *(
        (page, rf"\| the paper, {name}, ResNet-18 \| # \| # \|", (name, "ResNet-18", method, "MAGN"), BOTH)
        for page, method in PAPER.items()
        for name in PAPER_TABLES
    ),
    ("augmix_no_jsd", "# % clean and # % on", ("CIFAR-10", "PreActResNet-18", "AugMix without", "Kireev"), BOTH),
    ("augmix_no_jsd", "and # and # % with the", ("CIFAR-10", "PreActResNet-18", "AugMix", "Kireev"), BOTH),
    ("augmix_no_jsd", "WideResNet-40-2 has # %", ("CIFAR-10", "WideResNet-40-2", "AugMix", "RobustBench"), TO_C15),
    ("augmix_no_jsd", "# % on CIFAR-100-C", ("CIFAR-100", "WideResNet-40-2", "AugMix", "RobustBench"), TO_C15),
    ("augmix_noise", "divergence have # and", ("CIFAR-10", "PreActResNet-18", "noise of 0.1", "Kireev"), TO_C15),
    ("augmix_noise", r"have [\d.]+ and # %", ("CIFAR-10", "PreActResNet-18", "AugMix without", "Kireev"), TO_C15),
    ("gaussian_noise", r"\| standard training \| # \|", ("CIFAR-10", "PreActResNet-18", "standard", "Kireev"), TO_C15),
    ("gaussian_noise", r"0\.05 \| # \|", ("CIFAR-10", "PreActResNet-18", "noise of 0.05", "Kireev"), TO_C15),
    ("gaussian_noise", r"0\.1 \| # \|", ("CIFAR-10", "PreActResNet-18", "noise of 0.1", "Kireev"), TO_C15),
    (
        "gaussian_noise",
        r"\| AugMix without its divergence \| # \|",
        ("CIFAR-10", "PreActResNet-18", "AugMix without", "Kireev"),
        TO_C15,
    ),
    ("gaussian_noise", r"\| AugMix \| # \|", ("CIFAR-10", "PreActResNet-18", "AugMix", "Kireev"), TO_C15),
    *(
        ("prime", rf"\| the authors, {name}, ResNet-18 \| # \| # \|", (name, "ResNet-18", "PRIME", "PRIME"), BOTH)
        for name in PAPER_TABLES
    ),
    ("prime", "ResNet-18 has # % on", ("CIFAR-10", "ResNet-18", "PRIME", "PRIME"), ("clean",)),
    ("prime", "their AugMix has # %", ("CIFAR-10", "ResNet-18", "AugMix", "PRIME"), ("clean",)),
    ("prime_no_jsd", "has # % on clean images and # %", ("ImageNet", "ResNet-50", "PRIME without", "PRIME"), BOTH),
    ("prime_no_jsd", "with the divergence # % and # %", ("ImageNet", "ResNet-50", "PRIME", "PRIME"), BOTH),
    *(
        (
            "hybridaugment",
            rf"\| {network} \| {numbers} \|",
            (name, network, "HybridAugment++ PS", "HybridAugment"),
            TO_C15,
        )
        for network in ("ResNet-18", "WideResNet-40-2", "ResNeXt-29")
        for name, numbers in (("CIFAR-10", r"# \| [\d.]+"), ("CIFAR-100", r"[\d.]+ \| #"))
    ),
    *(
        ("apr", rf"APR-SP \| (?:[\d.]+ / ){{{place}}}#(?: /| \|)", ("ImageNet", "ResNet-50", method, "APR"), ("mCE",))
        for place, method in enumerate(("standard", "APR-S", "APR-P", "APR-SP"))
    ),
    *(
        ("afa", rf"\| {network}, {shown} \| # \|", ("ImageNet", network, method, "AFA"), TO_C15)
        for network in ("ResNet-18", "ResNet-50")
        for shown, method in (("standard", "standard"), ("`afa`", "AFA"), ("`afa_jsd`", "AFA with divergence"))
    ),
    *(
        ("afa_jsd", rf"with a {network} \({numbers} %", ("ImageNet", network, method, "AFA"), TO_C15)
        for network in ("ResNet-18", "ResNet-50")
        for numbers, method in ((r"# to [\d.]+", "AFA with divergence"), (r"[\d.]+ to #", "AFA"))
    ),
    ("afa_augmix", r"\| ResNet-50, AugMix \| # \|", ("ImageNet", "ResNet-50", "AugMix", "AFA"), TO_C15),
    ("afa_augmix", r"\| ResNet-50, AugMix \+ AFA \| # \|", ("ImageNet", "ResNet-50", "AugMix + AFA", "AFA"), TO_C15),
    *(
        ("noisymix", rf"\| {name} \| # \| # \|", (name, "WideResNet-28-4", "NoisyMix", "RobustBench"), BOTH)
        for name in PAPER_TABLES
    ),
    *(
        (page, words, (name, "WideResNet-28-4", method, "Siedel"), columns)
        for page, words, name, method, columns in (
            ("noisymix", "is # on CIFAR-10 and", "CIFAR-10", "ta_noise", TO_C15),
            ("noisymix", "and # on CIFAR-100", "CIFAR-100", "ta_noise", TO_C15),
            ("ta_noise", r"\| CIFAR-10 \| # \| # \| # \|", "CIFAR-10", "ta_noise", (*BOTH, "C-bar")),
            ("ta_noise", r"\| CIFAR-100 \| # \| # \| # \|", "CIFAR-100", "ta_noise", (*BOTH, "C-bar")),
            ("trivialaugment", "# % clean and # % c15 on", "CIFAR-10", "TrivialAugment", BOTH),
            ("trivialaugment", "# and # % on CIFAR-100", "CIFAR-100", "TrivialAugment", BOTH),
        )
    ),
]


def tables(text: str) -> list[list[dict[str, str]]]:
    """The rows of each table, by their columns."""
    found = []
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        head, _, *rows = ([cell.strip() for cell in line.strip("|").split(" | ")] for line in block.splitlines())
        found.append([dict(zip(head, row, strict=True)) for row in rows])
    return found


@cache
def published() -> list[dict[str, str]]:
    """Each row of the page, with its set of images."""
    parts = PAGE.read_text().split("\n## ")
    rows = [
        {**row, "set": name}
        for part in parts
        for name in SETS
        if part.startswith(f"{name}\n")
        for row in tables(part)[0]
    ]
    (cbar,) = (table for table in tables(PAGE.read_text()) if "CIFAR-10-C-bar" in table[0])
    for row in rows:
        if row["published in"].startswith("Siedel"):
            (row["C-bar"],) = (other[f"{row['set']}-C-bar"] for other in cbar if other["method"] == row["method"])
    return rows


def row_of(name: str, network: str, method: str, source: str) -> dict[str, str]:
    """The one row; a method ending in `without`, or naming a noise, may go on."""
    (row,) = (
        row
        for row in published()
        if (row["set"], row["network"]) == (name, network)
        and row["published in"].startswith(f"{source}, ")
        and (
            row["method"] == method
            or (re.search(r"without$|[\d.]+$", method) and row["method"].startswith(f"{method} "))
        )
    )
    return row


def words_of(page: str) -> str:
    return " ".join((DOCS / "methods" / f"{page}.md").read_text().split())


@pytest.mark.parametrize(("page", "words", "key", "columns"), PRINTED)
def test_the_page_of_a_method_prints_what_is_published(page, words, key, columns):
    found = re.findall(words.replace("#", r"(\d+(?:\.\d+)?)"), words_of(page))
    assert len(found) == 1, found
    shown = found[0] if isinstance(found[0], tuple) else (found[0],)
    row = row_of(*key)
    assert list(shown) == [row[column].removesuffix(" (c18)") for column in columns]


def test_no_published_row_of_a_methods_page_is_left_out():
    """Rows of the paper, of a method's authors, and of tables that say that they are published."""
    checked = {page for page, *_ in PRINTED}
    for path in sorted((DOCS / "methods").glob("*.md")):
        for table in re.findall(r"(?:^\|.*\|\n)+", path.read_text(), re.MULTILINE):
            says = table.startswith("| published") or "of the authors" in table.splitlines()[0]
            lines = [
                line for line in table.splitlines()[2:] if says or line.startswith(("| the paper", "| the authors"))
            ]
            assert not lines or path.stem in checked or path.stem in NO_ROW, path.stem
            if path.stem in checked:
                known = [words.replace("#", r"\d+(?:\.\d+)?") for page, words, *_ in PRINTED if page == path.stem]
                assert all(any(re.search(words, line) for words in known) for line in lines), lines


def test_each_row_names_a_source_with_its_version_and_date():
    (sources,) = (table for table in tables(PAGE.read_text()) if "read" in table[0])
    known = {source["name"] for source in sources}
    assert {row["published in"].partition(", ")[0] for row in published()} == known
    assert all(re.fullmatch(r"[^,]+, .+", row["published in"]) for row in published())
    for source in sources:
        assert re.search(r"\]\(https://(github\.com|arxiv\.org)/\S+\)", source["where"]), source
        assert re.fullmatch(r"[0-9a-f]{7}|the paper", source["version"])
        assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", source["read"])


def test_numbers_are_per_cent_or_left_out():
    for row in published():
        numbers = [row[column] for column in ("clean", "c15", "mCE") if column in row]
        assert all(re.fullmatch(r"\d\d\.\d\d?(?: \(c18\))?|–", number) for number in numbers), row
        assert set(numbers) != {"–"}
        assert re.fullmatch(r"[1-4](?: \+ attack)?", row["passes"])


def test_each_configuration_is_there_and_has_the_rows_epochs_and_network():
    """Unless it is starred."""
    for row in published():
        for path in re.findall(r"configs/[\w./]+", row["ours"]):
            assert (ROOT / path).is_file(), row
        if row["ours"] == "–" or r"\*" in row["ours"]:
            continue
        path, *options = re.findall("`(.+?)`", row["ours"])
        config = parse_config(["--config", of_checkout(path), *shlex.split(" ".join(options))], "test", "")
        assert (config.train.epochs, config.model.name) == (int(row["epochs"]), NETWORKS[row["network"]]), row
        assert config.data.name == {"ImageNet": "folder"}.get(row["set"], row["set"].lower().replace("-", "")), row


@pytest.mark.parametrize("name", PAPER_TABLES)
def test_the_papers_rows_are_its_table(name):
    table = json.loads((ROOT / "fastmagn/reporting/paper_results.json").read_text())[PAPER_TABLES[name]]
    for key, method in PAPER.items():
        row = row_of(name, "ResNet-18", method, "MAGN")
        assert (float(row["clean"]), row["c15"]) == (table[key]["clean"], f"{table[key]['mca']:.2f} (c18)")
    outside = ("clean", "mca", "gaussian_blur", "saturate", "spatter", "speckle_noise")
    shared = [number for corruption, number in table["magn_augmix"].items() if corruption not in outside]
    assert len(shared) == 14
    assert f"{statistics.fmean(shared):.2f} on {name}" in " ".join(PAGE.read_text().split())
