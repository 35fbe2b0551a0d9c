"""`evaluate_robustness` of anyone's model, against plain loops and a made -C set."""

import numpy as np
import pytest
import torch
from torch import nn

from fastmagn import corrupt, evaluate_robustness
from fastmagn.corruptions import CORRUPTION_SETS, available_corruptions
from fastmagn.data import load_images
from fastmagn.errors import InputError
from fastmagn.evaluation.corrupted_set import CorruptConfig, make_corrupted_set

NUM_IMAGES = 9


@pytest.fixture(scope="module")
def digits():
    image_set = load_images("digits", "data")
    return image_set.test_images_u8[:NUM_IMAGES], image_set.test_labels[:NUM_IMAGES]


class Brightness(nn.Module):
    """Class 1 where an image's mean, moved to [-1, 1], is above the threshold, else class 0; has no parameters."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, images):
        assert not self.training
        mean = images.mean(dim=(1, 2, 3)) - self.threshold
        return 9 * torch.stack([-mean, mean], dim=1)


def test_accuracies_are_those_of_a_plain_loop(digits):
    images_u8, _ = digits
    means = images_u8.astype(np.float64).mean(axis=(1, 2, 3)) / 255
    threshold = float(np.median(means)) + 1e-4
    labels = (means > threshold).astype(np.int32)
    labels[0] = 1 - labels[0]
    model = Brightness(2 * threshold - 1)
    results = evaluate_robustness(
        model, images_u8, labels, corruption_set="c15", batch_size=4, preprocess=lambda images: 2 * images - 1
    )
    assert model.training
    assert results["num_images"] == NUM_IMAGES
    assert results["clean_accuracy"] == pytest.approx(8 / 9)
    names = [name for name in CORRUPTION_SETS["c15"] if name in available_corruptions()]
    assert list(results["corruption_accuracy"]) == names
    for name in ("fog", "contrast", "jpeg_compression"):
        for severity, accuracy in enumerate(results["corruption_accuracy"][name], start=1):
            made = corrupt(images_u8, name, severity).astype(np.float64).mean(axis=(1, 2, 3)) / 255
            assert accuracy == pytest.approx(np.mean((made > threshold) == labels)), (name, severity)
    assert results["mca"]["c19"] is None


def test_a_made_set_gives_the_same_numbers(digits, tmp_path):
    if "frost" not in available_corruptions():
        pytest.skip("the frost pictures are not installed")
    images_u8, labels = digits
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)).eval()
    make_corrupted_set(CorruptConfig(out=tmp_path / "c", dataset="digits", num_images=NUM_IMAGES, corruption_set="c15"))
    stored = evaluate_robustness(model, images_u8, labels, corrupted_dir=str(tmp_path / "c"), device="cpu")
    assert stored == evaluate_robustness(model, images_u8, labels)
    assert not model.training
    few = evaluate_robustness(model, images_u8, labels, corrupted_dir=tmp_path / "c", num_images=4, subset="first")
    assert few | {"subset": {"chosen": "all", "of": 4}} == evaluate_robustness(model, images_u8[:4], labels[:4])
    even = evaluate_robustness(model, images_u8, labels, corrupted_dir=tmp_path / "c", num_images=4)
    assert even["subset"] == {"chosen": "by class", "of": NUM_IMAGES, "seed": 0}
    assert even == evaluate_robustness(model, images_u8, labels, num_images=4)
    more = np.concatenate([images_u8, images_u8 + 1]), np.concatenate([labels, labels])
    options = {"corrupted_dir": tmp_path / "c", "num_images": NUM_IMAGES}
    assert evaluate_robustness(model, *more, **options, subset="first")["num_images"] == NUM_IMAGES
    with pytest.raises(
        InputError, match=r"c: made of the first 9 of 18 images; \d of the 9 to measure.*subset='first'"
    ):
        evaluate_robustness(model, *more, **options)
    mean = np.mean([stored["corruption_accuracy"][name] for name in CORRUPTION_SETS["c15"]])
    assert stored["mca"]["c15"] == pytest.approx(mean)


SETS = (
    "expected one of c15, c18, c19, cbar, or a corruption such as fog, or several of these joined by +, such as"
    " c15+cbar."
)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"corruption_set": "c16"},
            f"corruption_set: got 'c16'; {SETS} Did you mean 'c19'?",
        ),
        (
            {"corruption_set": ["c15"]},
            f"corruption_set: got ['c15']; {SETS}",
        ),
        ({"corrupted_dir": 15}, "corrupted_dir: got 15; expected a path, or None."),
        ({"num_bins": 0}, "eval.num_bins: got 0; expected 1 or more."),
        ({"labels": [0, 1]}, "labels: got int64 [2]; expected integers, one for each of 9 images."),
        ({"labels": [0.0] * 9}, "labels: got float64 [9]; expected integers, one for each of 9 images."),
        ({"labels": [-1] * 9}, "labels: got -1; expected classes, 0..K-1."),
        (
            {"images_u8": np.zeros((9, 3, 32, 32), np.uint8)},
            "images_u8: got uint8 [9, 3, 32, 32]; expected a NumPy array uint8 [N, H, W, 3], H and W at least 8."
            " images.transpose(0, 2, 3, 1) puts the channels last.",
        ),
        (
            {"images_u8": np.zeros((9, 32, 32, 3), np.float32)},
            "images_u8: got float32 [9, 32, 32, 3]; expected a NumPy array uint8 [N, H, W, 3], H and W at least 8."
            " For floats in [0, 1], (255 * images).round().astype(np.uint8) makes them.",
        ),
    ],
)
def test_unusable_arguments_are_one_line(digits, changed, message):
    images_u8, labels = digits
    arguments = {"images_u8": images_u8, "labels": labels} | changed
    with pytest.raises(InputError) as error:
        evaluate_robustness(Brightness(0.5), **arguments)
    assert str(error.value) == message
