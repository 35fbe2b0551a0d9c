"""Methods: losses against float64 loops, and every method through its own training step."""

import functools
import math

import numpy as np
import pytest
import torch

from fastmagn.config.schema import AugmentConfig, LossConfig
from fastmagn.data import ImageSet, load_images
from fastmagn.methods.method import LogitViews, split_logits
from fastmagn.methods.table import METHODS, get_method
from fastmagn.training.run import train
from fastmagn.training.step import make_pieces, train_step
from tests.helpers.plain_losses import LABELS, kl_row, softmax_row
from tests.helpers.small_runs import assert_same_weights, measures_little, rows, weights, without_times
from tests.helpers.small_runs import small_default as small
from tests.helpers.steps import start_run, take_steps
from tests.helpers.tiers import slow_but

FAST = ["--train.amp", "float32", "--train.batch_size", "16"]


def random_logits(count: int, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [3 * torch.randn(len(LABELS), 10, generator=generator) for _ in range(count)]


def probabilities(logits: torch.Tensor) -> list[list[float]]:
    return [softmax_row(row) for row in logits.tolist()]


@pytest.mark.parametrize("seed", range(3))
def test_trades_equals_equation_3(seed):
    clean, adversarial = random_logits(2, seed)
    cross_entropy = divergence = 0.0
    for p, q, label in zip(probabilities(clean), probabilities(adversarial), LABELS.tolist(), strict=True):
        cross_entropy -= math.log(p[label]) / len(LABELS)
        divergence += kl_row(p, q) / len(LABELS)
    logits = LogitViews(clean, adversarial=(adversarial,))
    loss, parts = get_method("trades").loss(logits, LABELS, LossConfig(trades_weight=2.5))
    assert loss.item() == pytest.approx(cross_entropy + 2.5 * divergence, rel=1e-5)
    assert parts["cross_entropy"].item() == pytest.approx(cross_entropy, rel=1e-5)
    assert parts["adversarial_divergence"].item() == pytest.approx(divergence, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("method", "kind"), [("at", "adversarial"), ("rse", "noisy")])
def test_at_and_rse_are_the_cross_entropy_of_their_only_view(method, kind, smoothing):
    (view,) = random_logits(1, 0)
    expected = 0.0
    for p, label in zip(probabilities(view), LABELS.tolist(), strict=True):
        spread = sum(math.log(one) for one in p) / len(p)
        expected -= ((1 - smoothing) * math.log(p[label]) + smoothing * spread) / len(LABELS)
    weights = LossConfig(label_smoothing=smoothing)
    loss, parts = get_method(method).loss(LogitViews(view[:0], **{kind: (view,)}), LABELS, weights)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert parts.keys() == {"cross_entropy"}


@pytest.mark.parametrize("num_noisy", [1, 2, 4])
def test_dign_is_cross_entropy_and_the_divergence_of_all_draws(num_noisy):
    clean, *noisy = random_logits(1 + num_noisy, num_noisy)
    cross_entropy = divergence = 0.0
    for i, label in enumerate(LABELS.tolist()):
        views = [softmax_row(view[i].tolist()) for view in (clean, *noisy)]
        mixture = [sum(column) / len(views) for column in zip(*views, strict=True)]
        cross_entropy -= math.log(views[0][label]) / len(LABELS)
        divergence += sum(kl_row(view, mixture) for view in views) / len(views) / len(LABELS)
    loss, parts = get_method("dign").loss(
        LogitViews(clean, noisy=tuple(noisy)), LABELS, LossConfig(consistency_weight=2)
    )
    assert loss.item() == pytest.approx(cross_entropy + 2 * divergence, rel=1e-5)
    assert parts["jensen_shannon"].item() == pytest.approx(divergence, rel=1e-5)


@pytest.mark.parametrize("method", ["mixup", "cutmix"])
def test_soft_targets_weigh_the_classes(method):
    (clean,) = random_logits(1, 0)
    targets = torch.rand(len(LABELS), 10, generator=torch.Generator().manual_seed(1))
    targets /= targets.sum(dim=1, keepdim=True)
    expected = 0.0
    for p, target in zip(probabilities(clean), targets.tolist(), strict=True):
        expected -= sum(t * math.log(q) for t, q in zip(target, p, strict=True)) / len(LABELS)
    loss, _ = get_method(method).loss(LogitViews(clean), targets, LossConfig())
    assert loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("method", "kinds"),
    [
        ("standard", (1, 0, 0, 0, 0)),
        ("at", (0, 0, 0, 1, 0)),
        ("trades", (1, 0, 0, 1, 0)),
        ("rse", (0, 0, 1, 0, 0)),
        ("augmix", (1, 2, 0, 0, 0)),
        ("magn", (1, 0, 3, 0, 0)),
        ("magn_augmix", (1, 2, 3, 0, 0)),
        ("cutmix", (1, 0, 0, 0, 0)),
        ("dign", (1, 0, 3, 0, 0)),
        ("afa", (1, 0, 0, 0, 1)),
        ("afa_augmix", (1, 1, 0, 0, 1)),
        ("noisymix", (1, 2, 0, 0, 0)),
    ],
)
def test_what_a_method_forwards_is_split_in_its_order(method, kinds):
    layout = get_method(method).layout(AugmentConfig(num_noise_samples=3))
    assert tuple(layout) == kinds
    fused = torch.arange(float(layout.num_views)).repeat_interleave(4)[:, None].expand(-1, 10)
    logits = split_logits(fused, layout)
    clean = (logits.clean,) if len(logits.clean) else ()
    split = (clean, logits.augmix, logits.noisy, logits.adversarial, logits.augmented)
    assert tuple(len(views) for views in split) == kinds
    assert [view[0, 0].item() for views in split for view in views] == list(range(layout.num_views))
    assert all(view.shape == (4, 10) for views in split for view in views)


@pytest.fixture(scope="module")
def cifar10(data_dir) -> ImageSet:
    return load_images("cifar10", data_dir)


@pytest.mark.data
@pytest.mark.parametrize("bn_views", ["joint", "per_view"])
@pytest.mark.parametrize("method", METHODS)
def test_two_steps_on_real_images_have_finite_losses_and_gradients(method, bn_views, cifar10, tmp_path):
    arguments = ["--method", method, *FAST, "--augment.num_noise_samples", "2", "--model.bn_views", bn_views]
    run = start_run(small(tmp_path, *arguments), cifar10)
    steps = 0

    def check_gradients(optimizer, *_):
        nonlocal steps
        steps += 1
        for name, parameter in run.model.named_parameters():
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().sum() > 0, name

    run.optimizer.register_step_pre_hook(check_gradients)
    batches = run.source.batches(0)
    for step in range(2):
        parts = train_step(run, make_pieces(run, next(batches), epoch=0), step)
        assert all(math.isfinite(part) for part in parts.values())
        assert 0 <= parts["train_accuracy"] <= 1
    assert steps == 2
    assert run.model.training


@pytest.mark.parametrize("method", slow_but(METHODS, "magn_augmix", "at", "noisymix"))
def test_compiled_equals_eager(method, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()  # it counts compilations of one function over all runs of a process
    measured = []
    for compiled in ("false", "true"):
        run = start_run(small(tmp_path, "--method", method, *FAST, "--train.compile", compiled))
        measured.append((take_steps(run, 2), run.model.state_dict()))
    (eager, after_eager), (compiled, after_compiled) = measured
    for parts, expected in zip(compiled, eager, strict=True):
        assert parts == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert len(eager) == 2
    for name, value in after_compiled.items():
        torch.testing.assert_close(value, after_eager[name], rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    "method",
    slow_but(["at", "cutmix", "hybridaugment", "prime", "afa_augmix", "noisymix"], "cutmix", "noisymix"),
)
def test_a_stopped_run_of_a_method_with_draws_goes_on_bit_for_bit(method, tmp_path, monkeypatch):
    measures_little(monkeypatch)

    def run(folder: str, max_steps: int) -> tuple[dict[str, torch.Tensor], list[dict]]:
        steps = ["--attack.steps", "2", "--train.epochs", "1", "--train.max_steps", str(max_steps)]
        train(small(tmp_path / folder, "--method", method, *steps, "--train.batch_size", "16"))
        return weights(tmp_path / folder), without_times(rows(tmp_path / folder))

    whole, whole_rows = run("whole", 4)
    run("parts", 2)
    parts, parts_rows = run("parts", 4)
    assert len(whole_rows) == 1
    assert parts_rows == whole_rows
    assert_same_weights(parts, whole)


@pytest.mark.parametrize("method", ["at", "mixup"])
def test_train_accuracy_is_the_first_views_against_the_likeliest_class(method, tmp_path):
    run = start_run(small(tmp_path, "--method", method, *FAST))
    images = torch.rand(16, 3, 32, 32)
    labels = torch.arange(16) % 10
    targets = labels if method == "at" else torch.nn.functional.one_hot(labels, 10) * 0.6 + 0.04
    _, parts = run.main_stage.forward_loss(images, targets)
    expected = np.mean([row.argmax().item() == label for row, label in zip(run.model(images), labels, strict=True)])
    assert parts["train_accuracy"].item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("method", "more"), [("magn", 3), ("magn_augmix", 3), ("dign", 3), ("standard", 0), ("augmix", 0), ("rse", 0)]
)
def test_noise_samples_are_views_of_magn_and_dign_only(method, more):
    made = [get_method(method).view_spec(AugmentConfig(num_noise_samples=n)).num_views for n in (1, 4)]
    assert made[1] - made[0] == more


def test_more_noise_samples_reach_the_loss(tmp_path):
    """The multi-draw MAGN of the paper's section 3: its consistency is the mean over the draws, in the step itself."""
    run = start_run(small(tmp_path, "--method", "magn", *FAST, "--augment.num_noise_samples", "3"))
    assert run.main_stage.method.layout(run.config.augment).noisy == 3
    views = torch.rand(4 * 16, 3, 32, 32)
    labels = torch.arange(16) % 10
    _, parts = run.main_stage.forward_loss(views, labels)
    clean, *noisy = (probabilities(view) for view in run.model(views).chunk(4))
    expected = np.mean(
        [p[y] * np.mean([kl_row(p, q[i]) for q in noisy]) for i, (p, y) in enumerate(zip(clean, labels, strict=True))]
    )
    assert parts["consistency"].item() == pytest.approx(expected, rel=1e-4)
