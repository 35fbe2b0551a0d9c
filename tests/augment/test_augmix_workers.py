"""AugMix and corrupt in the workers of a DataLoader, however they are started."""

import pytest

from tests.helpers.processes import ROOT, run
from tests.helpers.worker_views import check_views, loaded


@pytest.mark.process
@pytest.mark.parametrize("context", ["spawn", "forkserver"])
def test_workers_that_import_anew_make_the_views_of_this_process(context):
    check_views(*loaded(context, 1))


@pytest.mark.process
def test_workers_forked_after_any_use_make_the_views_of_their_parent():
    """Each worker and epoch draws anew, repeatably by PyTorch's seed; also in `collate_fn`, and in a plain fork."""
    shown = run(["tests.helpers.worker_views"], ROOT, OMP_NUM_THREADS="2", NUMBA_NUM_THREADS="2").stdout
    assert shown == "equal in forked workers\n"
