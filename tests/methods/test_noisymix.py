"""NoisyMix against loops in float64, with the draws in plain integers; its layers, its loss, what it refuses."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from fastmagn.config.schema import LossConfig
from fastmagn.errors import InputError
from fastmagn.methods.method import LogitViews
from fastmagn.methods.noisymix import draw_plan, mix_and_disturb, mix_input, mix_maps, uniforms
from fastmagn.methods.table import get_method
from fastmagn_kernels.random.rng import STREAM_NOISYMIX
from tests.helpers.plain_losses import LABELS as LOSS_LABELS
from tests.helpers.plain_losses import kl_row, softmax_row
from tests.helpers.small_runs import small_default as small
from tests.helpers.steps import make_context, random_images, reference_words, start_run, take_steps

INDICES = [5, 0, 49_999, 17, 3, 2**32 - 1, 8, 11, 12, 13]
LABELS = torch.tensor([0, 3, 9, 1, 3, 2, 2, 5, 6, 0])
ADDITIVE, MULTIPLICATIVE, SPARSITY = 0.4, 0.6, 0.3
STRENGTHS = [
    *("--noisymix.additive_noise", str(ADDITIVE), "--noisymix.multiplicative_noise", str(MULTIPLICATIVE)),
    *("--noisymix.noise_sparsity", str(SPARSITY)),
]


def split_mix(seed: int, count: int) -> list[int]:
    """The first numbers of SplitMix64, as its authors' Java has it, in Python's integers, from golden * seed on."""
    numbers, mask = [], 2**64 - 1
    seed = (seed * 0x9E3779B97F4A7C15) & mask
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) & mask
        z = ((seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        numbers.append(z ^ (z >> 31))
    return numbers


def pair_of(number: int) -> tuple[float, float]:
    """Two uniforms from the highest 23 bits of a number, and from those after them."""
    return tuple(((number >> shift) % 2**23 + 0.5) / 2**23 for shift in (41, 18))


def spread(uniform: float, sparsity: float) -> float:
    return 0.5 if uniform < sparsity else (uniform - sparsity) / (1 - sparsity)


def plain_plan(context, official: bool = False) -> dict[str, list]:
    """Layer, partner and share of each image; strengths and seeds [view][image]."""
    first = context.indices[0]

    def words(slot: int, index: int) -> list[int]:
        return reference_words(context, slot, STREAM_NOISYMIX, index)

    def shared(slot: int, index: int) -> list[int]:
        return words(slot, first if official else index)

    layers = [shared(0, index)[1] * 4 >> 32 for index in context.indices]
    keys = [words(0, index)[2] * 2**32 + words(0, index)[3] for index in context.indices]
    partners = [-1] * len(layers)
    for layer in range(4):
        members = [i for i, one in enumerate(layers) if one == layer]
        for member, partner in zip(members, sorted(members, key=lambda i: keys[i]), strict=True):
            partners[member] = partner
    plan = {
        "layers": layers,
        "partners": partners,
        "shares": [(shared(0, i)[0] + 0.5) / 2**32 for i in context.indices],
    }
    beta = stats.beta(2, 5)
    for name, slot in (("additive", 0), ("multiplicative", 1)):
        plan[name] = [
            [beta.ppf((shared(1 + view, index)[slot] + 0.5) / 2**32) for index in context.indices] for view in range(3)
        ]
    plan["seeds"] = [[words(1 + v, i)[2] * 2**32 + words(1 + v, i)[3] for i in context.indices] for v in range(3)]
    return plan


def plain_maps(maps: Tensor, layer: int, plan: dict[str, list]) -> np.ndarray:
    """The equation, value by value."""
    before, batch = maps.double().numpy(), len(plan["layers"])
    after = before.copy()
    channels, height, width = before.shape[1:]
    for view in range(3):
        for i in range(batch):
            if plan["layers"][i] != layer:
                continue
            share, partner = plan["shares"][i], plan["partners"][i]
            numbers = iter(split_mix(plan["seeds"][view][i], channels * height * width))
            for row in range(height):
                for column in range(width):
                    for channel in range(channels):
                        first, second = (spread(u, SPARSITY) for u in pair_of(next(numbers)))
                        own = before[view * batch + i, channel, row, column]
                        other = before[view * batch + partner, channel, row, column]
                        factor = 1 + MULTIPLICATIVE * plan["multiplicative"][view][i] * (2 * second - 1)
                        added = ADDITIVE * (view + 1) * plan["additive"][view][i] * stats.norm.ppf(first)
                        mixed = share * own + (1 - share) * other
                        after[view * batch + i, channel, row, column] = factor * mixed + added
    return after


@pytest.mark.parametrize("official", [False, True])
def test_the_plan_is_the_samples_own(official):
    context = make_context(*STRENGTHS, "--noisymix.official", str(official), indices=INDICES)
    whole, real = draw_plan(context)
    plan, batch = plain_plan(context, official), len(INDICES)
    layers, partners, seeds = whole.reshape(3, 3, batch)
    share, additive, multiplicative, sparsity = real.reshape(4, 3, batch)
    for view in range(3):
        assert layers[view].tolist() == plan["layers"]
        assert partners[view].tolist() == [view * batch + partner for partner in plan["partners"]]
        assert seeds[view].view(np.uint64).tolist() == plan["seeds"][view]
        np.testing.assert_allclose(share[view], plan["shares"], rtol=1e-6)
        np.testing.assert_allclose(
            additive[view], np.multiply(ADDITIVE * (view + 1), plan["additive"][view]), rtol=1e-5
        )
        np.testing.assert_allclose(
            multiplicative[view], np.multiply(MULTIPLICATIVE, plan["multiplicative"][view]), rtol=1e-5
        )
    assert (sparsity == np.float32(SPARSITY)).all()
    assert len(set(plan["layers"])) == (1 if official else 4)


def test_share_layer_and_noises_do_not_depend_on_the_batch():
    whole, real = draw_plan(make_context(indices=INDICES))
    alone, of_one = draw_plan(make_context(indices=INDICES[4:5]))
    rows = [4, 4 + len(INDICES), 4 + 2 * len(INDICES)]
    assert np.array_equal(whole[[0, 2]][:, rows], alone[[0, 2]])
    assert np.array_equal(real[:, rows], of_one)
    assert alone[1].tolist() == [0, 1, 2], "its own partner"


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("in_graph", [False, True])
def test_maps_equal_a_loop_over_values(layer, in_graph, monkeypatch):
    context = make_context(*STRENGTHS, indices=INDICES)
    maps = torch.randn(3 * len(INDICES), 2, 4, 3, generator=torch.Generator().manual_seed(0))
    maps = maps.to(memory_format=torch.channels_last)
    kept = maps.clone()
    plan = [torch.from_numpy(part) for part in draw_plan(context)]
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: in_graph)
    after = mix_and_disturb(maps, layer, *plan)
    assert torch.equal(maps, kept)
    expected = plain_maps(maps, layer, plain_plan(context))
    np.testing.assert_allclose(after.numpy(), expected, rtol=1e-4, atol=2e-5)
    others = plan[0][0] != layer
    assert torch.equal(after[others], maps[others])
    assert not torch.isclose(after[~others], maps[~others]).all()


@pytest.mark.slow
def test_the_compiled_equation_and_its_gradient_are_the_eager_ones():
    """By the real compiler: a counter's product that overflows once made its loop run past the maps."""
    maps = torch.randn(3 * len(INDICES), 16, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    plan = [torch.from_numpy(part) for part in draw_plan(make_context(indices=INDICES))]
    results = []
    for change in (mix_and_disturb, torch.compile(mix_and_disturb, fullgraph=True, dynamic=False)):
        after = change(maps, 1, *plan)
        results.append((after, torch.autograd.grad(after.square().sum(), maps)[0]))
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=1e-5, atol=1e-5)


def test_at_the_input_values_are_in_the_authors_normalisation():
    context = make_context(*STRENGTHS, indices=INDICES)
    images = random_images(3 * len(INDICES), 4)
    views, targets, whole, real = mix_input(images, LABELS, context)
    plan = plain_plan(context)
    expected = (plain_maps(2 * images - 1, 0, plan) + 1) / 2
    np.testing.assert_allclose(views.numpy(), expected, rtol=1e-4, atol=2e-5)
    untouched = whole[0] != 0
    assert torch.equal(views[untouched], images[untouched])
    for i, (share, partner) in enumerate(zip(plan["shares"], plan["partners"], strict=True)):
        soft = np.zeros(10)
        soft[LABELS[i]] += share
        soft[LABELS[partner]] += 1 - share
        np.testing.assert_allclose(targets[i].numpy(), soft, atol=1e-6)
    maps = torch.randn(3 * len(INDICES), 5, 2, 2)
    assert torch.equal(mix_maps(3, maps, whole, real), mix_and_disturb(maps, 3, whole, real))
    assert mix_maps(4, maps, whole, real) is maps
    of_another_layer = torch.stack([torch.ones_like(whole[0]), whole[1], whole[2]])
    assert torch.equal(mix_maps(2, maps, of_another_layer, real), maps)


def test_the_numbers_are_split_mix():
    seeds = [0, 1, 2**63, 2**64 - 1, 1_234_567]
    drawn = uniforms(torch.from_numpy(np.array(seeds, np.uint64).view(np.int64)), 12)
    for i, seed in enumerate(seeds):
        for part, values in enumerate(drawn):
            assert values[i].tolist() == [pair_of(number)[part] for number in split_mix(seed, 12)]


def test_the_noises_have_their_distributions():
    """Normals and uniforms on a share 1 - sparsity of the values, each by itself."""
    ones, batch = torch.ones(3, 4, 64, 64), 1
    whole = torch.from_numpy(draw_plan(make_context(indices=[7]))[0])
    whole[0] = 0
    rows = {"additive": [1.0, 2.0, 0.0, 0.65], "multiplicative": [1.0, 0.0, 0.5, 0.65]}
    moved = {}
    for name, row in rows.items():
        noise = mix_and_disturb(ones, 0, whole, torch.tensor(row)[:, None].expand(4, 3 * batch)) - 1
        values = noise.flatten().double().numpy()
        moved[name] = values != 0
        assert stats.binomtest(int(moved[name].sum()), values.size, 0.35).pvalue > 1e-3
        law = stats.norm(scale=2) if name == "additive" else stats.uniform(-0.5, 1)
        assert stats.kstest(values[moved[name]], law.cdf).pvalue > 1e-3
    assert abs(np.corrcoef(moved["additive"], moved["multiplicative"])[0, 1]) < 0.02


def test_layers_are_equally_likely_and_partners_stay_in_theirs():
    whole, _ = draw_plan(make_context(indices=np.arange(4_000)))
    layers, partners = whole[0, :4_000], whole[1, :4_000]
    assert stats.chisquare(np.bincount(layers)).pvalue > 1e-3
    assert sorted(partners) == list(range(4_000))
    assert np.array_equal(layers[partners], layers)
    assert (partners != np.arange(4_000)).mean() > 0.99


def test_the_loss_is_that_of_both_labels_and_a_divergence():
    generator = torch.Generator().manual_seed(0)
    views = [3 * torch.randn(len(LOSS_LABELS), 10, generator=generator) for _ in range(3)]
    shares, others = torch.rand(len(LOSS_LABELS), generator=generator), LOSS_LABELS.roll(1)
    targets = torch.zeros(len(LOSS_LABELS), 10)
    cross_entropy = divergence = 0.0
    for i, (label, other, share) in enumerate(zip(LOSS_LABELS, others, shares.tolist(), strict=True)):
        targets[i, label] += share
        targets[i, other] += 1 - share
        rows = [softmax_row(view[i].tolist()) for view in views]
        mixture = [sum(column) / 3 for column in zip(*rows, strict=True)]
        cross_entropy -= (share * math.log(rows[0][label]) + (1 - share) * math.log(rows[0][other])) / len(LOSS_LABELS)
        divergence += sum(kl_row(row, mixture) for row in rows) / 3 / len(LOSS_LABELS)
    logits = LogitViews(views[0], augmix=tuple(views[1:]))
    loss, _ = get_method("noisymix").loss(logits, targets, LossConfig())
    assert loss.item() == pytest.approx(cross_entropy + 12 * divergence, rel=1e-5)


def test_the_step_changes_the_maps_of_three_stages(tmp_path):
    """A network that is the identity plus a linear head would not show it: here each stage's maps are looked at."""
    run = start_run(small(tmp_path, "--method", "noisymix", "--train.batch_size", "16", "--train.amp", "float32"))
    context = make_context("--method", "noisymix", indices=np.arange(16))
    images = random_images(48)
    views, targets, whole, real = mix_input(images, torch.arange(16) % 10, context)
    model, maps = run.model.train(), (views - run.model.mean) / run.model.std
    maps = model.network.stem(maps)
    for stage, block in enumerate(model.network.blocks, start=1):
        maps = mix_and_disturb(block(maps), stage, whole, real)
    expected = model.network.head(maps.mean(dim=(2, 3)))
    fresh = start_run(small(tmp_path, "--method", "noisymix", "--train.batch_size", "16", "--train.amp", "float32"))
    seen = []
    fresh.model.network.head.register_forward_hook(lambda module, inputs, logits: seen.append(logits))
    fresh.main_stage.forward_loss(views, targets, whole, real)
    torch.testing.assert_close(seen[0], expected)


def test_a_network_without_stages_is_refused_in_one_line(tmp_path):
    with pytest.raises(InputError) as error:
        start_run(small(tmp_path, "--method", "noisymix", "--model.name", "inception_v3"))
    assert str(error.value) == (
        "model.name: got 'inception_v3'; expected a ResNet, WideResNet, ResNeXt or DenseNet, such as resnet18 or"
        " wideresnet28_4, as noisymix changes maps between stages."
    )


def test_noisy_views_of_magn_are_changed_as_the_clean_view_is(tmp_path):
    context = make_context(indices=INDICES)
    whole, real = (torch.from_numpy(part) for part in draw_plan(context))
    maps = torch.randn(3 * len(INDICES), 4, 2, 2)
    clean = maps[: len(INDICES)]
    after = mix_maps(2, torch.cat([maps, clean, clean]), whole, real)
    expected = mix_and_disturb(maps, 2, whole, real)
    changed = expected[: len(INDICES)]
    torch.testing.assert_close(after, torch.cat([expected, changed, changed]))
    arguments = ["--method", "noisymix+magn", "--train.batch_size", "16", "--augment.num_noise_samples", "2"]
    (parts,) = take_steps(start_run(small(tmp_path, *arguments)), 1)
    assert parts["consistency"] > 0
