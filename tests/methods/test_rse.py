"""RSE: its noise against MAGN's, its ensemble against a loop, and where a run uses it."""

import json
import math

import numpy as np
import pytest
import torch
from scipy import stats

from fastmagn.augment.params import ViewSpec, sample_view_params
from fastmagn.augment.views import make_views
from fastmagn.evaluation.logits import read_logits
from fastmagn.evaluation.measure import predict
from fastmagn.evaluation.run import evaluate_run
from fastmagn.methods.rse import add_noise, noise_ensemble
from fastmagn.methods.table import METHODS, get_method
from fastmagn.methods.test_time import model_for_test
from fastmagn.training.run import train
from tests.helpers.small_runs import small_default as small
from tests.helpers.steps import make_context, random_images

INDICES = [5, 0, 49_999]


def test_noise_is_the_first_noisy_views_at_a_fixed_sigma():
    context = make_context("--augment.rse_sigma", "0.3", indices=INDICES, epoch=2)
    images_u8 = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    spec = ViewSpec(num_augmix_views=0, num_noise_views=1)
    params = sample_view_params(0, 2, np.array(INDICES), spec, context.config.augment, (32, 32))
    clean, noisy = make_views(images_u8, params, "pil").chunk(2)
    normals = (noisy - clean) / torch.from_numpy(params.sigma[0])[:, None, None, None]
    out, _ = add_noise(clean, torch.zeros(3), context)
    torch.testing.assert_close((out - clean) / 0.3, normals, atol=2e-4, rtol=1e-4)


def test_the_ensemble_equals_a_loop_over_draws_and_images():
    context = make_context("--method", "rse", "--eval.rse_draws", "7", "--augment.rse_sigma", "0.2", indices=INDICES)
    model = context.model.eval()
    images = random_images(5)
    ensemble = noise_ensemble(model, context.config, (32, 32))
    assert ensemble.noises.shape == (7, 3, 32, 32)
    with torch.no_grad():
        log_probs = ensemble(images)
        for image, row in zip(images, log_probs, strict=True):
            mean = np.zeros(10)
            for noise in ensemble.noises:
                logits = model((image + noise)[None])[0].double().numpy()
                mean += np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum() / 7
            np.testing.assert_allclose(row.exp().numpy(), mean, rtol=1e-5)
    assert stats.kstest(ensemble.noises.numpy().ravel() / 0.2, "norm").pvalue > 0.01
    assert np.abs(np.corrcoef(ensemble.noises.reshape(7, -1).numpy()) - np.eye(7)).max() < 5 / math.sqrt(3072)


def test_the_ensemble_does_not_depend_on_the_batch_size_or_order():
    context = make_context("--method", "rse", indices=INDICES)
    model = model_for_test(context.model.eval(), context.config, (32, 32))
    images_u8 = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
    options = {"device": torch.device("cpu"), "amp": "float32"}
    whole = predict(model, images_u8, batch_size=10, **options)
    torch.testing.assert_close(predict(model, images_u8, batch_size=3, **options), whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        predict(model, images_u8[::-1], batch_size=4, **options).flip(0), whole, atol=1e-5, rtol=0
    )
    other = make_context("--method", "rse", "--train.seed", "1", indices=INDICES)
    assert not torch.equal(model.noises, model_for_test(context.model, other.config, (32, 32)).noises)


@pytest.mark.parametrize("training", [True, False])
def test_the_ensemble_is_in_its_models_mode(training):
    context = make_context("--method", "rse", indices=INDICES)
    ensemble = model_for_test(context.model.train(training), context.config, (32, 32))
    assert ensemble.training == training
    assert context.model.training == training


def test_only_a_method_with_a_test_time_is_not_measured_as_it_is():
    as_they_are = {method for method in METHODS if get_method(method).test_time is None}
    assert (
        {"standard", "at", "trades", "augmix", "magn", "magn_augmix", "dign"} <= as_they_are <= METHODS.keys() - {"rse"}
    )
    for method in as_they_are:
        context = make_context("--method", method, indices=INDICES)
        assert model_for_test(context.model, context.config, (32, 32)) is context.model


def test_a_run_of_rse_is_measured_by_its_ensemble_both_times(tmp_path):
    run_dir = tmp_path / "run"
    arguments = ("--method", "rse", "--train.max_steps", "2", "--eval.num_images", "4")
    results = train(small(run_dir, *arguments, "--eval.save_logits", "true"))
    _, logits = read_logits(run_dir / "logits")
    np.testing.assert_allclose(np.exp(logits["clean"]).sum(axis=-1), 1, rtol=1e-5)
    again = evaluate_run(run_dir, small(run_dir, *arguments))
    for name in ("clean_accuracy", "mca", "corruption_accuracy", "rms_calibration_error"):
        assert again[name] == results[name]
    assert json.loads((run_dir / "results.json").read_text())["config"]["eval"]["rse_draws"] == 10
