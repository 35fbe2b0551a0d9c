"""The evaluation benchmark runs, and its JSON holds what it says."""

import json

import pytest

from benchmarks.evaluate import main


@pytest.mark.slow
def test_result_has_its_schema(tmp_path, capsys):
    out = tmp_path / "result.json"
    main(["--num_images", "6", "--repeats", "2", "--device", "cpu", "--out", str(out)])
    result = json.loads(out.read_text())
    assert result["benchmark"] == "evaluate"
    assert result["settings"]["num_cells"] == 96
    assert result["settings"]["num_images"] == 6
    for name in ("bare_s", "evaluate_s", "overhead_pct", "outside_model_pct"):
        assert result[name]["lowest"] <= result[name]["median"] <= result[name]["highest"]
    assert result["outside_model_pct"]["lowest"] > 0  # the model's time is part of the evaluation's
    assert result["evaluate_images_per_s"] == pytest.approx(96 * 6 / result["evaluate_s"]["median"])
    assert "overhead" in capsys.readouterr().out
