"""Flip probability, Fourier heat map and adapted batch normalisation against plain loops, and what is refused."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import nn

import fastmagn.evaluation.cells as cells
from fastmagn.config.command_line import parse_config
from fastmagn.config.eval_schema import EvalConfig
from fastmagn.corruptions import CORRUPTION_SETS, PERTURBATIONS, corrupt
from fastmagn.corruptions.sequences import perturb
from fastmagn.data import load_images
from fastmagn.data.subset import even_subset
from fastmagn.errors import InputError
from fastmagn.evaluate import main
from fastmagn.evaluation.fourier import basis_image, evaluate_fourier, map_frequencies
from fastmagn.evaluation.measure import evaluate
from fastmagn.evaluation.perturbations import evaluate_perturbations, find_flips
from fastmagn.evaluation.protocols import check_protocols, evaluate_adapted
from fastmagn.evaluation.subset import Subset
from fastmagn.machine.processes import World
from fastmagn.models.batchnorm import batch_statistics
from fastmagn_kernels.random import rng
from tests.helpers.philox import philox_reference
from tests.helpers.run_folders import make_run

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits():
    return load_images("digits", "data")


class Lines(nn.Module):
    """A small network that tells the digits a little apart."""

    def __init__(self, seed: int = 0, norm: bool = False) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.filters, self.classes = nn.Conv2d(3, 8, 5, stride=3), nn.Linear(8 * 10 * 10, 10)
        self.norm = nn.BatchNorm2d(8) if norm else nn.Identity()

    def forward(self, images):
        return self.classes(self.norm(self.filters(images)).relu().flatten(1))


def plain_prediction(model: Lines, image: np.ndarray) -> int:
    """The class of an image, float64 [H, W, 3] in [0, 1], alone, in double precision."""
    pixels = torch.tensor(image, dtype=torch.float64).permute(2, 0, 1)[None]
    with torch.no_grad():
        return int(model.double()(pixels).argmax())


def test_flip_probability_is_that_of_a_plain_loop(digits):
    """The loops of the published measure: compare with the last frame, or with the first if frames have no order."""
    model, images_u8 = Lines().eval(), digits.test_images_u8
    config = EvalConfig(num_images=5, perturbations=True, corruption_seed=3, batch_size=40)
    results = evaluate_perturbations(Lines(), images_u8, digits.test_labels, config, device=CPU)
    probabilities = []
    for name in PERTURBATIONS:
        per_video = []
        for video in perturb(images_u8[:5], name, seed=3):
            previous, flips = plain_prediction(model, video[0] / 255), []
            for frame in video[1:]:
                now = plain_prediction(model, frame / 255)
                flips.append(int(now != previous))
                previous = previous if name in ("gaussian_noise", "shot_noise") else now
            per_video.append(flips)
        assert results["flips_by_frame"][name] == pytest.approx(np.mean(per_video, axis=0))
        assert results["flip_probability"][name] == pytest.approx(np.mean([np.mean(flips) for flips in per_video]))
        probabilities.append(results["flip_probability"][name])
    assert results["mean_flip_probability"] == pytest.approx(np.mean(probabilities))
    assert max(probabilities) > 0.05
    assert (results["num_images"], results["source"]) == (5, {"seed": 3})
    assert results["subset"] == {"chosen": "first", "of": len(images_u8)}


def test_flips_are_from_the_frame_before_or_from_the_first():
    predicted = np.array([[1, 2, 2, 1], [3, 3, 3, 3]])
    assert find_flips(predicted, from_first=False).tolist() == [[True, False, True], [False] * 3]
    assert find_flips(predicted, from_first=True).tolist() == [[True, True, False], [False] * 3]


def test_a_published_set_is_read(digits, tmp_path, capsys):
    images_u8, labels = digits.test_images_u8[:6], digits.test_labels[:6]
    for name in ("tilt", "shot_noise"):
        np.save(tmp_path / f"{name}.npy", perturb(images_u8, name, seed=9))
    stored = EvalConfig(num_images=4, perturbations=True, perturbed_dir=tmp_path)
    made = dataclasses.replace(stored, perturbed_dir=None, corruption_seed=9)
    read, expected = (
        evaluate_perturbations(Lines(), images_u8, labels, config, device=CPU) for config in (stored, made)
    )
    assert list(read["flip_probability"]) == ["shot_noise", "tilt"]
    for name in ("tilt", "shot_noise"):
        assert read["flips_by_frame"][name] == expected["flips_by_frame"][name]
    assert read["mean_flip_probability"] is None
    assert read["source"] == {"dir": str(tmp_path)}
    assert "does not hold gaussian_noise, motion_blur" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (None, "holds no sequence; a -P set holds gaussian_noise.npy and nine more"),
        (np.zeros((6, 4, 16, 16, 3), np.uint8), r"got uint8 \[6, 4, 16, 16, 3\]; expected uint8 \[6, 2 frames or more"),
        (np.zeros((5, 4, 32, 32, 3), np.uint8), r"got uint8 \[5, 4, 32, 32, 3\]"),
        (np.zeros((6, 32, 32, 3), np.uint8), r"got uint8 \[6, 32, 32, 3\]"),
        (np.zeros((6, 4, 32, 32, 3), np.float32), "got float32"),
    ],
)
def test_a_set_that_does_not_fit_is_one_line(array, message, digits, tmp_path):
    if array is not None:
        np.save(tmp_path / "tilt.npy", array)
    config = EvalConfig(perturbations=True, perturbed_dir=tmp_path)
    with pytest.raises(InputError, match=message):
        evaluate_perturbations(Lines(), digits.test_images_u8[:6], digits.test_labels[:6], config, device=CPU)


class Faulty(Lines):
    """Black images, such as spatter has without water, have no answer."""

    def forward(self, images):
        dark = images.amax(dim=(1, 2, 3)) == 0
        return super().forward(images).masked_fill(dark[:, None], float("nan"))


def test_a_logit_that_is_not_finite_makes_its_measures_null(digits, capsys):
    images_u8, labels = digits.test_images_u8[:4], digits.test_labels[:4]
    flips = evaluate_perturbations(Faulty(), images_u8, labels, EvalConfig(), device=CPU)
    assert flips["flip_probability"]["spatter"] is None
    assert flips["flips_by_frame"]["spatter"] is None
    assert flips["flip_probability"]["motion_blur"] is not None
    assert flips["mean_flip_probability"] is None
    assert "logits are not finite for spatter." in capsys.readouterr().out


@pytest.mark.parametrize(("height", "width"), [(32, 32), (9, 9), (8, 7)])
def test_a_basis_image_has_norm_1_and_two_frequencies(height, width):
    for down in map_frequencies(height):
        for across in map_frequencies(width):
            image = basis_image(down, across, height, width)
            assert np.linalg.norm(image) == pytest.approx(1)
            spectrum = np.abs(np.fft.fft2(image))
            own, opposite = (down % height, across % width), (-down % height, -across % width)
            assert spectrum[own] == pytest.approx(spectrum[opposite])
            assert spectrum[own] > 0.6 * np.sqrt(height * width)
            spectrum[own] = spectrum[opposite] = 0
            assert spectrum.max() < 1e-9 * height * width


def test_a_map_needs_square_images():
    images_u8 = np.zeros((4, 16, 12, 3), np.uint8)
    with pytest.raises(InputError, match="images_u8: got 'images of 16 x 12 px'; expected square ones"):
        evaluate_fourier(Lines(), images_u8, np.zeros(4, np.int64), EvalConfig(fourier=True), device=CPU)


def test_a_map_needs_labels_of_the_models_classes(digits):
    labels = np.array([7, 8, 99, 7])
    with pytest.raises(InputError, match=r"labels: got '7\.\.99'; expected 0\.\."):
        evaluate_fourier(Lines(), digits.test_images_u8[:4], labels, EvalConfig(fourier=True), device=CPU)


def test_the_map_is_that_of_a_plain_loop(digits):
    """Each image alone in float64, with the authors' spectrum of 1/2 + i/2 and conjugate, and the drawn signs."""
    images_u8, labels = digits.test_images_u8[:60], digits.test_labels[:60]
    norm, seed = 7.0, 2
    config = EvalConfig(fourier=True, fourier_images=20, fourier_norm=norm, batch_size=6, corruption_seed=seed)
    results = evaluate_fourier(Lines(), images_u8, labels, config, device=CPU)
    assert (results["num_images"], results["norm"], results["seed"]) == (20, norm, seed)
    assert results["frequencies"] == list(range(-16, 16))
    error, model = np.array(results["error"]), Lines().eval()
    assert error.shape == (32, 32)
    # The first of each pair of opposite places, row by row, in the map whose frequency 0 is at (16, 16).
    places = [(i, j) for i in range(32) for j in range(32)]
    opposite = {place: tuple(-side % 32 for side in place) for place in places}
    measured = [place for place in places if place <= opposite[place]]
    assert len(measured) == 514
    rows = even_subset(labels, 20, seed)
    for place in [(0, 0), (16, 16), (3, 20), (3, 12), (16, 1), (0, 5), (12, 17)]:
        spectrum = np.zeros((32, 32), complex)
        spectrum[place] += 0.5 + 0.5j
        spectrum[opposite[place]] += 0.5 - 0.5j
        basis = 32 * np.fft.ifft2(np.fft.ifftshift(spectrum)).real
        wrong = []
        for row in rows:
            counter = [0, (rng.STREAM_CORRUPTION << 24) | ((1 << 17) + measured.index(place)), int(row), 0]
            signs = np.array([1 if word >> 31 else -1 for word in philox_reference(counter, [seed, 0])[:3]])
            image = np.clip(images_u8[row] / 255 + norm * basis[..., None] * signs, 0, 1)
            wrong.append(plain_prediction(model, image) != labels[row])
        assert error[place] == error[opposite[place]] == pytest.approx(np.mean(wrong)), place
    assert len(np.unique(error)) > 3
    assert results["mean_error"] == pytest.approx(error.mean())
    assert results["clean_error"] == np.mean(
        [plain_prediction(model, images_u8[row] / 255) != labels[row] for row in rows]
    )


def test_large_images_have_the_63_lowest_frequencies():
    assert map_frequencies(224) == range(-31, 32)
    assert map_frequencies(64) == range(-31, 32)
    assert map_frequencies(63) == range(-31, 32)
    assert map_frequencies(32) == range(-16, 16)


def digits_config(*arguments: str):
    return parse_config(["--eval.batch_norm", "adapt", "--train.amp", "float32", *arguments], "test", "A test.")


def test_adapted_statistics_are_those_of_each_batch(digits):
    """Batches of 4 and 3 of seven images, normalised by hand in float64."""
    model = Lines(norm=True).eval()
    nn.init.uniform_(model.norm.weight)
    model.norm.running_mean += 3.0
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config = digits_config("--eval.num_images", "7", "--eval.batch_size", "5", "--eval.corruption_set", "c15")
    results = evaluate_adapted(model, digits, config, device=CPU, world=World())
    assert results["batch_size"] == 4
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for name, severity in (("clean", 0), ("fog", 5)):
        images_u8 = digits.test_images_u8[:7]
        images_u8 = images_u8 if severity == 0 else corrupt(images_u8, name, severity)
        right = []
        for rows in (slice(0, 4), slice(4, 7)):
            x = torch.tensor(images_u8[rows] / 255).permute(0, 3, 1, 2)
            filtered = nn.functional.conv2d(x, model.filters.weight.double(), model.filters.bias.double(), stride=3)
            mean = filtered.mean(dim=(0, 2, 3), keepdim=True)
            var = ((filtered - mean) ** 2).mean(dim=(0, 2, 3), keepdim=True)
            scale, shift = (value.double().view(1, 8, 1, 1) for value in (model.norm.weight, model.norm.bias))
            hidden = ((filtered - mean) / (var + model.norm.eps).sqrt() * scale + shift).relu().flatten(1)
            logits = hidden @ model.classes.weight.double().T + model.classes.bias.double()
            right += (logits.argmax(dim=1).numpy() == digits.test_labels[:7][rows]).tolist()
        got = results["clean_accuracy"] if severity == 0 else results["corruption_accuracy"][name][severity - 1]
        assert got == pytest.approx(np.mean(right))


class Sizes(Lines):
    """Keeps the sizes of the batches that it is given."""

    def __init__(self) -> None:
        super().__init__(norm=True)
        self.sizes: list[int] = []

    def forward(self, images):
        self.sizes.append(len(images))
        return super().forward(images)


class Alone(World):
    """One of several processes, which does not wait for the others."""

    def gather(self, value):
        return [value]


@pytest.mark.parametrize("chunk_bytes", [1 << 28, 10 * 32 * 32 * 3])
@pytest.mark.parametrize(
    ("num_images", "batch_size", "world", "sizes"),
    [
        (25, 4, Alone(), [4, 4, 4, 4, 3, 3, 3]),  # not six of 4 and one alone
        (24, 4, Alone(), [4] * 6),
        (25, 1000, Alone(), [25]),
        (5, 2, Alone(), [3, 2]),
        (7, 1, Alone(), [3, 2, 2]),
        (101, 50, Alone(rank=0, size=2), [25, 25]),
        (101, 50, Alone(rank=1, size=2), [26, 25]),  # the other's number of batches, so that all are alike
        (5, 1, Alone(rank=1, size=2), [3]),
    ],
)
def test_batches_for_adapted_statistics_differ_by_one(
    digits, monkeypatch, num_images, batch_size, world, sizes, chunk_bytes
):
    """Whether a cell is corrupted as a whole or in chunks of ten images."""
    monkeypatch.setattr(cells, "set_members", lambda *_: ("brightness",))
    monkeypatch.setattr(cells, "CHUNK_BYTES", chunk_bytes)
    model = Sizes()
    config = digits_config("--eval.num_images", str(num_images), "--eval.batch_size", str(batch_size))
    results = evaluate_adapted(model, digits, config, device=CPU, world=world)
    assert model.sizes == sizes * 6  # clean, and brightness at five severities
    assert results["batch_size"] == (26 if num_images == 101 else max(sizes))  # of all processes


def test_batches_of_a_stored_set_are_as_equal(digits, monkeypatch, tmp_path):
    monkeypatch.setattr(cells, "set_members", lambda *_: ("brightness",))
    images_u8 = digits.test_images_u8[:25]
    np.save(tmp_path / "brightness.npy", np.concatenate([corrupt(images_u8, "brightness", s) for s in range(1, 6)]))
    np.save(tmp_path / "labels.npy", np.tile(digits.test_labels[:25], 5))
    arguments = ["--eval.num_images", "25", "--eval.batch_size", "4"]
    made, stored = (
        evaluate_adapted(Sizes(), digits, digits_config(*arguments, *where), device=CPU, world=World())
        for where in ([], ["--eval.corrupted_dir", str(tmp_path)])
    )
    assert stored == made | {"corrupted_as": None}


def test_other_batches_are_of_the_size_that_is_asked_for(digits, monkeypatch):
    monkeypatch.setattr(cells, "set_members", lambda *_: ("brightness",))
    model = Sizes()
    section = EvalConfig(num_images=25, batch_size=4)
    evaluate(model, digits.test_images_u8, digits.test_labels, section, device=CPU)
    assert model.sizes == [4, 4, 4, 4, 4, 4, 1] * 6


def test_the_images_of_a_folder_are_shuffled_for_adapted_statistics():
    labels = np.repeat(np.arange(10), 20)
    rows = Subset("by class", 4, is_shuffled=True).rows(labels, 0)
    assert sorted(rows) == list(range(200))
    assert len(set(labels[rows[:20]])) >= 6
    some = Subset("by class", 4, is_shuffled=True).rows(labels, 50)
    assert sorted(some) == Subset("by class", 4).rows(labels, 50).tolist()


def test_statistics_come_back_after_an_error():
    model = Lines(norm=True)
    mean = model.norm.running_mean
    with pytest.raises(RuntimeError), batch_statistics(model):
        model(torch.zeros(1, 4, 32, 32))
    assert model.norm.running_mean is mean


def test_a_network_without_batch_normalisation_cannot_adapt(digits):
    with pytest.raises(
        InputError, match=r"eval\.batch_norm: got adapt; expected trained, as resnet_small has no batch"
    ):
        check_protocols(Lines(), digits, digits_config(), World())
    one = digits_config("--eval.num_images", "1")
    with pytest.raises(InputError, match=r"eval\.num_images: got 1; expected 2 or more, for batches of two images"):
        check_protocols(Lines(norm=True), digits, one, World())


def test_results_and_the_lines_that_are_printed(tmp_path, capsys):
    run = tmp_path / "run"
    make_run(run, "--train.amp", "float32", "--device", "cpu")
    few = ["--eval.num_images", "3", "--eval.corruption_set", "c15", "--eval.fourier_images", "2"]
    assert main(["--run", str(run), *few, "--perturbations", "--fourier", "--eval.batch_norm", "adapt"]) == 0
    results = json.loads((run / "evaluation.json").read_text())
    printed = capsys.readouterr().out
    assert (
        f"flip probability {100 * results['perturbations']['mean_flip_probability']:.2f} % (gaussian_noise" in printed
    )
    assert "Fourier heat map, l2 norm 4, 2 images: mean error" in printed
    assert "with batch normalisation by batches of 3: clean accuracy" in printed
    assert results["config"]["eval"]["batch_norm"] == "adapt"
    assert all(results[name]["time_s"] > 0 for name in ("perturbations", "fourier", "adapted_batch_norm"))
    assert set(results["adapted_batch_norm"]["corruption_accuracy"]) == set(CORRUPTION_SETS["c15"])
    assert main(["--run", str(run), *few]) == 0
    plain = json.loads((run / "evaluation.json").read_text())
    assert not {"perturbations", "fourier", "adapted_batch_norm"} & set(plain)
    for name in ("clean_accuracy", "mca", "corruption_accuracy", "rms_calibration_error"):
        assert plain[name] == results[name], "the headline does not change"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--logits", "l", "--fourier"], "logits: got eval.fourier with them; expected it with --run or --weights"),
        (["--logits", "l", "--eval.batch_norm", "adapt"], "logits: got eval.batch_norm adapt with them"),
        (["--weights", "w.pt", "--eval.perturbed_dir", "d"], "eval.perturbed_dir: got 'd'; expected none without"),
        (["--weights", "w.pt", "--eval.fourier_norm", "0"], "eval.fourier_norm: got 0.0; expected a number above 0"),
        (["--weights", "w.pt", "--eval.fourier_images", "0"], "eval.fourier_images: got 0; expected 1 or more"),
    ],
)
def test_options_that_cannot_be_used_are_one_line(arguments, message):
    with pytest.raises(InputError, match=message):
        main(arguments)
