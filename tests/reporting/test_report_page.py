"""The page: what it says is what the runs say, and nothing of a run folder gets out of its place."""

import base64
import hashlib
import io
import json
import math
import re
import struct
import warnings
import zlib
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fastmagn.reporting.document as document
import fastmagn.reporting.page as page
from fastmagn.corruptions import corrupt
from fastmagn.data import load_images, split_validation
from fastmagn.data.subset import even_subset
from fastmagn.machine.hardware import settle_hardware
from fastmagn.reporting.document import make_report, write_report
from fastmagn.reporting.gallery import gallery, images_loader, read_config
from fastmagn.reporting.mistakes import confusions, log_doubt, mistakes, worst
from fastmagn.reporting.runs import read_run
from fastmagn.training.build import build_run
from fastmagn.training.step import make_pieces
from tests.helpers.report_folders import C19, SLOPE, rewrite, with_few, with_protocols, write_logits

SECTIONS = ("summary", "corruptions", "severity", "reliability", "more", "training", "views", "errors")
SECTIONS += ("configuration", "environment", "reproduce")
VOID = {"meta", "link", "img", "br", "source"}


class Element:
    def __init__(self, tag, attributes, parent):
        self.tag, self.attributes, self.parent = tag, attributes, parent
        self.children = []

    def all(self, tag, **attributes):
        """Every element below with this tag and these attributes, in the document's order."""
        wanted = {name.replace("_", "-"): value for name, value in attributes.items()}
        found = []
        for child in self.children:
            if isinstance(child, Element):
                if child.tag == tag and all(child.attributes.get(name) == value for name, value in wanted.items()):
                    found.append(child)
                found += child.all(tag, **attributes)
        return found

    @property
    def text(self):
        parts = [child if isinstance(child, str) else child.text for child in self.children]
        return "".join(parts)


class Tree(HTMLParser):
    """The page as a tree; refuses tags that are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.root = self.at = Element("", {}, None)
        self.feed(text)
        self.close()
        assert self.at is self.root

    def handle_starttag(self, tag, attrs):
        element = Element(tag, dict(attrs), self.at)
        self.at.children.append(element)
        if tag not in VOID:
            self.at = element

    def handle_endtag(self, tag):
        assert self.at.tag == tag
        self.at = self.at.parent

    def handle_data(self, data):
        self.at.children.append(data)


@pytest.fixture
def page_of(tmp_path, monkeypatch):
    """page_of([run, ...]) -> (tree, text) of its page, without drawing the figures."""
    monkeypatch.setattr(document, "to_files", lambda figure: {"png": b"png", "svg": b"<svg/>"})
    monkeypatch.setattr(page, "to_svg", lambda figure, **_: b"<svg/>")

    def make(paths):
        write_report(make_report(paths), tmp_path / "report")
        text = (tmp_path / "report" / "report.html").read_text()
        return Tree(text).root, text

    return make


def rows_of(table):
    """The texts of a table's body, row by row."""
    (body,) = table.all("tbody")
    return [[cell.text.strip() for cell in row.children if isinstance(cell, Element)] for row in body.all("tr")]


def heat_maps(tree):
    return {int(table.attributes["data-heat"]): table for table in tree.all("table") if "data-heat" in table.attributes}


def test_sections_and_contents(fake_run, page_of):
    tree, _ = page_of([fake_run("a"), fake_run("b", method="magn"), fake_run("c", data="digits")])
    ids = [heading.attributes["id"] for heading in tree.all("h3")]
    assert ids == [f"set{number}-{name}" for number in range(2) for name in SECTIONS]
    links = [link.attributes["href"] for link in tree.all("a")]
    assert links == [f"#{name}" for name in ids]
    every_id = [element.attributes["id"] for tag in ("h2", "h3") for element in tree.all(tag)]
    assert len(set(every_id)) == len(every_id)
    header = " ".join(tree.all("header")[0].text.split())
    assert "CIFAR-10: Standard, MAGN on ResNet-18; 2 runs." in header
    assert "Digits: Standard on ResNet-18; 1 run." in header


def test_the_fourier_map_keeps_its_colours_on_a_dark_page(fake_run, page_of):
    tree, page = page_of([with_protocols(fake_run("a")), fake_run("b", method="magn"), fake_run("c", data="digits")])
    drawings = [image.attributes for image in tree.all("img") if "drawing" in image.attributes.get("class", "")]
    kept = [image["alt"].split(",")[0] for image in drawings if "shades" in image["class"].split()]
    assert kept == ["Fourier heat map"]
    assert "Flips along perturbation sequences" in page
    assert page.index("Flips along") < page.index('id="set0-training"')
    assert "Adapted batch normalisation, CIFAR-10" in page
    assert "Adapted batch normalisation, Digits" not in page


def test_heat_maps_are_the_runs_numbers(fake_run, page_of):
    means = {name: 0.5 + 0.01 * i for i, name in enumerate(C19)}
    tree, _ = page_of([fake_run("a", 0.7, clean=0.91), fake_run("b", means, method="magn", clean=0.93)])
    maps = heat_maps(tree)
    assert [table.all("caption")[0].text.strip() for table in maps.values()] == ["Standard", "MAGN"]
    rows = {row[0]: row[1:] for row in rows_of(maps[1])}
    assert len(rows) == 19
    fog = C19.index("fog")
    assert rows["Fog"] == [*(f"{50 + fog + 100 * step:.1f}" for step in SLOPE), f"{50 + fog:.1f}"]
    (difference,) = (table for table in tree.all("table") if "data-difference" in table.attributes)
    assert " ".join(difference.all("caption")[0].text.split()) == "Standard minus MAGN"  # the best opens
    shown = {row[0]: row[1:] for row in rows_of(difference)}
    assert shown["Gaussian noise"] == ["+20.0"] * 6
    assert shown["Saturate"] == ["+2.0"] * 6
    totals = {row.all("th")[0].text: row.all("td")[0].text for row in maps[1].all("tfoot")[0].all("tr")}
    assert totals == {"Clean": "93.0", "mCA c15": "57.0", "mCA c18": "59.5", "mCA c19": "59.0"}


def test_a_mean_over_fewer_severities_has_no_difference(fake_run, page_of):
    whole, few = fake_run("a", 0.7), with_few(fake_run("b", 0.6, method="magn"), {"fog": [1]})
    tree, _ = page_of([whole, few])
    (difference,) = (table for table in tree.all("table") if "data-difference" in table.attributes)
    shown = {row[0]: row[1:] for row in rows_of(difference)}
    assert shown["Fog"] == ["+10.0", "–", "–", "–", "–", "–"]
    assert shown["Snow"] == ["+10.0"] * 6
    assert rows_of(heat_maps(tree)[1])[C19.index("fog")][1:] == ["64.0", "–", "–", "–", "–", "–"]


def test_shades_rise_with_accuracy_and_differ_by_sign(fake_run, page_of):
    tree, _ = page_of([fake_run("a", {"fog": 0.5, "snow": 0.9}), fake_run("b", {"fog": 0.7, "snow": 0.8}, method="at")])

    def shades(table, letter):
        classes = [[cell.attributes["class"] for cell in row.all("td")] for row in table.all("tbody")[0].all("tr")]
        return [[int(re.fullmatch(rf"n {letter}(\d+)", name)[1]) for name in row] for row in classes]

    standard = shades(heat_maps(tree)[0], "s")
    assert all(a >= b for row in standard for a, b in pairwise(row[:5]))  # falls with severity
    assert max(standard[1]) < min(standard[0])  # snow is above fog
    (difference,) = (table for table in tree.all("table") if "data-difference" in table.attributes)
    snow, fog = shades(difference, "d")  # AT minus Standard: -10 and +20 points
    assert set(snow) == {8 - 4}
    assert set(fog) == {8 + 8}


def test_seeds_are_a_mean_with_its_spread(fake_run, page_of):
    tree, _ = page_of([fake_run("a", 0.7), fake_run("b", 0.8, seed=1)])
    (table,) = heat_maps(tree).values()
    assert "mean of 2 seeds" in table.all("caption")[0].text
    cell = table.all("tbody")[0].all("td")[0]
    assert cell.text == "79.0"
    assert cell.attributes["title"] == f"± {100 * 0.1 / math.sqrt(2):.1f} over 2 seeds"
    assert not [element for element in tree.all("table") if "data-difference" in element.attributes]
    assert "Give the command two or more" in tree.text


def test_the_summary_stands_beside_the_papers_numbers(fake_run, page_of):
    runs = [fake_run("a", 0.7747, clean=0.94), fake_run("b", 0.7, method="augmix", clean=0.95)]
    tree, _ = page_of(runs)
    (table,) = (item for item in tree.all("table") if item.all("caption")[0].text.startswith("Clean accuracy, mCA"))
    standard, augmix = rows_of(table)
    assert standard[:6] == ["Standard", "ResNet-18", "1", "94.00", "94.74", "−0.74"]
    assert standard[7:10] == ["77.47", "77.47", "0.00"]
    assert augmix[3:6] == ["95.00", "94.26", "+0.74"]
    best = [element.text for element in table.all("strong")]
    assert best == ["77.47", "77.47", "77.47", "10.00", "95.00", "10.00"], "no clean calibration error"


def test_a_page_asks_nothing_of_anybody(fake_run, page_of):
    run = fake_run("a", data="digits")
    write_logits(run)
    tree, text = page_of([run, fake_run("b", data="digits", method="magn")])
    addresses = [
        element.attributes[name]
        for tag in ("img", "a", "link", "script", "iframe", "object", "source", "form")
        for element in tree.all(tag)
        for name in ("src", "href", "srcset", "data", "action")
        if name in element.attributes
    ]
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    (policy,) = (item.attributes["content"] for item in tree.all("meta") if "http-equiv" in item.attributes)
    assert policy.startswith("default-src 'none'; img-src data:; ")
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        (element,) = tree.all(tag)
        digest = base64.b64encode(hashlib.sha256(element.text.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
        assert "url(" not in element.text
        assert "@import" not in element.text
    assert " style=" not in text


def test_text_of_runs_is_text(fake_run, page_of):
    evil = "<script>alert(1)</script>"
    quoted = '"><img src=x onerror=alert(1)>'
    run = fake_run(quoted.replace("/", "_"), method=evil, data="digits", network=quoted)

    def change(results):
        results["environment"] |= {evil: quoted, "cpu": evil}
        results["config"]["data"]["dir"] = quoted
        results["config"][evil] = {"<b>": evil}

    rewrite(run, change)
    tree, text = page_of([run, fake_run("b", data=evil), Path("<b>nowhere</b>")])
    assert len(tree.all("script")) == 1
    assert "<b>nowhere</b>: no such folder" in " ".join(tree.text.split())
    assert evil not in text
    assert tree.text.count(evil) > 5
    assert not [image for image in tree.all("img") if "onerror" in image.attributes or image.attributes["src"] == "x"]


def test_what_differs_between_configurations(fake_run, page_of):
    runs = [fake_run("a"), fake_run("b", method="magn", fields={"optim.lr": 0.25}), fake_run("c", seed=1)]
    tree, _ = page_of(runs)
    (table,) = (item for item in tree.all("table") if item.all("caption")[0].text.strip() == "Fields that differ")
    assert rows_of(table) == [["method", "standard", "magn"], ["train.seed", "0, 1", "0"], ["optim.lr", "0.1", "0.25"]]
    configs = [element.text for element in tree.all("pre")]
    assert any("lr: 0.25" in text for text in configs)
    assert f"python -m fastmagn.report {' '.join(sorted(map(str, runs)))} --out" in configs[-1]


def plain_doubt(row):
    """log(1 - p) of the greatest of some logits, by exact sums."""
    weights = sorted(math.exp(float(value) - float(max(row))) for value in row)
    return math.log(math.fsum(weights[:-1]) / math.fsum(weights))


def test_worst_errors_against_a_plain_loop():
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 40)
    logits = {name: 3 * random.normal(size=(5, 40, 4)).astype(np.float32) for name in ("fog", "snow", "frost")}
    logits["clean"] = np.zeros((1, 40, 4), np.float32)
    errors = []
    for name in ("fog", "snow", "frost"):
        for severity in range(5):
            for i in range(40):
                row = logits[name][severity][i]
                if row.argmax() != labels[i]:
                    errors.append((plain_doubt(row), name, severity + 1, i, int(row.argmax())))
    taken = []
    for error in sorted(errors):
        same = [other for other in taken if other[1] == error[1]]
        if len(taken) < 8 and len(same) < 3 and all(other[3] != error[3] for other in taken):
            taken.append(error)
    found = worst(labels, logits, 8)
    assert [(one.corruption, one.severity, one.row, one.predicted) for one in found] == [item[1:] for item in taken]
    assert [one.true for one in found] == [labels[item[3]] for item in taken]
    assert [one.log_doubt for one in found] == pytest.approx([item[0] for item in taken])
    assert [one.confidence for one in found] == pytest.approx([1 - math.exp(item[0]) for item in taken])


def worst_by_sorting_all(labels, logits, number):
    """The errors by their doubts, all of which are computed; equal ones by corruption, severity and row."""
    errors = []
    for name, cells in logits.items():
        for severity, cell in enumerate(cells, start=1):
            ordered = np.sort(cell.astype(np.float64), axis=1)
            others = np.logaddexp.reduce(ordered[:, :-1], axis=1)
            doubts = others - np.logaddexp(others, ordered[:, -1])
            rows = [row for row in np.argsort(doubts, kind="stable") if cell[row].argmax() != labels[row]]
            errors += [(float(doubts[row]), name, severity, row, cell[row].argmax()) for row in rows[: number + 3]]
    chosen = []
    for error in sorted(errors, key=lambda error: error[0]):
        same = [other for other in chosen if other[1] == error[1]]
        if len(chosen) < number and len(same) < 3 and all(other[3] != error[3] for other in chosen):
            chosen.append(error)
    return chosen


@pytest.mark.parametrize(
    "kind", ["ties", "one row's classes in other orders", "large", "far apart", "infinite", "no number"]
)
def test_the_worst_errors_are_those_of_a_sort_of_all_also_with_ties(kind):
    random = np.random.default_rng(2)
    labels = random.integers(0, 30, 300)
    for _ in range(5):
        values = random.normal(size=(4, 5, 300, 30)) * {"large": 1e5, "far apart": 1e30}.get(kind, 3)
        if kind == "ties":
            values = values.round()
        elif kind == "one row's classes in other orders":
            values = random.permuted(np.broadcast_to(values[0, 0, 0], values.shape), axis=-1)
        elif kind == "infinite":
            values[random.random(values.shape) < 0.02] = -np.inf
            values[0] = [0, *[-np.inf] * 29]
        elif kind == "no number":
            values[:3, :3, 4:, 4] = np.nan
        logits = dict(zip(("fog", "snow", "frost", "pixelate"), values.astype(np.float32), strict=True))
        with np.errstate(invalid="ignore"):
            found = worst(labels, logits | {"clean": np.zeros((1, 300, 30), np.float32)}, 8)
            expected = worst_by_sorting_all(labels, logits, 8)
        chosen = [(one.log_doubt, one.corruption, one.severity, one.row, one.predicted) for one in found]
        np.testing.assert_equal(chosen, expected)  # equal to the bit; NaN equals NaN


def test_confidences_that_round_to_one_are_still_ordered():
    doubts = log_doubt(np.array([[0.0, 60.0], [0.0, 80.0], [0.0, 70.0]]))
    assert doubts == pytest.approx([-60, -80, -70])


@pytest.mark.parametrize("num_severities", [{"fog": 5, "snow": 5}, {"fog": 2, "snow": 3}])
def test_confusions_against_a_plain_loop(num_severities):
    random = np.random.default_rng(1)
    labels = random.integers(0, 3, 30)
    logits = {name: random.normal(size=(count, 30, 3)).astype(np.float32) for name, count in num_severities.items()}
    counts, num_shown = {}, Counter()
    for name, cells in logits.items():
        for cell in cells:
            for label, row in zip(labels, cell, strict=True):
                num_shown[int(label)] += 1
                if row.argmax() != label:
                    counts.setdefault((int(label), int(row.argmax())), []).append(name)
    found = confusions(labels, logits | {"clean": np.zeros((1, 30, 3))}, 10)
    numbers = {(one.true, one.predicted): one.num_images for one in found}
    assert numbers == {pair: len(all_) for pair, all_ in counts.items()}
    assert list(numbers.values()) == sorted(numbers.values(), reverse=True)
    for one in found:
        names = counts[one.true, one.predicted]
        assert one.share == pytest.approx(len(names) / num_shown[one.true])
        assert names.count(one.corruption.lower()) == max(names.count("fog"), names.count("snow"))


def pixels_of(address):
    prefix = "data:image/png;base64,"
    assert address.startswith(prefix)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.removeprefix(prefix)))))


def test_errors_are_shown_with_the_images_that_were_measured(fake_run):
    folder = fake_run("a", data="digits", fields={"eval.corruption_seed": 7})
    labels, logits = write_logits(folder)
    shown = mistakes(read_run(folder)[0], images_loader())
    assert not shown.note
    assert len(shown.examples) == 12
    images_u8 = load_images("digits", Path()).test_images_u8
    for one, known in zip(shown.examples, worst(labels, logits, 12), strict=True):
        made = corrupt(images_u8[: len(labels)], known.corruption, known.severity, seed=7)[one.row]
        assert np.array_equal(pixels_of(one.corrupted), made)
        assert np.array_equal(pixels_of(one.original), images_u8[one.row])
        assert (one.true, one.predicted) == (str(labels[one.row]), str(known.predicted))


def test_a_picture_that_this_version_corrupts_in_another_way_is_not_shown(fake_run):
    folder = fake_run("a", data="digits")
    write_logits(folder)
    results = json.loads((folder / "results.json").read_text())
    results["corrupted_as"] = {"published": None, "version": 7, "jpeg_quality": None}
    (folder / "results.json").write_text(json.dumps(results))
    shown = mistakes(read_run(folder)[0], images_loader())
    assert len(shown.examples) == 12
    assert {one.corrupted for one in shown.examples} == {""}


def test_logits_that_are_absent_or_of_another_evaluation(fake_run):
    absent = fake_run("a", data="digits")
    note = mistakes(read_run(absent)[0], images_loader()).note
    assert f"python -m fastmagn.evaluate --run {absent} --save_logits" in note
    assert "--eval.save_logits true" in note
    other = fake_run("b", data="digits")
    write_logits(other)

    def change(results):
        *others, last = results["corruption_accuracy"]["fog"]
        results |= {"corruption_accuracy": {"fog": [*others, last + 1 / 60]}, "mca": {}}

    rewrite(other, change)
    note = mistakes(read_run(other)[0], images_loader()).note
    assert "comes from another evaluation than these results (fog differs)" in note
    gone = fake_run("c", data="cifar10")
    write_logits(gone)
    assert "data.dir: looked for CIFAR-10" in mistakes(read_run(gone)[0], images_loader()).note


def test_logits_of_other_classes_or_more_images_cost_their_part_of_the_page(fake_run, page_of):
    """The labels and accuracies agree; the number of classes or of images does not."""
    good, more_classes, more_images = (
        fake_run(method, data="digits", method=method) for method in ("standard", "augmix", "magn")
    )
    write_logits(good)
    write_logits(more_classes, num_classes=20)
    note = mistakes(read_run(more_classes)[0], images_loader()).note
    said = f"{more_classes / 'logits'}: has logits of 20 classes; the 599 test images in digits have 10."
    assert note == f"The worst errors are not shown: {said}"
    write_logits(more_images, num_images=600)
    note = mistakes(read_run(more_images)[0], images_loader()).note
    assert note.endswith("has logits of 600 images; there are 599 test images.")
    _, text = page_of([good, more_classes, more_images])
    assert "has logits of 20 classes" in text
    assert "has logits of 600 images" in text


@pytest.mark.parametrize("stored", [False, True])
def test_errors_of_a_subset_are_shown_with_its_images(stored, fake_run, tmp_path):
    image_set = load_images("digits", Path())
    rows = even_subset(image_set.test_labels, 40, 3)
    fields = {}
    if stored:  # a published set has no manifest and holds all images
        fields = {"eval.corrupted_dir": str(tmp_path / "c")}
        (tmp_path / "c").mkdir()
        np.save(tmp_path / "c" / "labels.npy", image_set.test_labels)
        made = {name: np.random.default_rng(len(name)).integers(0, 256, (5, 599, 32, 32, 3), np.uint8) for name in C19}
        for name, images_u8 in made.items():
            np.save(tmp_path / "c" / f"{name}.npy", images_u8.reshape(-1, 32, 32, 3))
    folder = fake_run("a", data="digits", fields=fields)
    labels, logits = write_logits(folder, rows=rows)
    rewrite(folder, lambda results: results.update(subset={"chosen": "by class", "of": 599, "seed": 3}))
    shown = mistakes(read_run(folder)[0], images_loader())
    assert not shown.note
    for one, known in zip(shown.examples, worst(labels, logits, 12), strict=True):
        row = rows[known.row]
        image = image_set.test_images_u8[row]
        assert one.row == row
        assert np.array_equal(pixels_of(one.original), image)
        if stored:
            corrupted = made[known.corruption][known.severity - 1, row]
        else:
            (corrupted,) = corrupt(image[None], known.corruption, known.severity, indices=np.array([row]))
        assert np.array_equal(pixels_of(one.corrupted), corrupted)
    rewrite(folder, lambda results: results.pop("subset"))
    assert "its labels do not belong to the test images" in mistakes(read_run(folder)[0], images_loader()).note


@pytest.mark.parametrize("method", ["magn_augmix", "cutout", "at"])
def test_views_made_again_are_those_of_the_first_batch(method, fake_run):
    run, _ = read_run(fake_run("a", data="digits", network="resnet_small", method=method))
    shown = gallery(run, images_loader())
    assert not shown.note
    config = settle_hardware(read_config(run))
    image_set = load_images("digits", Path())
    part, _ = split_validation(image_set, 0, 0)
    built = build_run(config, image_set, part)
    batch = next(built.source.batches(0))
    (piece,) = make_pieces(built, batch, 0)
    titles = {"magn_augmix": ["clean", "AugMix 1", "AugMix 2", "noisy"], "cutout": ["Cutout"], "at": ["adversarial"]}
    assert [caption for caption, *_ in shown.pictures][1:] == titles[method]
    first = batch.images[:8].permute(0, 2, 3, 1).numpy()
    assert np.array_equal(images_of_strip(shown.pictures[0][1]), first)
    words = {name: list(texts) for name, texts in shown.made_by.items()}
    assert list(words) == (titles[method] if method == "magn_augmix" else [])  # the others change the views themselves
    assert {len(texts) for texts in words.values()} <= {8}
    if method == "magn_augmix":
        noise = (piece.views.chunk(4)[3] - piece.views.chunk(4)[0])[:8]
        told = [float(text.removeprefix("sigma ")) for text in words["noisy"]]
        assert noise.flatten(1).std(dim=1).tolist() == pytest.approx(told, rel=0.1)
    views = piece.views.chunk(len(piece.views) // len(batch.labels))
    if method == "magn_augmix":
        for (_, address, _), view in zip(shown.pictures[1:], views, strict=True):
            wanted = (255 * view[:8].clamp(0, 1)).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
            assert np.array_equal(images_of_strip(address), wanted)
    else:  # the method changes the clean view
        changed = images_of_strip(shown.pictures[1][1]).astype(int)
        clean = (255 * views[0][:8]).round().permute(0, 2, 3, 1).numpy().astype(int)
        assert (changed != clean).any()
        if method == "at":
            assert abs(changed - clean).max() <= 9  # 8/255, and rounding


def images_of_strip(address):
    pixels = pixels_of(address)
    return np.stack([pixels[:, left : left + 32, :3] for left in range(0, 8 * 34, 34)])


def test_views_that_the_run_has_left(fake_run):
    folder = fake_run("a", data="cifar10")
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(picture).save(folder / "views.png")
    ((caption, address, size),) = gallery(read_run(folder)[0], images_loader()).pictures
    assert "views.png" in caption
    assert size == (30, 20)
    assert np.array_equal(pixels_of(address), picture)
    (folder / "views.png").write_bytes((folder / "views.png").read_bytes()[:200])
    assert "views.png: is not a complete PNG picture" in gallery(read_run(folder)[0], images_loader()).note
    (folder / "views.png").write_text("<svg onload='alert(1)'/>")
    assert "views.png: is not a complete PNG picture" in gallery(read_run(folder)[0], images_loader()).note


@pytest.mark.parametrize(("width", "height"), [(13_000, 13_000), (4096, 4097), (60_000, 60_000)])
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(width, height, fake_run):
    """Its pixels are not even there."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    folder = fake_run("a")
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    (folder / "views.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"x") + chunk(b"IEND", b""))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        note = gallery(read_run(folder)[0], images_loader()).note
    if width == 60_000:  # Pillow's own bound
        assert "views.png: is not a complete PNG picture (Image size (3600000000 pixels) exceeds limit" in note
    else:
        assert f"views.png: has {width} x {height} px; expected at most 16,777,216 pixels. It is not shown." in note


def test_views_that_cannot_be_made(fake_run):
    assert "data.dir: looked for CIFAR-10" in gallery(read_run(fake_run("a"))[0], images_loader()).note
    unknown = fake_run("b", data="digits", method="my_method")
    assert "method: got 'my_method'" in gallery(read_run(unknown)[0], images_loader()).note
    foreign = fake_run("c", data="digits")
    rewrite(foreign, lambda results: results["config"]["augment"].update(colour="red"))
    assert "augment.colour: is not a field of this version." in gallery(read_run(foreign)[0], images_loader()).note
