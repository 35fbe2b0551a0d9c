"""AugMix within torch.compile and torch.export: one opaque operator with the draws of eager mode."""

import gc

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from fastmagn import AugMix, TrivialAugment
from fastmagn.errors import InputError
from tests.helpers.tiers import slow

IMAGES = torch.rand(6, 3, 20, 33, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _no_compiled_code_is_left():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def two_views_and_a_third(augmix: AugMix, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The first two are of the same images: a compiler may not take one for the other."""
    return augmix(images) - images, augmix(images) - images, augmix(images.flip(0)) - images


@pytest.mark.parametrize("backend", ["eager", "aot_eager", *slow("inductor")])
def test_compiled_calls_draw_what_eager_ones_do(backend):
    generator, other = (torch.Generator().manual_seed(7) for _ in range(2))
    eager, augmix = AugMix(seed=generator), AugMix(seed=other)
    compiled = torch.compile(lambda images: two_views_and_a_third(augmix, images), backend=backend, fullgraph=True)
    for _ in range(2):
        expected, made = two_views_and_a_third(eager, IMAGES), compiled(IMAGES)
        assert not torch.equal(made[0], made[1])
        for one, another in zip(made, expected, strict=True):
            torch.testing.assert_close(one, another, rtol=0, atol=1e-6)
    assert torch.equal(generator.get_state(), other.get_state())


@pytest.mark.parametrize("backend", ["aot_eager", *slow("inductor")])
def test_a_compiled_training_step_has_the_gradients_of_an_eager_one(backend):
    gradients = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(AugMix(seed=3), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
        model(IMAGES)  # the lazy layer's size; a draw
        step = torch.compile(model, backend=backend, fullgraph=True) if compiled else model
        for _ in range(2):
            step(IMAGES).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fullgraph", [True, False])
@pytest.mark.parametrize("kind", [AugMix, TrivialAugment])
def test_a_graph_fills_out(kind, fullgraph):
    transform, out = kind(seed=2), torch.zeros_like(IMAGES)
    compiled = torch.compile(lambda images, out: transform(images, out=out), backend="eager", fullgraph=fullgraph)
    made, expected = compiled(IMAGES, out), kind(seed=2)(IMAGES)
    assert made.data_ptr() == out.data_ptr()
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("epoch", [3, np.int64(3), np.uint8(3), torch.tensor(3)])
def test_an_epoch_is_an_integer_of_any_kind(epoch):
    transform, indices = TrivialAugment(seed=2), torch.arange(6)
    compiled = torch.compile(
        lambda images, epoch: transform(images, indices=indices, epoch=epoch), backend="aot_eager", fullgraph=True
    )
    expected = transform(IMAGES, indices=range(6), epoch=3)
    assert torch.equal(compiled(IMAGES, epoch), expected)
    assert torch.equal(transform(IMAGES, indices=indices, epoch=epoch), expected)


def test_batches_of_any_size_need_no_second_compilation():
    counter, augmix, eager = CompileCounter(), AugMix(seed=1), AugMix(seed=1)
    compiled = torch.compile(lambda images: 1 - augmix(images), backend=counter, fullgraph=True, dynamic=True)
    for batch in (6, 5, 3, 2):
        images = IMAGES[:batch].clone()
        assert torch.equal(compiled(images), 1 - eager(images))
    assert counter.frame_count == 1


@pytest.mark.parametrize("form", ["batch", "one", "grey", "one_grey", "bytes", "half", "none"])
def test_the_operator_says_beforehand_what_it_gives(form):
    """PyTorch's own checks: shapes, strides and dtypes, with fixed and with symbolic sizes, and under autograd."""
    images, indices = IMAGES, torch.arange(6)
    images, indices = {
        "batch": (images, indices),
        "one": (images[0], indices[:1]),
        "grey": (images[:, :1], indices),
        "one_grey": (images[0, :1], indices[:1]),
        "bytes": ((images * 255).to(torch.uint8), indices),
        "half": (images.half(), indices),
        "none": (images[:0], indices[:0]),
    }[form]
    augmix = AugMix(seed=2)
    order = torch.zeros((), dtype=torch.int64)
    torch.library.opcheck(torch.ops.fastmagn.augment.default, (images, order, indices, 4, augmix._number, False))


def test_keyed_views_and_labels_compile():
    augmix = AugMix(seed=5)
    indices = torch.tensor([3, 1, 4, 15, 9, 2])

    def step(images, labels, epoch):
        return augmix(images, labels, indices=indices, epoch=epoch)

    compiled, labels = torch.compile(step, backend="aot_eager", fullgraph=True), torch.arange(6)
    for epoch in (0, 1, 2):
        made, passed = compiled(IMAGES, labels, epoch)
        assert torch.equal(made, augmix(IMAGES, indices=indices, epoch=epoch))
        assert torch.equal(passed, labels)


def test_an_exported_program_draws_anew():
    model, eager = nn.Sequential(AugMix(seed=6), nn.Flatten()), nn.Sequential(AugMix(seed=6), nn.Flatten())
    exported = torch.export.export(model, (IMAGES,)).module()
    for _ in range(2):
        torch.testing.assert_close(exported(IMAGES), eager(IMAGES), rtol=0, atol=0)


def test_images_out_of_range_are_refused_in_a_graph():
    compiled = torch.compile(AugMix(), backend="aot_eager", fullgraph=True)
    with pytest.raises(InputError, match=r"^images: got values in 0\.\S+\.\.2\S+; expected floats in 0\.\.1\."):
        compiled(IMAGES * 255)


def test_a_graph_without_its_object_says_so():
    augmix = AugMix()
    exported = torch.export.export(torch.nn.Sequential(augmix), (IMAGES,)).module()
    assert exported(IMAGES).shape == IMAGES.shape
    del augmix
    gc.collect()
    with pytest.raises(RuntimeError, match="such as AugMix, that is not in this process any more"):
        exported(IMAGES)
    assert torch.is_grad_enabled()
