"""A policy of one's own from YAML: what it means, and one clear line for each bad field."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

from fastmagn.augment.policies.own import read_policy
from fastmagn.augment.policies.recipe import read_recipe
from fastmagn.augment.policies.table import list_rows
from fastmagn.augment.views import make_views
from fastmagn.config.schema import AugmentConfig
from fastmagn.errors import InputError
from tests.helpers.views import CLEAN_ONLY, as_tensor, params_for

INVERT, IDENTITY = (f"steps:\n  - - {{operation: {name}}}\n" for name in ("invert", "identity"))


@pytest.fixture
def policy_file(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return path

    return write


def test_a_file_is_a_policy_of_steps(policy_file, pictures):
    path = policy_file(
        "interpolation: bilinear\nfill: [10, 20, 30]\nbins: 1\n"
        "steps:\n  - - {operation: rotate, range: [40, 40]}\n  - - {operation: color, range: [0.2, 1]}\n"
    )
    images = pictures(20, 33)
    augment = AugmentConfig(policy=str(path), crop_padding_px=0, rotation_deg=0)
    made = make_views(as_tensor(images), params_for(images, CLEAN_ONLY, augment)).permute(0, 2, 3, 1).numpy()
    for image, view in zip(images, made, strict=True):
        rotated = functional.rotate(
            Image.fromarray(image), 40, interpolation=functional.InterpolationMode.BILINEAR, fill=[10, 20, 30]
        )
        expected = functional.adjust_saturation(rotated, 0.2)
        np.testing.assert_array_equal(view, np.asarray(expected) / np.float32(255))


def test_ranges_bins_signs_and_probabilities(policy_file):
    path = policy_file(
        "bins: 3\nsub_policies:\n"
        "  - - - {operation: shear_x, range: [0, 0.5], signed: true, probability: 0.25}\n"
        "      - {operation: posterize, range: [8, 3]}\n"
        "      - {operation: invert}\n"
        "  - - - {operation: equalize}\n"
    )
    choices, steps = list_rows(read_policy(path).definition, 32, 32)
    assert steps.tolist() == [[[0, 18]], [[18, 1]]]
    sheared = [choice for choice in choices if choice[0] == "shear_x"]
    assert sorted(value for _, value, _ in sheared) == [-0.5, -0.25, 0, 0, 0.25, 0.5]
    assert {probability for *_, probability in sheared} == {0.25}
    assert sorted(value for name, value, _ in choices if name == "posterize") == [3, 3, 6, 6, 8, 8]
    assert sum(name == "invert" for name, *_ in choices) == 6


def test_the_command_line_names_the_file(policy_file):
    path = policy_file("steps: [[{operation: invert}]]")
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    params = params_for(np.zeros((2, 8, 8, 3)), CLEAN_ONLY, AugmentConfig(policy=str(path)))
    assert make_views(images, params).mean() == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3", "expected a mapping of interpolation, fill, bins, steps, sub_policies."),
        ("step: []", "step: is not a field. Did you mean 'steps'? It has interpolation, fill, bins, steps, sub_pol"),
        ("bins: 3", "expected either steps or sub_policies, a list."),
        ("steps: []", "steps: got []; expected a list of 1..64 items."),
        ("bins: 0\nsteps: [[{operation: invert}]]", "bins: got 0; expected 1..256."),
        ("fill: red\nsteps: [[{operation: invert}]]", "fill: got 'red'; expected 0..255, or a list of three such num"),
        (
            "interpolation: cubic\nsteps: [[{operation: invert}]]",
            "interpolation: got 'cubic'; expected nearest or bilinear.",
        ),
        ("steps: [{operation: invert}]", "steps, step 1: got {'operation': 'invert'}; expected a list of 1..64 items."),
        (
            "steps: [[{operation: invrt}]]",
            "steps, step 1, 1: operation: got 'invrt'; expected one of identity, shear_x",
        ),
        (
            "steps: [[{operation: [rotate]}]]",
            "steps, step 1, 1: operation: got ['rotate']; expected one of identity, shear_x",
        ),
        (
            "steps: [[{operation: {rotate: 30}}]]",
            "steps, step 1, 1: operation: got {'rotate': 30}; expected one of identity, shear_x",
        ),
        ("steps: [[{operation: }]]", "steps, step 1, 1: operation: got None; expected one of identity, shear_x"),
        (
            "steps: [[{operation: rotate}]]",
            "steps, step 1, 1: range: got None; expected two numbers in -360..360, in degrees.",
        ),
        (
            "steps: [[{operation: color, range: [0, 20]}]]",
            "steps, step 1, 1: range: got [0, 20]; expected two numbers in 0..10, in factor.",
        ),
        (
            "steps: [[{operation: color, range: [0, 2], signed: true}]]",
            "steps, step 1, 1: signed: got True; expected false: color has no sign.",
        ),
        (
            "steps: [[{operation: invert, range: [0, 2]}]]",
            "steps, step 1, 1: range: got [0, 2]; expected none: invert has no value.",
        ),
        (
            "steps: [[{operation: invert, probability: 2}]]",
            "steps, step 1, 1: probability: got 2; expected 0..1.",
        ),
        (
            "sub_policies: [[[{operation: invert, strength: 2}]]]",
            "sub_policies: 1, step 1, 1: strength: is not a field. It has operation, range, signed, probability.",
        ),
    ],
)
def test_a_bad_field_is_named_in_one_line(policy_file, text, message):
    path = policy_file(text)
    with pytest.raises(InputError) as error:
        read_policy(path)
    assert str(error.value).startswith(f"{path}: {message}")
    assert "\n" not in str(error.value)


def test_a_file_that_changes_does_not_change_the_run_that_has_read_it(policy_file, pictures):
    """Every engine draws what the file said when the run began; the next run reads it anew."""
    augment = AugmentConfig(policy=str(policy_file(INVERT)), crop_padding_px=0, rotation_deg=0)
    images = pictures(20, 33)
    inverted, as_they_are = (torch.from_numpy(pixels / np.float32(255)) for pixels in (255 - images, images))

    def assert_views(expected: torch.Tensor) -> None:
        for backend in ("numba", "pil"):
            made = make_views(as_tensor(images), params_for(images, CLEAN_ONLY, augment), backend)
            assert torch.equal(made, expected.permute(0, 3, 1, 2)), backend

    first = read_recipe(augment)
    assert_views(inverted)
    policy_file(IDENTITY)
    assert_views(inverted)
    assert read_recipe(augment) != first
    assert_views(as_they_are)
