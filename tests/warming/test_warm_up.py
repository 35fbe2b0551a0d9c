"""The command that compiles all kernels ahead: what it asks for, says and refuses."""

import numpy as np
import pytest
from numba import typeof

from fastmagn import warm_up
from fastmagn.augment.params import ViewSpec, sample_view_params
from fastmagn.config.schema import AugmentConfig
from fastmagn.corruptions import CORRUPTIONS, PERTURBATIONS
from fastmagn.errors import InputError
from fastmagn.warming import kernels
from fastmagn.warming.kernels import all_groups, corruption_groups


@pytest.fixture
def asked(monkeypatch, tmp_path) -> list[list[str]]:
    """The groups that the command wants compiled; nothing is."""
    wanted: list[list[str]] = []

    def compile_groups(groups: list[str]) -> dict[str, str]:
        wanted.append(groups)
        return {}

    monkeypatch.setattr("fastmagn.warming.ahead.compile_groups", compile_groups)
    monkeypatch.setattr("fastmagn_kernels.compiling.shared_folder", lambda: tmp_path)
    monkeypatch.setattr("fastmagn_kernels.threads.num_threads", lambda: 2)
    return wanted


def test_it_asks_for_all_and_says_where_they_are(asked, tmp_path, capsys):
    assert warm_up.main([]) == 0
    (groups,) = asked
    assert len(set(groups)) == len(groups)
    assert set(groups) >= {f"corrupt {name}" for name in CORRUPTIONS} | {f"perturb {name}" for name in PERTURBATIONS}
    assert set(groups) >= {"views", "recipe_views", "prime", "policies", "draws"}
    first, last = capsys.readouterr().out.splitlines()
    assert first == "compiling kernels in 2 processes (about a minute of work)"
    assert last.startswith(f"{len(groups)} groups of kernels are kept in {tmp_path} (")


def test_what_fails_is_one_line(asked, monkeypatch):
    fault = {"corrupt snow": "OSError: [Errno 28] No space left on device"}
    monkeypatch.setattr("fastmagn.warming.ahead.compile_groups", lambda groups: fault)
    with pytest.raises(InputError) as error:
        warm_up.main([])
    assert str(error.value) == "kernels: corrupt snow: OSError: [Errno 28] No space left on device."


def test_without_a_folder_for_all_processes_it_refuses(asked, monkeypatch):
    monkeypatch.setattr("fastmagn_kernels.compiling.shared_folder", lambda: None)
    with pytest.raises(InputError) as error:
        warm_up.main([])
    assert str(error.value) == ("kernels: no folder that later runs share can be written; name one by NUMBA_CACHE_DIR.")
    assert not asked


def test_a_corruption_of_ones_own_has_no_group(monkeypatch):
    monkeypatch.setitem(CORRUPTIONS, "own", lambda images_u8, severity, seed, indices: images_u8)
    assert corruption_groups(["fog", "own", "stored_by_others"]) == ["corrupt fog"]
    assert "corrupt own" not in all_groups()


def test_groups_compile_for_the_types_of_a_run(monkeypatch):
    """The kernel of a run's views is called with the types that the group `views` calls it with."""
    from fastmagn.augment.engines import numba_cpu

    called = []
    monkeypatch.setattr(numba_cpu, "make_views_batch", lambda *arguments: called.append(arguments))
    kernels.compile_group("views")
    kernels.compile_group("recipe_views")
    of_run = {"views": {}, "recipe_views": {"policy": "trivialaugment", "patch_probability": 0.5}}
    for augment in of_run.values():
        spec, config = ViewSpec(num_augmix_views=2, num_noise_views=1), AugmentConfig(**augment)
        params = sample_view_params(3, 1, np.arange(5), spec, config, (40, 48), mean=(0.1, 0.2, 0.3))
        out = np.empty((4 * 5, 40, 48, 3), np.float32)
        numba_cpu.fill_arrays(np.zeros((5, 40, 48, 3), np.uint8), params, out)
    assert [typeof(one) for one in called[:2]] == [typeof(one) for one in called[2:]]
