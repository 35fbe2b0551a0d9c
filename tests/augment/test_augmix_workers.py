"""AugMix, the policies and corrupt in the workers of a DataLoader, however they are started."""

import copy
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fastmagn import AugMix, RandAugment
from fastmagn.augment import image_transform
from tests.helpers.processes import ROOT, run
from tests.helpers.worker_views import EPOCH, NUM_IMAGES, WorkerPolicies, check_views, loaded, pictures


@pytest.mark.process
@pytest.mark.parametrize("context", ["spawn", "forkserver"])
def test_workers_that_import_anew_make_the_views_of_this_process(context):
    check_views(*loaded(context, 1))


@pytest.mark.process
def test_workers_forked_after_any_use_make_the_views_of_their_parent():
    """Each worker and epoch draws anew, repeatably by PyTorch's seed; also in `collate_fn`, and in a plain fork."""
    shown = run(["tests.helpers.worker_views"], ROOT, OMP_NUM_THREADS="2", NUMBA_NUM_THREADS="2").stdout
    assert shown == "equal in forked workers\n"


@pytest.mark.process
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_policies_in_workers_draw_for_each_image_and_by_key(context):
    data = WorkerPolicies()
    loader = DataLoader(data, batch_size=2, num_workers=2, multiprocessing_context=context, timeout=120)
    drawn, keyed = (torch.cat(parts) for parts in zip(*loader, strict=True))
    assert len({image.numpy().tobytes() for image in drawn}) > NUM_IMAGES // 2  # the same picture, by other operations
    rows = torch.from_numpy(pictures()).permute(0, 3, 1, 2)
    for number, policy in enumerate(data.policies):
        assert torch.equal(keyed[:, number], policy(rows, indices=range(NUM_IMAGES), epoch=EPOCH))


def test_every_bit_of_a_workers_word_counts(monkeypatch):
    """Two workers' seeds that, with the first draw of seed 0, give words of the same low 32 bits."""
    first = int(torch.randint(2**63 - 1, (), generator=torch.Generator().manual_seed(0)))
    seeds = (84_778, 122_036)
    words = [int(np.random.SeedSequence([first, seed]).generate_state(1, np.uint64)[0]) for seed in seeds]
    assert words[0] != words[1]
    assert words[0] % 2**32 == words[1] % 2**32
    rows, drawn = torch.from_numpy(pictures()).permute(0, 3, 1, 2), []
    for seed in seeds:
        monkeypatch.setattr(image_transform, "get_worker_info", lambda seed=seed: SimpleNamespace(seed=seed))
        augmix = AugMix(seed=0)
        drawn += [augmix(rows), augmix(rows)]
    assert len({views.numpy().tobytes() for views in drawn}) == 4


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
@pytest.mark.parametrize("kind", [AugMix, RandAugment])
def test_transforms_that_share_a_generator_share_it_in_a_copy(kind, copied, monkeypatch):
    """Else two views of an image are equal in workers that are spawned, though not in those that are forked."""
    generator, rows = torch.Generator().manual_seed(0), torch.from_numpy(pictures()).permute(0, 3, 1, 2)
    pair = kind(seed=generator), kind(seed=generator)
    first, second = copied(pair)
    assert first.generator is second.generator is not generator
    expected = [one(rows) for one in pair]
    assert not torch.equal(*expected)
    for made, wanted in zip((first(rows), second(rows)), expected, strict=True):
        assert torch.equal(made, wanted)
    monkeypatch.setattr(image_transform, "get_worker_info", lambda: SimpleNamespace(seed=3))
    first, second = copied(pair)
    assert not torch.equal(first(rows), second(rows))
    apart = copied(pair[0]), copied(pair[1])
    assert apart[0].generator is not apart[1].generator
