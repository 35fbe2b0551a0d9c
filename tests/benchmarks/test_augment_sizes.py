"""The benchmark of images' sizes runs, with another checkout beside, and its JSON holds what it says."""

import json

import pytest

from benchmarks.augment_sizes import ROOT, main
from fastmagn.errors import InputError


def test_sizes_are_checked():
    with pytest.raises(InputError, match=r"^sizes: got 4; expected 8 px or more"):
        main(["--sizes", "32", "4"])


@pytest.mark.slow
@pytest.mark.process
def test_result_has_its_schema(tmp_path, capsys):
    out = tmp_path / "result.json"
    main(["--sizes", "16", "20", "--turns", "2", "--before", str(ROOT), "--out", str(out)])
    result = json.loads(out.read_text())
    assert result["settings"]["sizes_px"] == [16, 20]
    assert result["ns_per_pixel"].keys() == {"now", "before"}
    for of in result["ns_per_pixel"].values():
        assert of.keys() == {"16", "20"}
        assert all(0 < part["lowest"] <= part["median"] <= part["highest"] for part in of.values())
    assert "ns of CPU per pixel" in " ".join(capsys.readouterr().out.split())
