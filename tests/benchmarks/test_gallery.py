"""The pictures of the documentation: that none is missing, and that each shows what its page says."""

import json
import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image
from skimage.measure import block_reduce

from benchmarks.gallery import augmix, corruptions, headline, methods, operations
from benchmarks.gallery.__main__ import HEADLINE, IMAGES
from benchmarks.gallery.numbers import NUMBERS, read_numbers, write_numbers
from benchmarks.gallery.photos import temple
from benchmarks.gallery.strips import CELL_PX, GAP_PX, save, strip
from fastmagn.augment.operations import OPERATIONS as AUGMIX_OPERATIONS
from fastmagn.augment.policies.definitions import OPERATIONS
from fastmagn.corruptions import CORRUPTION_SETS, CORRUPTIONS, PERTURBATIONS, corrupt
from fastmagn.corruptions.sequences import perturb
from fastmagn.errors import InputError
from fastmagn.methods.table import METHODS
from tests.helpers.processes import ROOT
from tests.helpers.report_folders import write_run
from tests.helpers.tiers import slow_but

DOCS = ROOT / "docs"
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
MAX_FILE_BYTES, MAX_BYTES = 250_000, 1_300_000


def page(name: str) -> str:
    return (DOCS / f"gallery_{name}.md").read_text()


def shown_on(path: Path) -> dict[Path, str]:
    """The pictures of a page, each with the text that stands in for it."""
    return {(path.parent / address).resolve(): text for text, address in PICTURE.findall(path.read_text())}


def cells(picture: Image.Image, number: int, side_px: int = CELL_PX) -> list[np.ndarray]:
    """The images of a strip."""
    pixels, step = np.asarray(picture), side_px + GAP_PX
    return [pixels[GAP_PX : GAP_PX + side_px, GAP_PX + i * step :][:, :side_px] for i in range(number)]


def is_stored(name: str, picture: Image.Image, tmp_path: Path, **options: int) -> bool:
    """Whether docs/images holds this picture; another version of libwebp may write it in other bytes."""
    save(picture, tmp_path / "again.webp", **options)
    stored, again = (Image.open(path) for path in (IMAGES / f"{name}.webp", tmp_path / "again.webp"))
    return stored.size == again.size and np.abs(np.asarray(stored, float) - np.asarray(again, float)).mean() < 1


def test_every_corruption_and_sequence_has_its_picture():
    text = page("corruptions")
    assert all(f"### `{name}`\n" in text and f"images/corruptions/{name}.webp" in text for name in CORRUPTIONS)
    assert all(f"images/perturbations/{name}.webp" in text for name in PERTURBATIONS)


def test_every_operation_and_method_has_its_picture():
    text = page("augmentations")
    names = {*OPERATIONS, *(operation.name for operation in AUGMIX_OPERATIONS)}
    assert all(f"| `{name}` |" in text for name in names)
    assert all(f"images/operations/{name}.webp" in text for name in [*operations.graded(), "no_strength"])
    assert all(f"`{name}`" in text for name in METHODS)
    pictured = set(METHODS) - set(methods.WITHOUT_PICTURE)
    assert all(f"images/methods/{name}.webp" in text for name in pictured)


def test_pictures_exist_are_described_and_small():
    shown = {}
    for path in (ROOT / "README.md", *DOCS.rglob("*.md")):
        shown |= shown_on(path)
    assert all(len(text) >= 10 for text in shown.values())
    for path in shown:
        with Image.open(path) as picture:
            picture.load()
    stored = {path for path in IMAGES.rglob("*") if path.is_file()}
    assert set(shown) <= stored
    assert stored - set(shown) <= {IMAGES / f"{HEADLINE}.webp"}, "a picture that no page shows"
    assert max(path.stat().st_size for path in stored) < MAX_FILE_BYTES
    assert sum(path.stat().st_size for path in stored) < MAX_BYTES


def test_both_pages_name_the_photographs_authors_and_licence():
    for name, authors in (("corruptions", ["danielbuechele"]), ("augmentations", ["danielbuechele", "vultilion"])):
        assert all(author in page(name) for author in [*authors, "creativecommons.org/licenses/by/2.0"])
    assert "danielbuechele, CC BY 2.0" in headline.CREDIT


def test_a_cell_is_the_corrupted_photograph(monkeypatch, tmp_path):
    monkeypatch.setattr(corruptions, "CORRUPTIONS", ["fog"])
    monkeypatch.setattr(corruptions, "PERTURBATIONS", ["translate"])
    (_, fog), (_, moved) = corruptions.pictures()
    expected = corrupt(temple()[None], "fog", 3)[0].astype(np.float64)
    np.testing.assert_allclose(cells(fog, 5)[2], block_reduce(expected, (2, 2, 1), np.mean), atol=1)  # it rounds twice
    small = block_reduce(temple().astype(np.float64), (7, 7, 1), np.mean)
    frames = perturb(np.rint(small).astype(np.uint8)[None], "translate")[0]
    last = cells(moved, corruptions.NUM_FRAMES, 64)[-1]
    np.testing.assert_allclose(last, frames[15].repeat(2, axis=0).repeat(2, axis=1), atol=1)
    assert is_stored("corruptions/fog", fog, tmp_path)
    assert is_stored("perturbations/translate", moved, tmp_path)
    assert not is_stored("corruptions/frost", fog, tmp_path)


def test_a_label_that_does_not_fit_is_refused():
    with pytest.raises(AssertionError, match="too long: severity severity"):
        strip([temple()], ["severity severity severity"])


def test_strengths_of_operations():
    assert operations.values_of("rotate") == [0, 33.75, 67.5, 101.25, 135]
    np.testing.assert_allclose(operations.values_of("color"), [0.01, 0.505, 1, 1.495, 1.99], atol=1e-6)
    assert operations.labels_of("posterize", [8, 2]) == ["8 bits", "2 bits"]
    assert operations.labels_of("rotate", [33.75]) == ["33.75°"]
    inverted = operations.changed(temple(), "invert", 0.0)
    np.testing.assert_array_equal(inverted, 255 - temple())
    posterized = operations.changed(temple(), "posterize", 2.0)
    np.testing.assert_array_equal(posterized, temple() // 64 * 64)


def test_the_page_has_augmixs_magnitudes():
    """The largest magnitudes at two strengths, in an image of 100 px; levels stay below the strength."""
    text = page("augmentations")
    for operation in AUGMIX_OPERATIONS:
        row = next(line for line in text.splitlines() if line.startswith(f"| `{operation.name}` |"))
        _, _, at_3, at_10, _, _ = row.split("|")
        for cell, level in ((at_3, 3), (at_10, 10)):
            if operation.unit == "none":
                assert cell.strip() == "–"
            else:
                number = float(re.findall(r"[\d.]+", cell)[-1])
                assert number == pytest.approx(operation.magnitude(level - 1e-9, 100, 100), abs=1e-6), (
                    operation,
                    level,
                )


@pytest.mark.parametrize("aug_severity", augmix.AUG_SEVERITIES)
def test_an_augmix_view_is_the_mixture_of_its_chains(aug_severity):
    params = augmix.drawn(aug_severity)
    clean = temple().astype(np.float64)
    for i, mixture in enumerate(augmix.mixtures(params)):
        mix, weights = float(params.augmix.mix_weight[0, i]), params.augmix.chain_weights[0, i].astype(np.float64)
        chains = sum(weight * chain for weight, chain in zip(weights, augmix.chains(params, i), strict=True))
        np.testing.assert_allclose(mixture, (1 - mix) * clean + mix * chains, atol=0.51)


def test_the_page_says_what_made_the_augmix_views(tmp_path):
    for name, picture, text in augmix.pictures():
        assert f"images/{name}.webp" in page("augmentations")
        assert in_plain_spaces(text) in in_plain_spaces(page("augmentations")), f"{name}: {text}"
        assert is_stored(name, picture, tmp_path)


@pytest.mark.parametrize("name", slow_but(sorted(METHODS.keys() - methods.WITHOUT_PICTURE), "magn", "trivialaugment"))
def test_a_methods_picture_and_text_are_those_of_its_views(name, tmp_path):
    images, labels, texts = methods.views_of(name)
    assert 2 <= len(images) <= methods.NUM_CELLS
    assert all(in_plain_spaces(text) in in_plain_spaces(page("augmentations")) for text in texts), texts
    assert is_stored(f"methods/{name}", strip(images, labels), tmp_path)


def in_plain_spaces(text: str) -> str:
    return " ".join(text.split())


def test_the_numbers_are_whole_and_hold_no_path():
    runs = json.loads(NUMBERS.read_text())["runs"]
    for run in runs:
        table = run["corruption_accuracy"]
        assert tuple(table) == CORRUPTION_SETS["c19"]
        for name, members in CORRUPTION_SETS.items():
            assert run["mca"][name] == pytest.approx(np.mean([table[member] for member in members]), abs=1e-12)
        assert not [word for word in run["command"].split() if word.startswith("/")]
        assert f"--method {run['method']}" in run["command"]


def test_readmes_picture_shows_the_numbers(tmp_path):
    baseline, best = read_numbers(NUMBERS)
    assert baseline["method"] == "standard"
    assert best["mca"]["c18"] == max(run["mca"]["c18"] for run in json.loads(NUMBERS.read_text())["runs"][1:])
    picture = headline.headline(baseline, best)
    lowest = headline.darkest([baseline, best])
    place = (headline._MAPS_PX[0] + 4 * headline._CELL_PX + 2, headline._TOP_PX + 9 * headline._ROW_PX + 2)
    shade = np.floor(16 * (baseline["corruption_accuracy"]["fog"][4] - lowest) / (1 - lowest))
    purple = 0.08 + 0.92 * (1 - shade / 15)
    expected = 255 * np.array(mpl.colormaps["Purples"](purple)[:3])
    np.testing.assert_allclose(picture.getpixel(tuple(headline.SCALE * x for x in place)), expected, atol=3)
    assert is_stored(HEADLINE, picture, tmp_path, quality=headline.QUALITY)


def test_readmes_picture_is_of_the_best_run(tmp_path):
    means = {"standard": 0.7, "augmix": 0.8, "magn": 0.75}
    runs = [write_run(tmp_path / name, mean, method=name) for name, mean in means.items()]
    write_numbers(runs, tmp_path / "numbers.json")
    baseline, best = read_numbers(tmp_path / "numbers.json")
    assert (baseline["method"], best["method"]) == ("standard", "augmix")
    assert best["mca"]["c18"] == pytest.approx(0.8)
    assert str(tmp_path) not in (tmp_path / "numbers.json").read_text()
    other = write_run(tmp_path / "other", method="trades", network="densenet121")
    with pytest.raises(InputError, match="other: network: got 'densenet121'; expected resnet18, as "):
        write_numbers([*runs, other], tmp_path / "numbers.json")
    with pytest.raises(InputError, match=r"runs: got .*; expected one of standard too"):
        write_numbers(runs[1:], tmp_path / "numbers.json")
    write_numbers(runs[:1], tmp_path / "numbers.json")
    with pytest.raises(InputError, match=r"runs: got .*; expected another method too"):
        read_numbers(tmp_path / "numbers.json")


def test_a_picture_is_saved_to_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        save(strip([temple()], ["image"]), tmp_path / "folder" / f"{name}.webp")
    assert (tmp_path / "folder" / "one.webp").read_bytes() == (tmp_path / "folder" / "two.webp").read_bytes()
