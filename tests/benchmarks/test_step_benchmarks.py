"""The benchmarks of a step's variants and of its convolutions, tiny; no time is asserted."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import conv_layouts, step_variants
from fastmagn.errors import InputError

TINY = ["--train.batch_size", "8", "--device", "cpu", "--train.amp", "float32"]


@pytest.mark.slow
@pytest.mark.process
def test_a_variant_that_only_manages_memory_has_the_same_losses(tmp_path, capsys):
    out = tmp_path / "variants.json"
    own = ["--variants", "memory_given_back", "weights_bf16", "--steps", "2", "--turns", "2", "--out", str(out)]
    assert step_variants.main([*own, *TINY, "--train.amp", "bf16"]) == 0  # weights_bf16 needs autocast
    rows = json.loads(out.read_text())["variants"]
    assert set(rows) == {"as_it_is", "memory_given_back", "weights_bf16"}
    assert rows["memory_given_back"]["loss_difference"] == 0
    assert 0 < rows["weights_bf16"]["loss_difference"] < 0.2
    for row in rows.values():
        assert 0 < row["resident_mib"] <= row["peak_mib"] + 1
        for name in ("step_s", "images_per_s", "times_as_it_is"):
            assert 0 < row[name]["lowest"] <= row[name]["median"] <= row[name]["highest"]
    assert rows["as_it_is"]["times_as_it_is"]["highest"] == 1
    for row in rows.values():  # each ratio is one of times in the same turn
        base, own = row["as_it_is_step_s"], row["step_s"]
        assert own["lowest"] / base["highest"] <= row["times_as_it_is"]["median"] <= own["highest"] / base["lowest"]
    assert "weights_bf16" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.process
def test_a_variant_that_fails_is_named(capfd):
    with pytest.raises(InputError, match="a variant's process ended with status 2"):
        step_variants.measure(("as_it_is",), 1, 1, ["--device", "cpu", "--augment.aug_severity", "12"])
    assert "aug_severity" in capfd.readouterr().err


def test_convolutions_are_found_with_their_shapes():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3, stride=2), nn.Flatten(), nn.Linear(4 * 16, 2))
    ((convolution, shape),) = conv_layouts.shapes_of(model, torch.zeros(2, 3, 12, 12))
    assert convolution is model[1]  # the first one's maps are images
    assert shape == (2, 8, 10, 10)


def test_the_product_of_patches_is_the_gradient_of_the_weights():
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 5, 3, stride=2, padding=1, bias=False).double()
    maps = torch.randn(4, 3, 9, 9, dtype=torch.float64)
    out = convolution(maps)
    gradient = torch.randn_like(out)
    out.backward(gradient)
    made = conv_layouts.patches_product(maps, gradient, convolution)
    torch.testing.assert_close(made, convolution.weight.grad.flatten(1))


def layouts_timed(out: Path, amp: str) -> dict[str, dict[str, float]]:
    """The sums that a run of the benchmark writes."""
    assert conv_layouts.main(["--turns", "1", "--out", str(out), *TINY, "--train.amp", amp]) == 0
    sums = json.loads(out.read_text())["sums_ms"]
    assert all(row["median"] > 0 for row in sums.values())
    return sums


@pytest.mark.slow
def test_all_layouts_are_timed(tmp_path, capsys):
    sums = layouts_timed(tmp_path / "layouts.json", "float32")
    assert len(sums) == 8
    assert conv_layouts.BLOCKED in sums
    assert "left out" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_layout_without_the_precision_is_left_out(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(conv_layouts, "onednn_has", lambda dtype: dtype != torch.bfloat16)
    sums = layouts_timed(tmp_path / "layouts.json", "bf16")
    assert len(sums) == 7
    assert conv_layouts.BLOCKED not in sums
    assert "this machine's oneDNN does not have bf16" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_onednn_computes_in_the_precisions_that_it_is_said_to_have(dtype):
    gradient, maps, weight = (torch.ones(shape).to(dtype) for shape in ((1, 16, 4, 4), (1, 16, 4, 4), (16, 16, 3, 3)))
    rest = (None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, conv_layouts.WEIGHTS)
    try:
        made = torch.ops.aten.convolution_backward(gradient.to_mkldnn(), maps.to_mkldnn(), weight, *rest)[1]
    except RuntimeError:
        assert not conv_layouts.onednn_has(dtype)
    else:
        assert conv_layouts.onednn_has(dtype)
        assert made.to_dense().float()[0, 0, 1, 1] == 16  # the sum over the map


@pytest.mark.parametrize("main", [step_variants.main, conv_layouts.main])
def test_no_turns_are_refused(main):
    with pytest.raises(InputError) as error:
        main(["--turns", "0"])
    assert str(error.value) == "turns: got 0; expected 1 or more."
