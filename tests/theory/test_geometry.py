"""measure_geometry against exact matrices and plain loops, and the theory command."""

import json
import re
import shutil
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fastmagn.config.schema import Config, DataConfig
from fastmagn.config.text import to_yaml
from fastmagn.data import load_images
from fastmagn.errors import InputError
from fastmagn.models import build_model
from fastmagn.runs.checkpoint import save_checkpoint
from fastmagn.runs.paths import last_checkpoint
from fastmagn.runs.progress import Progress
from fastmagn.theory import GeometryConfig, command, measure_geometry
from fastmagn.theory.curvature import fisher_matrix, hessian_matrix
from fastmagn.theory.probes import Purpose, noise_levels, rademacher, standard_normal
from fastmagn.theory.report import compare, geometry_markdown
from fastmagn.theory.runs import _check_same_images
from tests.helpers.report_folders import write_run

LABELS = torch.arange(12) % 4
SMALL = GeometryConfig(num_noise=5, num_probes=400, num_iterations=200, batch_size=5)


@pytest.fixture(scope="module")
def network(make_network):
    return make_network(nn.GELU())


@pytest.fixture(scope="module")
def images(make_images):
    return make_images(12)


@pytest.fixture(scope="module")
def measured(network, images):
    return measure_geometry(network, images, LABELS, SMALL)


def plain_loss(network: nn.Module, image: torch.Tensor, label: int) -> float:
    with torch.no_grad():
        return float(nn.functional.cross_entropy(network(image[None]), torch.tensor([label])))


def test_fisher_and_hessian_are_those_of_the_whole_matrices(network, images, measured):
    fisher = fisher_matrix(network, images).numpy()
    hessian = hessian_matrix(network, images, LABELS).whole.numpy()
    np.testing.assert_allclose(measured["fisher_trace"], np.trace(fisher, axis1=1, axis2=2), rtol=1e-12)
    np.testing.assert_allclose(measured["fisher_largest_eigenvalue"], np.linalg.eigvalsh(fisher)[:, -1], rtol=1e-10)
    traces = np.trace(hessian, axis1=1, axis2=2)
    assert (np.abs(measured["hessian_trace"] - traces) < 5 * measured["hessian_trace_error"]).all()
    eigenvalues = np.linalg.eigvalsh(hessian)
    dominant = np.take_along_axis(eigenvalues, np.abs(eigenvalues).argmax(axis=1)[:, None], axis=1)[:, 0]
    found = measured["curvature_error"] < 1e-6 * np.abs(dominant)
    assert found.sum() >= 10
    np.testing.assert_allclose(measured["curvature"][found], dominant[found], rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
def test_labels_may_be_integers_of_any_kind_and_gradients_off(network, images, dtype):
    config = GeometryConfig(num_noise=2, num_probes=2, num_iterations=1, fisher="exact")
    expected = measure_geometry(network, images[:3], LABELS[:3], config)
    with torch.no_grad():
        found = measure_geometry(
            network, images[:3], LABELS[:3].to(dtype), config, indices=np.arange(3, dtype=np.uint8)
        )
    for name, values in expected.items():
        assert np.array_equal(found[name], values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": LABELS.float()}, "labels: got 'float32 [12]'; expected a tensor of integers [M]."),
        ({"labels": torch.eye(12, 4)}, "labels: got 'float32 [12, 4]'; expected a tensor of integers [M]."),
        ({"labels": LABELS > 1}, "labels: got 'bool [12]'; expected a tensor of integers [M]."),
        ({"labels": LABELS.numpy()}, "labels: got 'a ndarray'; expected a tensor of integers [M]."),
        ({"labels": LABELS[:5]}, "labels: got '5 labels'; expected 12, one for each image."),
        ({"labels": LABELS + 3}, "labels: got [3, 4, 5, 6]; expected 0..3, the model's classes."),
        ({"images": np.zeros((12, 1, 4, 4))}, "images: got 'a ndarray'; expected a tensor of floats [M, C, H, W]."),
        ({"images": torch.zeros(12, 4, 4)}, "images: got 'float32 [12, 4, 4]'; expected a tensor of floats"),
        ({"images": torch.zeros(12, 1, 4, 4, dtype=torch.uint8)}, "images: got 'uint8 [12, 1, 4, 4]'; expected"),
        ({"indices": np.arange(3)}, "indices: got 'int64 [3]'; expected 12 integers, one for each image."),
        ({"indices": np.arange(12) / 2}, "indices: got 'float64 [12]'; expected 12 integers, one for each image."),
    ],
)
def test_what_does_not_fit_is_one_line(network, images, change, message):
    given = {"images": images, "labels": LABELS} | change
    with pytest.raises(InputError) as error:
        measure_geometry(network, config=SMALL, **given)
    assert message in str(error.value)


def test_loss_and_gradient_are_those_of_single_images(network, images, measured):
    for i, (image, label) in enumerate(zip(images, LABELS.tolist(), strict=True)):
        leaf = image[None].clone().requires_grad_()
        nn.functional.cross_entropy(network(leaf), torch.tensor([label])).backward()
        assert measured["gradient_norm"][i] == pytest.approx(float(leaf.grad.norm()), rel=1e-12)
        assert measured["loss"][i] == pytest.approx(plain_loss(network, image, label), rel=1e-12)
        assert measured["correct"][i] == float(int(network(image[None]).argmax()) == label)
    network.zero_grad(set_to_none=True)


def test_deviations_bound_and_regulariser_are_those_of_plain_loops(network, images, measured):
    indices = np.arange(12)
    sigmas = noise_levels(images, 5, 0.2, indices, 0)
    for i, (image, label) in enumerate(zip(images, LABELS.tolist(), strict=True)):
        deviations, bounds, divergences = [], [], []
        for draw in range(5):
            delta = 0.1 * standard_normal(images, Purpose.DEVIATION, draw, indices, 0)[i]
            deviations.append(abs(plain_loss(network, image + delta, label) - plain_loss(network, image, label)))
            size = float(delta.norm())
            bounds.append(size * measured["gradient_norm"][i] + abs(measured["curvature"][i]) * size**2 / 2)
            noisy = image + sigmas[draw, i] * standard_normal(images, Purpose.REGULARISER, draw, indices, 0)[i]
            with torch.no_grad():
                p, q = (torch.softmax(network(x[None])[0], dim=0).tolist() for x in (image, noisy))
            divergences.append(sum(a * np.log(a / b) for a, b in zip(p, q, strict=True)))
        assert measured["loss_deviation_mean"][i] == pytest.approx(statistics.mean(deviations), rel=1e-9)
        assert measured["loss_deviation_max"][i] == pytest.approx(max(deviations), rel=1e-9)
        assert measured["loss_bound_mean"][i] == pytest.approx(statistics.mean(bounds), rel=1e-9)
        inside = statistics.mean(float(a <= b) for a, b in zip(deviations, bounds, strict=True))
        assert measured["loss_bound_share"][i] == pytest.approx(inside)
        assert measured["noise_kl"][i] == pytest.approx(statistics.mean(divergences), rel=1e-9)
        assert measured["noise_kl_error"][i] == pytest.approx(statistics.stdev(divergences) / 5**0.5, rel=1e-9)
    np.testing.assert_allclose(measured["noise_kl_small_noise"], 0.04 / 6 * measured["fisher_trace"], rtol=1e-12)


def test_an_image_is_measured_alike_in_any_batch(network, images, measured):
    other = GeometryConfig(num_noise=5, num_probes=400, num_iterations=200, batch_size=64)
    for again, rows in (
        (measure_geometry(network, images, LABELS, other), slice(None)),
        (measure_geometry(network, images[7:], LABELS[7:], SMALL, indices=np.arange(7, 12)), slice(7, 12)),
    ):
        assert again.keys() == measured.keys()
        for name, values in again.items():
            assert values.dtype == np.float64
            np.testing.assert_allclose(values, measured[name][rows], rtol=1e-7, atol=1e-10, err_msg=name)


def test_another_seed_draws_anew(network, images, measured):
    other = measure_geometry(network, images, LABELS, GeometryConfig(num_noise=5, num_probes=400, seed=1))
    assert (other["hessian_trace"] != measured["hessian_trace"]).all()
    assert (other["loss_deviation_mean"] != measured["loss_deviation_mean"]).all()
    assert (other["noise_kl"] != measured["noise_kl"]).all()


def test_estimates_agree_with_the_exact_fisher_information(network, images, measured):
    estimate = GeometryConfig(num_noise=5, num_probes=400, num_iterations=200, fisher="estimate")
    other = measure_geometry(network, images, LABELS, estimate)
    errors = np.abs(other["fisher_trace"] - measured["fisher_trace"])
    assert (errors < 5 * other["fisher_trace_error"]).all()
    gaps = np.abs(other["fisher_largest_eigenvalue"] - measured["fisher_largest_eigenvalue"])
    assert (gaps <= other["fisher_eigenvalue_error"] + 1e-9 * measured["fisher_largest_eigenvalue"]).all()


@pytest.mark.parametrize("fisher", ["exact", "estimate"])
def test_fused_attention_is_measured_as_plain_products_are(fisher, make_transformer, images):
    config = GeometryConfig(num_noise=3, num_probes=4, num_iterations=5, fisher=fisher)
    found, expected = (measure_geometry(make_transformer(fused), images, LABELS, config) for fused in (True, False))
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6, atol=1e-9, err_msg=name)
    assert torch.backends.mha.get_fastpath_enabled()


def test_the_model_is_left_as_it_was(make_network, images):
    network = make_network(nn.ReLU())
    network.train()
    network[1].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network(images).sum().backward()
    gradients = [parameter.grad.clone() for parameter in network.parameters()]
    measure_geometry(network, images, LABELS, GeometryConfig(num_noise=2, num_probes=2, num_iterations=2))
    assert [module.training for module in network] == [True, False, *[True] * 5]
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        assert torch.equal(parameter.grad, gradient)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not images.requires_grad


def test_directions_are_normal_independent_of_the_batch_and_apart(images):
    like = torch.empty(50, 3, 16, 16)
    indices = np.arange(50)
    normals = standard_normal(like, Purpose.DEVIATION, 0, indices, 0)
    assert abs(float(normals.mean())) < 4 / 38400**0.5
    assert abs(float(normals.square().mean()) - 1) < 4 * (2 / 38400) ** 0.5
    torch.testing.assert_close(standard_normal(like[3:4], Purpose.DEVIATION, 0, indices[3:4], 0), normals[3:4])
    signs = [
        rademacher(like, purpose, draw, indices, 0)
        for purpose in (Purpose.FISHER_PROBE, Purpose.HESSIAN_PROBE)
        for draw in (0, 1)
    ]
    table = torch.stack(signs).flatten(1)
    assert set(table.unique().tolist()) == {-1.0, 1.0}
    correlations = table @ table.T / 38400
    assert (correlations - torch.eye(4)).abs().max() < 4.5 / 38400**0.5
    sigmas = noise_levels(like, 100, 0.2, indices, 0)
    assert 0 <= float(sigmas.min()) < 0.001
    assert 0.199 < float(sigmas.max()) <= 0.2
    assert abs(float(sigmas.mean()) - 0.1) < 4 * 0.2 / 12**0.5 / 5000**0.5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_noise": 1}, r"num_noise: got 1; expected 2\.\.65536"),
        ({"num_probes": 1}, r"num_probes: got 1; expected 2\.\.65536"),
        ({"num_iterations": 0}, r"num_iterations: got 0; expected 1 or more"),
        ({"noise_sigma": 0.0}, r"noise_sigma: got 0\.0; expected a number above 0"),
        ({"sigma_max": -1.0}, r"sigma_max: got -1\.0; expected a number above 0"),
        ({"batch_size": 0}, r"batch_size: got 0; expected 1 or more"),
        ({"seed": -1}, r"seed: got -1; expected 0\.\.2\^64 - 1"),
        ({"fisher": "guess"}, r"fisher: got 'guess'; expected exact or estimate"),
    ],
)
def test_settings_out_of_range_are_named(fields, message):
    with pytest.raises(InputError, match=message):
        GeometryConfig(**fields)


def test_images_that_cannot_be_measured_are_named(network, images):
    with pytest.raises(InputError, match="images: got 'none'; expected at least one"):
        measure_geometry(network, images[:0], LABELS[:0])
    with pytest.raises(InputError, match="labels: got '11 labels'; expected 12, one for each image"):
        measure_geometry(network, images, LABELS[:11])
    broken = images.clone()
    broken[8] = torch.nan
    with pytest.raises(InputError, match="got nan at image 8; expected a finite number"):
        measure_geometry(network, broken, LABELS, GeometryConfig(num_noise=2, num_probes=2, num_iterations=2))


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A folder with runs `first` and `second`: untrained networks of two seeds."""
    folder = tmp_path_factory.mktemp("theory")
    image_set = load_images("digits", "data")
    for seed, name in enumerate(("first", "second")):
        model = build_model("resnet_small", num_classes=10, mean=image_set.mean, std=image_set.std, seed=seed)
        path = last_checkpoint(folder / name)
        save_checkpoint(
            path,
            step=1,
            model=model.state_dict(),
            progress=Progress(epoch=1),
            config={},
            data_fingerprint="none",
            optimizer={},
            scaler={},
        )
        (folder / name / "config.yaml").write_text(to_yaml(Config(run_dir=folder / name, device="cpu")))
    return folder


QUICK = ["--num_images", "7", "--num_noise", "2", "--num_probes", "2", "--num_iterations", "2", "--device", "cpu"]


def strict_json(path: Path) -> dict:
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


@pytest.fixture(scope="module")
def report(runs):
    out = runs / "report"
    assert command.main([str(runs / "first"), str(runs / "second"), "--out", str(out), *QUICK]) == 0
    return out


def test_the_command_writes_what_it_measured(runs, report):
    geometry = strict_json(report / "geometry.json")
    assert (geometry["dataset"], geometry["num_images"], geometry["settings"]["num_noise"]) == ("digits", 7, 2)
    assert "torch" in geometry["environment"]
    assert list(geometry["runs"]) == ["first", "second"]
    image_set = load_images("digits", "data")
    images = torch.from_numpy(image_set.test_images_u8[:7].transpose(0, 3, 1, 2) / np.float32(255))
    labels = torch.from_numpy(image_set.test_labels[:7])
    for seed, (label, run) in enumerate(geometry["runs"].items()):
        assert run["run_dir"] == str(runs / label)
        model = build_model("resnet_small", num_classes=10, mean=image_set.mean, std=image_set.std, seed=seed)
        expected = measure_geometry(model, images, labels, GeometryConfig(num_noise=2, num_probes=2, num_iterations=2))
        for name, values in run["per_image"].items():
            scale = np.abs(expected[name]).max()
            np.testing.assert_allclose(values, expected[name], rtol=2e-3, atol=2e-4 * scale, err_msg=name)
            summary = run["summary"][name]
            assert summary["mean"] == pytest.approx(statistics.fmean(values))
            assert summary["median"] == pytest.approx(statistics.median(values))
            quartiles = statistics.quantiles(values, n=4, method="inclusive")
            assert [summary["lower_quartile"], summary["upper_quartile"]] == pytest.approx([quartiles[0], quartiles[2]])


def test_the_command_compares_with_the_first_run_image_by_image(report):
    first, second = strict_json(report / "geometry.json")["runs"].values()
    assert "against_first" not in first
    for name, compared in second["against_first"].items():
        of_both = [run["per_image"][name] for run in (second, first)]
        pairs = list(zip(*(map(abs, values) if name == "curvature" else values for values in of_both), strict=True))
        assert compared["share_below"] == pytest.approx(sum(a < b for a, b in pairs) / 7), name
        ratio = statistics.median(a for a, _ in pairs) / (statistics.median(b for _, b in pairs) or 1)
        assert compared["ratio_of_medians"] is None or compared["ratio_of_medians"] == pytest.approx(ratio)


def test_curvatures_are_compared_by_their_size():
    """A curved network may have negative ones, which are no smoother."""
    first, second = {"curvature": np.array([3.0, 4.0, 5.0])}, {"curvature": np.array([-50.0, 2.0, 60.0])}
    assert compare(second, first)["curvature"] == {"ratio_of_medians": 12.5, "share_below": pytest.approx(1 / 3)}


def test_the_command_writes_a_table_and_a_figure(report):
    table = (report / "geometry.md").read_text()
    assert "G is exact; Tr(H) by 2 probes, its eigenvalues by 2 products with the matrix." in table
    run = strict_json(report / "geometry.json")["runs"]["second"]
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| ")]
    assert rows[0] == ["| quantity", "first", "second |"]
    (trace,) = [row for row in rows if row[0] == "| Tr(G), equation (8)" and "[" in row[1]]
    assert trace[2].startswith(f"{run['summary']['fisher_trace']['median']:.3g} [")
    assert all(line.count("|") in (4, 0) for line in table.splitlines())
    with Image.open(report / "geometry.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert min(pixels.shape[:2]) > 800
    for colour in ((0x1F, 0x77, 0xB4), (0xFF, 0x7F, 0x0E)):  # each run's curve is there
        assert (np.abs(pixels.astype(int) - colour).max(axis=2) < 8).sum() > 500
    assert (report / "geometry.svg").read_text().lstrip().startswith("<?xml")
    assert sorted(path.name for path in report.iterdir()) == [f"geometry.{end}" for end in ("json", "md", "png", "svg")]


def test_names_of_run_folders_are_shown_literally_in_the_table(report):
    geometry = strict_json(report / "geometry.json")
    geometry["runs"] = dict(zip(("a|b", "<img src=x>"), geometry["runs"].values(), strict=True))
    table = geometry_markdown(geometry)
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    assert rows[0] == r"| quantity | a\|b | \<img src=x> |"
    assert r"| quantity | \<img src=x>: ratio of medians | \<img src=x>: images below |" in rows
    assert r"Against a\|b, image by image." in table
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4}
    assert not re.search(r"(?<!\\)<", table)


def test_runs_of_one_name_are_told_apart_by_their_paths(runs, tmp_path):
    for parent in ("a", "b"):
        shutil.copytree(runs / "first", tmp_path / parent / "run")
    folders = [str(tmp_path / parent / "run") for parent in ("a", "b")]
    assert command.main([*folders, "--out", str(tmp_path / "out"), *QUICK]) == 0
    both = strict_json(tmp_path / "out" / "geometry.json")["runs"]
    assert list(both) == folders
    assert both[folders[0]]["per_image"] == both[folders[1]]["per_image"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--out", "out"], "nowhere: no such folder; expected the folder of a run."),
        (["first", "untrained", "--out", "out"], "last.pt: no such checkpoint; expected a run folder with a trained"),
        (["first", "damaged", "--out", "out"], "last.pt: does not end with a checksum"),
        (["first", "misnamed", "--out", "out"], "its weights do not fit this model"),
        (
            ["first", "cifar", "--out", "out"],
            "runs: got digits (first), cifar10 (cifar); expected runs of one data set",
        ),
        (
            ["cats", "sized", "--out", "out"],
            "runs: got data.image_size 224 (cats), 64 (sized); expected runs of one data.image_size, to be measured",
        ),
        (
            ["cats", "resized", "--out", "out"],
            "runs: got data.eval_resize_px 256 (cats), 300 (resized); expected runs of one data.eval_resize_px",
        ),
        (["cats", "birds", "--out", "out"], "birds (birds); expected runs of one data.dir, or --data_dir, to be"),
        (["cats", "birds", "--out", "out", "--data_dir", "nowhere"], "nowhere: no such folder; expected"),
        (["first", "other_classes", "--out", "out"], "whose class 0 is '0'; expected 'bird 0', as in other_classes"),
        (["first", "first", "--out", "out"], "runs: got 'first'; expected each run once"),
        (["first", "--out", "first/config.yaml"], "out: got 'first/config.yaml'; expected a folder, new or not"),
        (["first", "--out", "out", "--num_images", "600"], "num_images: got 600; expected 0..599"),
        (["first", "--out", "out", "--num_images", "-1"], "num_images: got -1; expected 0 (all) or more"),
        (["first", "--out", "out", "--num_probs", "3"], "--num_probs"),
        (["first"], "--out: required; --help says what to give."),
        (["--out", "out"], "RUNS: required; --help says what to give."),
    ],
)
def test_the_command_names_what_it_cannot_use(arguments, message, runs, monkeypatch, tmp_path):
    shutil.copytree(runs / "first", tmp_path / "first")
    edits = {
        "misnamed": ("resnet_small", "resnet18"),
        "cifar": ("name: digits", "name: cifar10"),
        **dict.fromkeys(("cats", "birds", "sized", "resized"), ("name: digits\n", "name: folder\n")),
    }
    for name in ("untrained", "damaged", "other_classes", *edits):
        shutil.copytree(runs / "second", tmp_path / name)
    shutil.rmtree(tmp_path / "untrained" / "checkpoints")
    last_checkpoint(tmp_path / "damaged").write_bytes(b"damaged")
    for name, (old, new) in edits.items():
        path = tmp_path / name / "config.yaml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
    for name, old, new in (
        ("sized", "image_size: 224", "image_size: 64"),
        ("resized", "eval_resize_px: 0", "eval_resize_px: 300"),
        ("cats", "  dir: .*", "  dir: cats"),
        ("birds", "  dir: .*", "  dir: birds"),
    ):
        path = tmp_path / name / "config.yaml"
        path.write_text(re.sub(rf"(?m){old}$", new, path.read_text()))
    write_run(tmp_path / "results", data="digits")
    results = json.loads((tmp_path / "results" / "results.json").read_text())
    results["class_names"] = [f"bird {number}" for number in range(10)]
    (tmp_path / "other_classes" / "results.json").write_text(json.dumps(results))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        command.main(arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "sections",
    [
        [DataConfig(name="cifar10", dir=Path("a"), image_size=32), DataConfig(name="cifar10", dir=Path("b"))],
        [DataConfig(name="folder", dir=Path("a")), DataConfig(name="folder", dir=Path("a"), eval_resize_px=256)],
    ],
)
def test_runs_on_the_same_images_are_measured_together(sections):
    """CIFAR's images have one size, and 0 means 256 px for images of 224."""
    _check_same_images({str(number): Config(data=data) for number, data in enumerate(sections)}, None)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("test_shards", ("a.parquet", "b.parquet")),
        ("image_column", ("left", "right")),
        ("label_column", (None, "fine")),
    ],
)
def test_runs_on_other_shards_or_columns_are_not_measured_together(field, values):
    configs = {v or "none": Config(data=DataConfig(name="hf", dir=Path("a"), **{field: v})) for v in values}
    with pytest.raises(
        InputError, match=rf"runs: got data\.{field} .*; expected runs of one data\.{field}, to be measured"
    ):
        _check_same_images(configs, None)
