"""AugMix, the policies and corrupt in the workers of a DataLoader, however they are started."""

import pytest
import torch
from torch.utils.data import DataLoader

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
