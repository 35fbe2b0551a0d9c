"""The methods that imply a policy, and a policy before any other method."""

import dataclasses

import numpy as np
import pytest
import torch

from fastmagn.augment.params import sample_view_params
from fastmagn.augment.views import choose_engine, make_views
from fastmagn.config.command_line import parse_config
from fastmagn.config.schema import AugmentConfig, Config
from fastmagn.errors import InputError
from fastmagn.methods.table import get_method
from fastmagn.training.run import train
from fastmagn.training.step import make_pieces
from tests.helpers.steps import start_run

METHODS = {
    "trivialaugment": "trivialaugment",
    "randaugment": "randaugment",
    "autoaugment": "autoaugment_cifar10",
    "ta_noise": "trivialaugment",
}
FEW = ["--data.name", "digits", "--model.name", "resnet_small", "--train.batch_size", "32", "--device", "cpu"]


def config_of(*arguments: str) -> Config:
    return parse_config([*FEW, *arguments], "test", "A test.")


@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_on_the_clean_view_under_its_policy(name):
    run = start_run(config_of("--method", name))
    batch = next(run.source.batches(0))
    (piece,) = make_pieces(run, batch, 0)
    method = get_method(name)
    augment = method.settled(run.config.augment)
    assert augment.policy == METHODS[name]
    params = sample_view_params(
        0, 0, batch.indices, method.view_spec(augment), augment, run.image_size, run.image_set.mean
    )  # fmt: skip
    expected = make_views(batch.images, params, "pil")
    torch.testing.assert_close(piece.views, expected, rtol=0, atol=1e-6)
    plain = dataclasses.replace(augment, policy="none", erase_probability=0.0, patch_probability=0.0)
    without = make_views(batch.images, dataclasses.replace(params, augment=plain))
    assert (piece.views != without).flatten(1).any(dim=1).float().mean() > 0.5


def test_a_method_implies_only_what_is_left_at_its_default():
    mine = AugmentConfig(policy="randaugment", erase_probability=0.7, patch_linf=0.3)
    settled = get_method("ta_noise").settled(mine)
    assert (settled.policy, settled.erase_probability, settled.patch_linf) == ("randaugment", 0.7, 0.3)
    assert (settled.erase_max_area, settled.patch_l2, settled.patch_impulse) == (0.4, 5.0, 0.2)
    assert get_method("magn_augmix").settled(mine) == mine


@pytest.mark.parametrize("name", ["standard", "augmix", "magn_augmix"])
def test_a_policy_comes_before_any_method(name):
    """All views of an image start from the one that the policy has changed, but for noise patches."""
    arguments = ["--method", name, "--augment.policy", "trivialaugment", "--augment.erase_probability", "1"]
    run = start_run(config_of(*arguments))
    batch = next(run.source.batches(0))
    (piece,) = make_pieces(run, batch, 0)
    spec, augment = get_method(name).view_spec(run.config.augment), run.config.augment
    params = sample_view_params(0, 0, batch.indices, spec, augment, run.image_size, run.image_set.mean)
    torch.testing.assert_close(piece.views, make_views(batch.images, params, "pil"), rtol=0, atol=1e-6)


@pytest.mark.parametrize("backend", ["kornia", "dali"])
def test_other_engines_refuse_a_policy(backend):
    with pytest.raises(InputError) as error:
        choose_engine(backend, torch.device("cpu"), with_recipe=True)
    assert str(error.value) == (
        f"augment.backend: got '{backend}'; expected auto, numba or pil with a policy, erasing or noise patches."
    )


def test_images_on_cuda_get_their_policy_there():
    pytest.importorskip("numba_cuda", reason="needs numba-cuda: install 'fastmagn[test]'")
    assert choose_engine("auto", torch.device("cuda"), with_recipe=True).device == "cuda"
    assert choose_engine("pil", torch.device("cuda"), with_recipe=True).device == "cpu"
    assert choose_engine("pil", torch.device("cuda"), with_recipe=True).backend == "pil"


def test_a_policy_that_does_not_exist_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(InputError, match=r"augment\.policy: got 'trivialaugmnt'; .* Did you mean 'trivialaugment'\?"):
        AugmentConfig(policy="trivialaugmnt")
    config = config_of("--augment.policy", str(tmp_path / "mine.yaml"), "--run_dir", str(tmp_path / "run"))
    with pytest.raises(InputError, match=r"mine\.yaml: expected a YAML file"):
        train(config)
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_draws_what_the_first_one_would():
    """Views are a function of epoch and sample: what a run draws in epoch 1 does not depend on epoch 0."""
    config = config_of("--method", "ta_noise")
    views = []
    for epochs in ([0, 1], [1]):
        run = start_run(config)
        for epoch in epochs:
            (piece,) = make_pieces(run, next(run.source.batches(epoch)), epoch)
        views.append(piece.views)
    assert torch.equal(*views)
    assert np.isfinite(views[0].numpy()).all()
