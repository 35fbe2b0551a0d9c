"""ImageNet-C as published, a tree of JPEG files: measured against plain loops in float64 over what Pillow decodes."""

import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import fastmagn.evaluation.measure as measure_module
from fastmagn.config.eval_schema import EvalConfig
from fastmagn.corruptions import CORRUPTION_SETS
from fastmagn.data.files.on_demand import LazyImages, chunks
from fastmagn.errors import InputError
from fastmagn.evaluation.logits import read_logits
from fastmagn.evaluation.measure import evaluate, predict, summarise_logits
from fastmagn.evaluation.metrics.accuracy import ALEXNET_ERROR, alexnet_normalised_error

CPU = torch.device("cpu")
CLASSES = ("n01440764", "n01443537", "n01484850")
IMAGES_PER_CLASS = (4, 3, 5)
LABELS = np.repeat(np.arange(3), IMAGES_PER_CLASS)
SIDE = 24


class ChannelMeans(nn.Module):
    """Logits that a loop can repeat: the mean of each channel."""

    def forward(self, images):
        return 20 * images.mean(dim=(2, 3))


def make_cell(cell: Path, generator: np.random.Generator, side: int = SIDE) -> None:
    for class_name, count in zip(CLASSES, IMAGES_PER_CLASS, strict=True):
        (cell / class_name).mkdir(parents=True)
        for i in range(count):
            pixels = generator.integers(0, 256, (side, side, 3)) * generator.uniform(0.6, 1, 3)
            Image.fromarray(pixels.astype(np.uint8)).save(cell / class_name / f"ILSVRC2012_val_{i:08}.JPEG", quality=95)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """All 19 corruptions of 12 images."""
    tree, generator = tmp_path_factory.mktemp("imagenet-c"), np.random.default_rng(0)
    for name in CORRUPTION_SETS["c19"]:
        for severity in range(1, 6):
            make_cell(tree / name / str(severity), generator)
    return tree


@pytest.fixture
def own_tree(tmp_path):
    """Two corruptions, to be damaged."""
    for name in ("fog", "brightness"):
        for severity in range(1, 6):
            make_cell(tmp_path / "set" / name / str(severity), np.random.default_rng(severity))
    return tmp_path / "set"


def clean_images() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (12, SIDE, SIDE, 3), dtype=np.uint8)


def measure(tree: Path, class_names=CLASSES, labels=LABELS, **settings) -> dict:
    config = EvalConfig(corrupted_dir=tree, **{"batch_size": 5, "num_bins": 4} | settings)
    return evaluate(ChannelMeans(), clean_images(), labels, config, device=CPU, class_names=class_names)


def plain_outcomes(cell: Path, limit: int = 99, only: str = "*") -> list[tuple[bool, float]]:
    """(right, confidence) of a cell's images, or of those of `only` one class, one at a time."""
    outcomes = []
    for label, class_name in enumerate(CLASSES):
        if only not in ("*", class_name):
            continue
        for path in sorted((cell / class_name).glob("*.JPEG")):
            pixels = np.asarray(Image.open(path).convert("RGB")).astype(np.float64) / 255
            logits = [20 * pixels[:, :, c].mean() for c in range(3)]
            exponentials = [math.exp(value) for value in logits]
            best = max(range(3), key=lambda k: logits[k])
            outcomes.append((best == label, exponentials[best] / sum(exponentials)))
    return outcomes[:limit]


def accuracy_of(outcomes: list[tuple[bool, float]]) -> float:
    return sum(right for right, _ in outcomes) / len(outcomes)


@pytest.mark.parametrize("num_images", [0, 7])
def test_accuracies_and_calibration_equal_plain_loops(tree, num_images):
    measured = measure(tree, num_images=num_images)
    pooled, means = [], {}
    for name in CORRUPTION_SETS["c19"]:
        cells = [plain_outcomes(tree / name / str(severity), num_images or 99) for severity in range(1, 6)]
        assert measured["corruption_accuracy"][name] == pytest.approx([accuracy_of(cell) for cell in cells]), name
        means[name] = sum(map(accuracy_of, cells)) / 5
        pooled += [o for cell in cells for o in cell] if name in CORRUPTION_SETS["c18"] else []
    for name, members in CORRUPTION_SETS.items():
        assert measured["mca"][name] == pytest.approx(sum(means[member] for member in members) / len(members))
    total = 0.0
    for i in range(4):
        members = [o for o in pooled if i / 4 <= o[1] < (i + 1) / 4 or (i == 3 and o[1] == 1)]
        if members:
            gap = accuracy_of(members) - sum(confidence for _, confidence in members) / len(members)
            total += len(members) / len(pooled) * gap**2
    assert measured["rms_calibration_error"]["corrupt"] == pytest.approx(math.sqrt(total), abs=1e-6)
    assert "mce_alexnet" not in measured  # three classes are not ImageNet's


def test_archives_in_folders_of_their_own_are_found(tree, tmp_path):
    archives = ("noise", "blur", "weather", "digital", "my own")
    groups = {name: archives[i % len(archives)] for i, name in enumerate(CORRUPTION_SETS["c19"])}
    for name, group in groups.items():
        (tmp_path / group).mkdir(exist_ok=True)
        (tmp_path / group / name).symlink_to(tree / name)
    assert measure(tmp_path) == measure(tree)


def test_a_part_of_the_corruptions_leaves_its_sets_unmeasured(own_tree, capsys):
    measured = measure(own_tree)
    assert list(measured["corruption_accuracy"]) == ["fog", "brightness"]
    mean = sum(sum(values) / 5 for values in measured["corruption_accuracy"].values()) / 2
    assert measured["mca"] == {"c15": None, "c18": None, "c19": None, "measured": pytest.approx(mean)}
    printed = " ".join(capsys.readouterr().out.split())
    assert "warning: gaussian_noise, shot_noise," in printed
    assert "left out, and with it every mCA that needs it" in printed


def test_other_sizes_are_resized_and_cut(tmp_path):
    make_cell(tmp_path / "1", np.random.default_rng(0), side=36)
    paths = sorted((tmp_path / "1").rglob("*.JPEG"))
    images_u8 = np.asarray(LazyImages(paths, SIDE))
    for path, image_u8 in zip(paths, images_u8, strict=True):
        expected = Image.open(path).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(image_u8, np.asarray(expected))
    cut = np.asarray(LazyImages(paths, 24, resize_px=36))
    np.testing.assert_array_equal(cut[0], np.asarray(Image.open(paths[0]))[6:30, 6:30])


def test_a_slice_decodes_its_files_only_and_chunks_are_the_whole(tmp_path):
    make_cell(tmp_path, np.random.default_rng(0))
    files = LazyImages(sorted(tmp_path.rglob("*.JPEG")), SIDE)
    whole = np.asarray(files)
    assert files.shape == whole.shape == (12, SIDE, SIDE, 3)
    np.testing.assert_array_equal(np.asarray(files[3:9][1:4]), whole[4:7])
    for size in (1, 5, 12, 50):
        pieces = list(chunks(files, size))
        assert [len(piece) for piece in pieces] == [len(whole[i : i + size]) for i in range(0, 12, size)]
        np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_memory_holds_two_chunks_not_the_cell(tmp_path):
    image = tmp_path / "image.png"
    Image.new("RGB", (256, 256), "red").save(image)
    files = LazyImages([image] * 300, 256)  # 59 MB decoded
    tracemalloc.start()
    predict(ChannelMeans(), files, device=CPU, amp="float32", batch_size=10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12e6  # a chunk is 2 MB


def test_an_unreadable_file_is_left_out_of_its_corruption(own_tree, tmp_path, capsys):
    name = "ILSVRC2012_val_00000001.JPEG"
    damaged = own_tree / "fog" / "3" / CLASSES[1] / name
    damaged.write_bytes(damaged.read_bytes()[:300])
    measured = measure(own_tree)
    accuracies = []
    for severity in range(1, 6):
        (own_tree / "fog" / str(severity) / CLASSES[1] / name).unlink()
        accuracies.append(accuracy_of(plain_outcomes(own_tree / "fog" / str(severity))))
    assert measured["corruption_accuracy"]["fog"] == pytest.approx(accuracies)
    cell = plain_outcomes(own_tree / "brightness" / "2")
    assert measured["corruption_accuracy"]["brightness"][1] == pytest.approx(accuracy_of(cell))
    of_class = {class_name: [] for class_name in CLASSES}
    for name in ("fog", "brightness"):
        for severity in range(1, 6):
            for class_name, means in of_class.items():
                means.append(accuracy_of(plain_outcomes(own_tree / name / str(severity), only=class_name)))
    assert measured["class_accuracy"]["class_names"] == list(CLASSES)
    assert measured["class_accuracy"]["num_images"] == np.bincount(LABELS).tolist()
    assert measured["class_accuracy"]["corrupt"] == pytest.approx([sum(means) / 10 for means in of_class.values()])
    printed = " ".join(capsys.readouterr().out.split())
    assert "warning: image files cannot be read: 1 of fog. They are left out at all severities" in printed


def test_logits_are_kept_unless_a_file_is_unreadable(own_tree, tmp_path):
    config = EvalConfig(corrupted_dir=own_tree)
    options = {"device": CPU, "class_names": CLASSES, "logits_dir": tmp_path / "logits"}
    evaluate(ChannelMeans(), clean_images(), LABELS, config, **options)
    labels, logits = read_logits(tmp_path / "logits")
    np.testing.assert_array_equal(labels, LABELS)
    assert logits["fog"].shape == (5, 12, 3)
    (own_tree / "fog" / "3" / CLASSES[1] / "ILSVRC2012_val_00000001.JPEG").write_bytes(b"none")
    evaluate(ChannelMeans(), clean_images(), LABELS, config, **options | {"logits_dir": tmp_path / "others"})
    assert [path.name for path in tmp_path.iterdir() if path != own_tree] == ["logits"]


def remove(path: Path) -> None:
    for file in sorted(path.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    path.rmdir()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda tree: (tree / "fog" / "4").rename(tree / "fog" / "6"),
            "fog: has severities 6; expected folders 1 to 5 in it, or some of them",
        ),
        (
            lambda tree: [remove(path) for path in (tree / "fog").iterdir()],
            "fog: has no severities; expected folders 1 to 5 in it",
        ),
        (
            lambda tree: (
                (tree / "mine" / "fog").mkdir(parents=True) or (tree / "fog" / "4").rename(tree / "mine/fog/4")
            ),
            "mine/fog: also in",
        ),
        (
            lambda tree: remove(tree / "fog" / "4" / CLASSES[1]),
            "fog/4: lacks class folders n01443537; expected the 3 classes of",
        ),
        (lambda tree: (tree / "fog" / "2" / "n9").mkdir(), "fog/2: has foreign class folders n9; expected the 3"),
        (
            lambda tree: (tree / "fog" / "5" / CLASSES[0] / "ILSVRC2012_val_00000000.JPEG").unlink(),
            "fog/5/n01440764: holds 3 images; expected 4, as many as the test set has of this class.",
        ),
        (lambda tree: [remove(path) for path in tree.iterdir()], "one of image files, CORRUPTION/SEVERITY/CLASS/IMAGE"),
    ],
)
def test_what_is_missing_is_one_clear_line(own_tree, damage, message):
    damage(own_tree)
    with pytest.raises(InputError) as error:
        measure(own_tree)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_class_without_test_images_has_no_folder(own_tree):
    for folder in own_tree.glob(f"*/*/{CLASSES[1]}"):
        remove(folder)
    kept = LABELS != 1
    config = EvalConfig(corrupted_dir=own_tree)
    options = {"device": CPU, "class_names": CLASSES}
    measured = evaluate(ChannelMeans(), clean_images()[kept], LABELS[kept], config, **options)
    for severity in range(1, 6):
        expected = accuracy_of(plain_outcomes(own_tree / "fog" / str(severity)))
        assert measured["corruption_accuracy"]["fog"][severity - 1] == pytest.approx(expected)


def test_test_images_in_another_order_are_refused(own_tree):
    with pytest.raises(
        InputError, match=r"eval\.corrupted_dir: got a set of image files, whose images are in the order"
    ):
        measure(own_tree, labels=LABELS[::-1].copy())


def test_alexnet_itself_has_an_mce_of_one():
    """The 15 errors to three digits are those of table 1 of Hendrycks and Dietterich, ICLR 2019."""
    table = {name: [1 - error] * 5 for name, error in ALEXNET_ERROR.items()}
    assert alexnet_normalised_error(table) == pytest.approx(1, abs=1e-12)
    assert tuple(ALEXNET_ERROR) == CORRUPTION_SETS["c15"]
    published = (88.6, 89.4, 92.3, 82.0, 82.6, 78.6, 79.8, 86.7, 82.7, 81.9, 56.5, 85.3, 64.6, 71.8, 60.7)
    assert [100 * error for error in ALEXNET_ERROR.values()] == pytest.approx(published, abs=0.051)


def test_mce_is_the_mean_of_the_errors_ratios():
    generator = np.random.default_rng(0)
    table = {name: generator.uniform(0, 1, 5).tolist() for name in CORRUPTION_SETS["c19"]}
    ratios = [(5 - sum(table[name])) / 5 / ALEXNET_ERROR[name] for name in CORRUPTION_SETS["c15"]]
    assert alexnet_normalised_error(table) == pytest.approx(sum(ratios) / 15, abs=1e-12)
    del table["snow"]
    assert alexnet_normalised_error(table) is None


def test_sets_of_as_many_classes_as_imagenet_get_the_mce(tree, own_tree, monkeypatch):
    assert measure_module.IMAGENET_CLASSES == 1000
    monkeypatch.setattr(measure_module, "IMAGENET_CLASSES", 3)
    measured = measure(tree, corruption_set="c15")
    errors = {name: 1 - sum(measured["corruption_accuracy"][name]) / 5 for name in CORRUPTION_SETS["c15"]}
    expected = sum(errors[name] / ALEXNET_ERROR[name] for name in errors) / 15
    assert measured["mce_alexnet"] == pytest.approx(expected)
    assert measure(own_tree)["mce_alexnet"] is None


def test_stored_logits_keep_the_mce(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(measure_module, "IMAGENET_CLASSES", 3)
    config, logits = EvalConfig(corrupted_dir=tree, corruption_set="c15"), tmp_path / "logits"
    options = {"device": CPU, "class_names": CLASSES, "logits_dir": logits}
    measured = evaluate(ChannelMeans(), clean_images(), LABELS, config, **options)
    again = summarise_logits(logits, EvalConfig())
    assert again["mce_alexnet"] == measured["mce_alexnet"] > 0
    for damaged in ('["mce"]', '"mce_alexnet"', "[", "[[]]"):
        (logits / "measures.json").write_text(damaged)
        with pytest.raises(InputError, match=r"measures\.json: damaged \(.*\)\. Store the logits again\.$"):
            summarise_logits(logits, EvalConfig())
    (logits / "measures.json").unlink()
    assert "mce_alexnet" not in summarise_logits(logits, EvalConfig())
