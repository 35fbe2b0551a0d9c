"""Host memory is used again only when nothing holds it any more."""

import gc

import pytest
import torch

from fastmagn.augment.engines import host_memory
from tests.helpers.processes import run


@pytest.fixture(autouse=True)
def nothing_kept():
    host_memory._free.clear()


def test_memory_comes_back_when_the_last_view_of_it_is_gone():
    first = host_memory.empty((4, 5, 6))
    address = first.data_ptr()
    assert address % 64 == 0
    assert first.is_contiguous()
    piece = first.permute(2, 0, 1)[1:]
    del first
    gc.collect()
    other = host_memory.empty((4, 5, 6))
    assert other.data_ptr() != address  # a piece of the first is still held
    del piece
    gc.collect()
    assert host_memory.empty((6, 20)).data_ptr() == address


def test_what_autograd_saves_is_held():
    weight = torch.ones(3, requires_grad=True)
    images = host_memory.empty((2, 3)).fill_(2)
    loss = (images * weight).sum()
    del images
    gc.collect()
    host_memory.empty((2, 3)).fill_(99)
    loss.backward()
    assert weight.grad.tolist() == [4, 4, 4]


def test_another_size_is_other_memory_and_few_are_kept():
    tensors = [host_memory.empty((10 + i,)) for i in range(5)]
    assert len({tensor.data_ptr() for tensor in tensors}) == 5
    del tensors
    gc.collect()
    assert len(host_memory._free) == host_memory.NUM_KEPT


@pytest.mark.process
def test_a_fork_while_another_thread_takes_memory_does_not_hang(tmp_path):
    """The lock is held by a thread that the new process does not have."""
    code = """
import os, signal, threading, time
from fastmagn.augment.engines import host_memory
held = threading.Event()
def hold():
    with host_memory._lock:
        held.set()
        time.sleep(0.3)
threading.Thread(target=hold).start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(60)
    host_memory.empty((4,))
    os._exit(5)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
host_memory.empty((4,))
print("both continue")
"""
    assert run(["-c", code], tmp_path).stdout == "both continue\n"
