"""benchmarks.augment, tiny: its JSON is strict and complete, its pictures are there; no time is asserted."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import augment as benchmark
from benchmarks import augment_policies
from benchmarks.augment import PUBLIC
from benchmarks.augment_policies import POLICIES, REFERENCE, WHOLE_BATCH
from benchmarks.augmix_rivals import available_rivals
from benchmarks.per_image_augmix import PER_IMAGE, TWO_VIEWS
from fastmagn.augment.params import identity_base, sample_view_params
from fastmagn.augment.views import make_views
from fastmagn.config.schema import AugmentConfig
from fastmagn.errors import InputError


@pytest.mark.slow
def test_json_and_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "TURN_S", 0.0)
    result_path, pictures_path = tmp_path / "results" / "augment.json", tmp_path / "pictures.png"
    arguments = ["--backends", "numba", "--batch_size", "4", "--num_per_image", "4", "--workers", "1", "--rounds", "2"]
    assert benchmark.main([*arguments, "--out", str(result_path), "--pictures", str(pictures_path)]) == 0
    result = json.loads(result_path.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert set(result) == {"benchmark", "command", "environment", "settings", "contenders"}
    assert result["settings"]["batch_size"] == 4
    rows = result["contenders"]
    assert {"numba", "numba, in a step", "Pillow reference", "torchvision v2.AugMix"} <= set(rows)
    assert {PUBLIC, f"{PUBLIC}, out", f"{PUBLIC}, floats", *available_rivals()} <= set(rows)
    for name, row in rows.items():
        assert 0 < row["views_per_s"]["lowest"] <= row["views_per_s"]["median"] <= row["views_per_s"]["highest"]
        assert row["ratio_to_pillow"]["median"] > 0
        assert ("extra_memory_mib" in row) == name.startswith(("numba", PUBLIC))
    assert rows["Pillow reference"]["ratio_to_pillow"] == {"median": 1, "lowest": 1, "highest": 1}
    with Image.open(pictures_path) as page:
        assert min(page.size) > 300
        assert np.asarray(page.convert("L")).std() > 10


def test_only_ours_is_measured_without_a_reference(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "TURN_S", 0.0)
    path = tmp_path / "ours.json"
    arguments = ["--backends", "numba", "--batch_size", "4", "--num_per_image", "4", "--rounds", "1", "--only_ours"]
    assert benchmark.main([*arguments, "--out", str(path)]) == 0
    rows = json.loads(path.read_text())["contenders"]
    assert {name.split(",")[0] for name in rows} == {"numba", PUBLIC}
    assert not any("ratio_to_pillow" in row for row in rows.values())


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_json_of_a_policy(policy, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "TURN_S", 0.0)
    path = tmp_path / "policy.json"
    arguments = ["--batch_size", "4", "--num_per_image", "4", "--workers", "1", "--rounds", "1", "--policy", policy]
    assert benchmark.main([*arguments, "--out", str(path)]) == 0
    result = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))
    rows = result["contenders"]
    assert {"fastmagn", "fastmagn, channels last", REFERENCE, WHOLE_BATCH} <= set(rows)
    assert result["settings"]["policy"] == policy
    assert rows[REFERENCE]["ratio_to_pillow"] == {"median": 1, "lowest": 1, "highest": 1}
    assert "extra_memory_mib" in rows["fastmagn"]


@pytest.mark.parametrize("policy", POLICIES)
def test_timm_and_kornia_are_left_out_where_they_are_not_installed(policy, monkeypatch):
    batch = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    images = np.zeros((2, 8, 8, 3), np.uint8)
    monkeypatch.setattr(augment_policies, "find_spec", lambda name: None)
    contenders = augment_policies.policy_contenders(policy, batch, images, 1)
    ours = ["fastmagn", "fastmagn, channels last", "fastmagn, floats", "fastmagn, out"]
    assert list(contenders) == [*ours, REFERENCE, WHOLE_BATCH]
    assert [contenders[name]() for name in contenders if name != REFERENCE] == [2, 2, 2, 2, 2]


@pytest.mark.parametrize("name", [name for name in PER_IMAGE if not name.startswith("timm")])
def test_per_image_codes_make_two_different_views(name):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    views = PER_IMAGE[name](AugmentConfig(aug_severity=10))(pixels, 3)
    assert views.shape == (2, 32, 32, 3)
    assert views.dtype == torch.float32
    assert 0 <= views.min() <= views.max() <= 1
    assert not torch.equal(views[0], views[1])


def test_the_reference_makes_the_backends_views():
    pixels = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    augment = AugmentConfig()
    params = identity_base(sample_view_params(0, 0, [9], TWO_VIEWS, augment, (32, 32)))
    expected = make_views(torch.from_numpy(pixels)[None].permute(0, 3, 1, 2), params, "numba")[1:]
    made = PER_IMAGE["Pillow reference"](augment)(pixels, 9)
    torch.testing.assert_close(made.permute(0, 3, 1, 2), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "rounds: got 0; expected 1 or more."),
        pytest.param(
            ["--device", "cuda"],
            "device: got 'cuda'; expected cpu: PyTorch finds no CUDA device.",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device"),
        ),
    ],
)
def test_unusable_arguments_are_refused(arguments, message):
    with pytest.raises(InputError) as error:
        benchmark.main(arguments)
    assert str(error.value) == message
