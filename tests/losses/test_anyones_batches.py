"""MAGNLoss of stacked views, soft labels, rows to ignore and masked classes, against float64 loops."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastmagn import MAGNLoss, jensen_shannon
from fastmagn.errors import InputError
from fastmagn.losses import magn_consistency
from tests.helpers.plain_losses import kl_row, softmax_row

LAMBDA_1, LAMBDA_2 = 2.0, 5.0
LOSS = MAGNLoss(LAMBDA_1, LAMBDA_2)
LABELS = torch.tensor([1, 3, 4, 1, 2, 3])


def logits(number: int, num_classes: int = 5, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [3 * torch.randn(len(LABELS), num_classes, generator=generator) for _ in range(number)]


def plain(clean, targets: list[list[float] | None], noisy=(), augmix=()) -> float:
    """Equation (6) over the rows that have target probabilities, class by class, in Python floats."""
    rows = [i for i, target in enumerate(targets) if target is not None]
    total = 0.0
    for i in rows:
        p = softmax_row(clean[i].tolist())
        total -= sum(q * math.log(one) for q, one in zip(targets[i], p, strict=True) if q)
        if len(noisy):
            confidence = sum(q * one for q, one in zip(targets[i], p, strict=True))
            divergences = [kl_row(p, softmax_row(view[i].tolist())) for view in noisy]
            total += LAMBDA_1 * confidence * sum(divergences) / len(noisy)
        if len(augmix):
            views = [p, *(softmax_row(view[i].tolist()) for view in augmix)]
            mixture = [sum(column) / len(views) for column in zip(*views, strict=True)]
            total += LAMBDA_2 * sum(kl_row(view, mixture) for view in views) / len(views)
    return total / len(rows)


def one_hot(labels: torch.Tensor, num_classes: int = 5) -> list[list[float]]:
    return [[float(k == label) for k in range(num_classes)] for label in labels.tolist()]


def test_stacked_views_are_a_sequence_of_views():
    clean, *views = logits(5)
    as_lists = LOSS(clean, LABELS, noisy=views[:2], augmix=views[2:])
    stacked = LOSS(clean, LABELS, noisy=torch.stack(views[:2]), augmix=torch.stack(views[2:]))
    assert torch.equal(stacked, as_lists)
    assert torch.equal(magn_consistency(clean, torch.stack(views), LABELS), magn_consistency(clean, views, LABELS))
    assert as_lists.item() == pytest.approx(plain(clean, one_hot(LABELS), views[:2], views[2:]), rel=1e-6)
    assert torch.equal(LOSS(clean, LABELS, noisy=torch.empty(0, 6, 5)), LOSS(clean, LABELS))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_labels_of_other_integers_are_the_same_classes(dtype):
    clean, noisy, first, second = logits(4)
    views = {"noisy": [noisy], "augmix": [first, second]}
    assert torch.equal(LOSS(clean, LABELS.to(dtype), **views), LOSS(clean, LABELS, **views))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_soft_labels_weigh_by_the_expected_confidence(dtype):
    clean, noisy, first, second = logits(4)
    soft = torch.softmax(logits(1, seed=1)[0], dim=1).to(dtype)
    soft[0] = F.one_hot(LABELS[0], 5)
    expected = plain(clean, soft.tolist(), [noisy], [first, second])
    assert LOSS(clean, soft, noisy=[noisy], augmix=[first, second]).item() == pytest.approx(expected, rel=1e-5)
    assert LOSS(clean, soft).item() == pytest.approx(F.cross_entropy(clean, soft.float()).item(), rel=1e-6)
    hard = F.one_hot(LABELS, 5).to(dtype)
    indices = LOSS(clean, LABELS, noisy=[noisy], augmix=[first, second]).item()
    assert LOSS(clean, hard, noisy=[noisy], augmix=[first, second]).item() == pytest.approx(indices, rel=1e-6)


def test_ignored_rows_leave_every_term():
    clean, noisy, first, second = (view.requires_grad_() for view in logits(4))
    labels = LABELS.clone()
    labels[[1, 4]] = -100
    targets = one_hot(LABELS)
    targets[1] = targets[4] = None
    loss = LOSS(clean, labels, noisy=[noisy], augmix=[first, second])
    assert loss.item() == pytest.approx(plain(clean, targets, [noisy], [first, second]), rel=1e-6)
    assert LOSS(clean, labels).item() == pytest.approx(F.cross_entropy(clean, labels).item(), rel=1e-6)
    loss.backward()
    for view in (clean, noisy, first, second):
        assert (view.grad[[1, 4]] == 0).all()
        assert (view.grad[[0, 2, 3, 5]] != 0).all()
    none_left = torch.full_like(labels, -100)
    assert LOSS(clean, none_left).isnan()
    assert F.cross_entropy(clean, none_left).isnan()


def test_the_consistency_takes_the_labels_of_the_whole_loss():
    clean, noisy = logits(2)
    labels = LABELS.clone()
    labels[[1, 4]] = -100
    divergences = [kl_row(softmax_row(p.tolist()), softmax_row(q.tolist())) for p, q in zip(clean, noisy, strict=True)]
    terms = [softmax_row(clean[i].tolist())[LABELS[i]] * divergences[i] for i in range(6)]
    kept = [terms[i] for i in (0, 2, 3, 5)]
    assert magn_consistency(clean, [noisy], labels).item() == pytest.approx(sum(kept) / 4, rel=1e-6)
    assert magn_consistency(clean, [noisy], torch.full_like(labels, -100)).isnan()
    for dtype in (torch.float16, torch.float64):
        soft = magn_consistency(clean, [noisy], F.one_hot(LABELS, 5).to(dtype))
        assert soft.dtype == torch.float32
        assert soft.item() == pytest.approx(sum(terms) / 6, rel=1e-6)
    with pytest.raises(InputError) as error:
        magn_consistency(clean, [noisy], LABELS + 1)
    assert str(error.value).startswith("labels: Target 5 is out of bounds; expected classes 0..4, as there are 5 log")


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("detached", [False, True])
def test_masked_classes_add_nothing(soft, detached):
    """As if the masked class did not exist, in value and in gradient."""
    views = logits(4)
    loss = MAGNLoss(LAMBDA_1, LAMBDA_2, detach_weight=detached, detach_target=detached)
    labels = F.one_hot(LABELS, 5).float() * 0.9 + 0.025 * (torch.arange(5) > 0) if soft else LABELS
    masked, without = [view.clone() for view in views], [view[:, 1:].clone() for view in views]
    for view in masked:
        view[:, 0] = -torch.inf
    for view in (*masked, *without):
        view.requires_grad_()
    value = loss(masked[0], labels, noisy=masked[1:2], augmix=masked[2:])
    targets = labels.tolist() if soft else one_hot(LABELS)
    plain_views = [view[:, 1:] for view in views]
    expected = plain(plain_views[0], [row[1:] for row in targets], plain_views[1:2], plain_views[2:])
    assert value.item() == pytest.approx(expected, rel=1e-5)
    value.backward()
    loss(without[0], labels[:, 1:] if soft else LABELS - 1, noisy=without[1:2], augmix=without[2:]).backward()
    for view, other in zip(masked, without, strict=True):
        assert (view.grad[:, 0] == 0).all()
        torch.testing.assert_close(view.grad[:, 1:], other.grad)


def test_nothing_is_read_on_the_host():
    """Tensors on the meta device have no values: whatever waits for one raises an error."""
    clean, noisy, first, second = (view.to("meta").requires_grad_() for view in logits(4))
    for labels in (LABELS.to("meta"), torch.rand(6, 5, device="meta")):
        LOSS(clean, labels, noisy=[noisy], augmix=torch.stack([first, second])).backward()
        assert clean.grad.shape == clean.shape


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("stacked", [False, True])
def test_it_compiles_without_a_graph_break(backend, stacked):
    clean, *views = logits(4)
    labels = LABELS.clone()
    labels[2] = -100
    noisy, augmix = (torch.stack(views[:1]), torch.stack(views[1:])) if stacked else (views[:1], views[1:])
    compiled = torch.compile(LOSS, fullgraph=True, backend=backend)
    for some_labels in (labels, torch.softmax(views[0], dim=1)):
        ours, theirs = clean.clone().requires_grad_(), clean.clone().requires_grad_()
        expected = LOSS(theirs, some_labels, noisy=noisy, augmix=augmix)
        value = compiled(ours, some_labels, noisy=noisy, augmix=augmix)
        torch.testing.assert_close(value, expected)
        value.backward()
        expected.backward()
        torch.testing.assert_close(ours.grad, theirs.grad)


CLEAN, NOISY = logits(2)
SOME = "some tensors of the clean logits' shape and device, or one of them stacked, [N, B, K]."
CLASSES = "expected integers [B], or probabilities, floats [B, K], for the logits float32 [6, 5]."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clean": CLEAN[0]}, "clean: got float32 [5]; expected logits, a float tensor [B, K]."),
        ({"clean": CLEAN.long()}, "clean: got int64 [6, 5]; expected logits, a float tensor [B, K]."),
        ({"clean": (CLEAN,)}, "clean: got a tuple; expected logits, a float tensor [B, K]."),
        ({"noisy": NOISY}, f"noisy: got float32 [6, 5]; expected {SOME} Give a single view as a list, [logits]."),
        ({"augmix": None}, f"augmix: got a NoneType; expected {SOME}"),
        ({"noisy": [NOISY[:3]]}, "noisy[0]: got float32 [3, 5]; expected logits like the clean float32 [6, 5]."),
        ({"augmix": [NOISY, (NOISY,)]}, "augmix[1]: got a tuple; expected logits like the clean float32 [6, 5]."),
        (
            {"noisy": [NOISY.to("meta")]},
            "noisy[0]: got float32 [6, 5] on meta; expected logits like the clean float32 [6, 5].",
        ),
        ({"labels": LABELS.tolist()}, f"labels: got a list; {CLASSES}"),
        ({"labels": LABELS[:4]}, f"labels: got int64 [4]; {CLASSES}"),
        ({"labels": LABELS.float()}, f"labels: got float32 [6]; {CLASSES}"),
        ({"labels": LABELS > 1}, f"labels: got bool [6]; {CLASSES}"),
        (
            {"labels": F.one_hot(LABELS, 5)},
            f"labels: got int64 [6, 5]; {CLASSES} Give one-hot labels as labels.float().",
        ),
        (
            {"labels": LABELS + 1},
            "labels: Target 5 is out of bounds; expected classes 0..4, as there are 5 logits, or -100.",
        ),
        (
            {"labels": LABELS - 2},
            "labels: Target -1 is out of bounds; expected classes 0..4, as there are 5 logits, or -100.",
        ),
    ],
)
def test_anything_else_is_one_line(arguments, message):
    with pytest.raises(InputError) as error:
        LOSS(**{"clean": CLEAN, "labels": LABELS} | arguments)
    assert str(error.value) == message


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf, "3", None, True])
def test_weights_are_finite_numbers(weight):
    with pytest.raises(InputError) as error:
        MAGNLoss(weight)
    assert str(error.value) == f"consistency_weight: got {weight!r}; expected a finite number, 0 or more."
    with pytest.raises(InputError, match="jsd_weight"):
        MAGNLoss(jsd_weight=weight)


def test_jensen_shannon_needs_two_views_of_one_shape():
    with pytest.raises(InputError, match=r"logits: got 1 view; expected 2 or more, each \[B, K\]\. Unpack a stack"):
        jensen_shannon(torch.stack([CLEAN, NOISY]))
    with pytest.raises(InputError, match=r"logits\[1\]: got float32 \[6, 4\]; expected logits like the clean"):
        jensen_shannon(CLEAN, NOISY[:, :4])
    with pytest.raises(InputError, match="noisy_logits: got 'no view'; expected 1 or more"):
        magn_consistency(CLEAN, [], LABELS)


def test_per_sample_gradients():
    """torch.func's transformations trace through it, as they do through F.cross_entropy."""
    network = nn.Linear(7, 5)
    images = torch.randn(6, 7)
    parameters = dict(network.named_parameters())

    def loss(parameters, image, label):
        views = [torch.func.functional_call(network, parameters, (image[None] * scale,)) for scale in (1, 0.9)]
        return LOSS(views[0], label[None], noisy=views[1:], augmix=views[1:])

    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, images, LABELS)
    one = torch.func.grad(loss)(parameters, images[3], LABELS[3])
    torch.testing.assert_close(gradients["weight"][3], one["weight"])
