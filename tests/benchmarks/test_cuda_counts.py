"""The benchmark of the CUDA engine without a GPU runs, and its JSON holds what it says. No time is asserted."""

import json
import shutil

import pytest

pytest.importorskip("numba_cuda", reason="needs numba-cuda: install 'fastmagn[test]'")


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.skipif(not (shutil.which("g++") and shutil.which("gcc")), reason="needs g++ and gcc")
def test_result_has_its_schema(tmp_path, capsys, monkeypatch):
    from benchmarks import cuda_counts
    from tests.ptx.assembling import find_tool

    out = tmp_path / "counts.json"
    monkeypatch.setattr(cuda_counts, "POLICY_DRAWS", {32: 8, 224: 2})
    assert cuda_counts.main(["--images", "1", "--images_224", "1", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert result["benchmark"] == "cuda_counts"
    for views in result["warp_instructions_per_view"].values():
        assert set(views) == ({"ptx", "machine"} if find_tool("ptxas") and find_tool("nvdisasm") else {"ptx"})
        for kinds in views.values():
            for counts in kinds.values():
                assert counts["total"] == pytest.approx(sum(counts.values()) - counts["total"], abs=2)
            assert kinds["augmix_view"]["barrier"] > 0
    small, large = (
        result["warp_instructions_per_view"][size]["ptx"]["augmix_view"]["total"] for size in ("32x32", "224x224")
    )
    assert 1_000 < small < large
    assert bool(result["kernels"]) == bool(find_tool("ptxas"))
    for times in result["host_us_per_call"].values():
        assert 0 < times["lowest"] <= times["median"]
    assert "instructions of warps, 32x32" in capsys.readouterr().out
