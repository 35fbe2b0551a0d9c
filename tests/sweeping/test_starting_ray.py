"""How a sweep starts Ray or connects to it, without Ray: what it says of a failure, and the cores that Ray is given."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from fastmagn.errors import InputError
from fastmagn.sweeping import on_ray
from fastmagn_kernels import threads

SLOW = "The current node timed out during startup. This\ncould happen because the machine is loaded."


@pytest.fixture
def calls(monkeypatch) -> list[dict]:
    """What `ray.init` was given, in place of starting anything."""
    given = []
    fake = SimpleNamespace(init=lambda address, **options: given.append(options), shutdown=lambda: None)
    monkeypatch.setattr(on_ray, "ray", fake)
    monkeypatch.setattr(on_ray, "_loopback_only", nullcontext)
    return given


@pytest.mark.parametrize(
    ("address", "begin"),
    [
        (None, "sweep: Ray could not be started on this machine; the same command tries again."),
        ("host:6379", "--ray.address: got 'host:6379';"),
    ],
)
def test_a_start_that_fails_is_one_line(address, begin, calls, monkeypatch):
    """Ray raises Exception itself if it is slow to start."""

    def init(*_: object, **__: object) -> None:
        raise Exception(SLOW)

    monkeypatch.setattr(on_ray.ray, "init", init)
    with pytest.raises(InputError) as error, on_ray._connected(address):
        pass
    assert str(error.value) == f"{begin} Ray says: {' '.join(SLOW.split())}"


def test_what_fails_later_is_not_said_of_the_start(calls):
    with pytest.raises(KeyError), on_ray._connected(None):
        raise KeyError("of a trial")


def test_rays_cores_are_those_that_affinity_and_the_cgroups_quota_allow(calls, monkeypatch):
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: set(range(8)))
    for quota, expected in ((3.0, 3), (16.0, 8)):
        monkeypatch.setattr(threads, "_cgroup_quota", lambda *_, quota=quota: quota)
        with on_ray._connected(None):
            pass
        assert calls.pop()["num_cpus"] == expected
