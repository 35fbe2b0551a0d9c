"""benchmarks.corrupt, tiny: its JSON is strict, complete and consistent; no time is asserted."""

import json

import numpy as np
import pytest

from benchmarks import corrupt as benchmark
from fastmagn.corruptions import CORRUPTION_SETS, available_corruptions
from fastmagn.corruptions.sets import CIFAR_CBAR
from fastmagn.errors import InputError


def read_strict(path) -> dict:
    def refuse(constant):
        raise AssertionError(f"{constant} in {path}")

    return json.loads(path.read_text(), parse_constant=refuse)


def check_spread(spread: dict) -> None:
    assert set(spread) == {"median", "lowest", "highest"}
    assert 0 < spread["lowest"] <= spread["median"] <= spread["highest"]


@pytest.mark.slow
@pytest.mark.parametrize("has_library", [False, True])
def test_json(tmp_path, capsys, monkeypatch, has_library):
    class Library:
        corrupt = staticmethod(lambda image, corruption_name, severity: image)

    monkeypatch.setattr(benchmark.console, "width", 200)
    monkeypatch.setattr(benchmark, "find_library", lambda: Library if has_library else None)
    monkeypatch.setattr(benchmark, "library_versions", lambda: {"imagecorruptions-imaug": "1", "opencv": "2"})
    path = tmp_path / "results" / "corrupt.json"
    assert benchmark.main(["--num_images", "4", "--repeats", "2", "--out", str(path)]) == 0
    result = read_strict(path)
    assert set(result) == {"benchmark", "command", "environment", "settings", "corruptions", "set"}
    assert result["benchmark"] == "corrupt"
    assert result["command"].startswith("python -m benchmarks.corrupt")
    assert {"commit", "cpu", "numpy", "numba", "python"} <= set(result["environment"])
    settings = result["settings"]
    assert (settings["dataset"], settings["size_px"], settings["num_images"]) == ("digits", 32, 4)
    assert settings["repeats"] == 2
    assert (settings["library"] is not None) == has_library

    others = ("plain_", "library_") if has_library else ("plain_",)
    names = [name for name in CORRUPTION_SETS["c19"] if name in available_corruptions()]
    assert list(result["corruptions"]) == names
    for row in result["corruptions"].values():
        rates = {f"{code}{what}" for code in ("", *others) for what in ("s_per_image", "images_per_s")}
        assert set(row) == rates | {f"{code}ratio" for code in others}
        for code in ("", *others):
            check_spread(row[f"{code}s_per_image"])
            assert row[f"{code}images_per_s"] == pytest.approx(1 / row[f"{code}s_per_image"]["median"])
        assert row["plain_ratio"] == pytest.approx(row["images_per_s"] / row["plain_images_per_s"])
    whole = result["set"]
    check_spread(whole["measured_s"])
    assert whole["cells"] == 5 * len(names)
    assert whole["10000_images_s"] == pytest.approx(whole["measured_s"]["median"] * 10_000 / 4)
    assert whole["plain_ratio"] == pytest.approx(whole["plain_10000_images_s"] / whole["10000_images_s"])
    assert ("library_ratio" in whole) == has_library

    printed = capsys.readouterr().out
    assert all(name in printed for name in names)


@pytest.mark.slow
def test_cbar_has_no_library(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "find_library", lambda: pytest.fail("imagecorruptions-imaug has no C-bar"))
    path = tmp_path / "cbar.json"
    assert benchmark.main(["--num_images", "4", "--repeats", "1", "--corruption_set", "cbar", "--out", str(path)]) == 0
    result = read_strict(path)
    assert tuple(result["corruptions"]) == CIFAR_CBAR
    assert result["settings"]["corruption_set"] == "cbar"


def test_images_are_enlarged_and_begin_again():
    images = benchmark.load_test_images(None, 601, 32)
    assert images.shape == (601, 32, 32, 3)
    np.testing.assert_array_equal(images[599:], images[:2])  # digits has 599 test images
    assert benchmark.load_test_images(None, 2, 224).shape == (2, 224, 224, 3)


def test_plain_code_is_the_same_corruption():
    images = benchmark.load_test_images(None, 3, 32)
    got = benchmark.plain_cell(images, "contrast", 3)
    np.testing.assert_allclose(got.astype(int), benchmark.corrupt(images, "contrast", 3), atol=1)


@pytest.mark.parametrize("argument", ["num_images", "repeats"])
def test_nothing_to_measure(argument):
    with pytest.raises(InputError, match=f"{argument}: got 0; expected 1 or more."):
        benchmark.main([f"--{argument}", "0"])
