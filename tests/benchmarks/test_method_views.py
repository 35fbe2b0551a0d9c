"""benchmarks.method_views, tiny: its JSON is strict and complete, and plain code makes the same kinds of views."""

import json

import numpy as np
import pytest
import torch

from benchmarks import method_views as benchmark
from benchmarks.method_views import RIVALS
from fastmagn.config.schema import AugmentConfig
from fastmagn.methods.table import METHODS, get_method
from fastmagn.registry import resolve

# Their plain code, as their authors', leaves [0, 1], and leaves a whole batch unmixed where one draw says so.
UNCLIPPED = ("apr", "hybridaugment")


@pytest.mark.slow
def test_json(tmp_path):
    path = tmp_path / "views.json"
    arguments = [
        "--methods",
        "prime",
        "augmix_no_jsd",
        "--network",
        "resnet_small",
        "--batch",
        "4",
        "--step_batch",
        "2",
    ]
    assert benchmark.main([*arguments, "--rounds", "2", "--out", str(path)]) == 0
    result = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert set(result) == {"benchmark", "command", "environment", "settings", "methods"}
    assert set(result["methods"]) == {"prime", "augmix_no_jsd"}
    for row in result["methods"].values():
        for name in (
            "views_images_per_s",
            "plain_images_per_s",
            "step_images_per_s",
            "ratio_to_plain",
            "share_of_step",
        ):
            assert 0 < row[name]["lowest"] <= row[name]["median"] <= row[name]["highest"]


@pytest.mark.parametrize("method", RIVALS)
def test_plain_code_makes_as_many_views_in_0_to_1(method):
    assert method in METHODS
    images_u8 = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    views = resolve(RIVALS, method, "methods")(images_u8, np.random.default_rng(0))
    num_views = get_method(method).layout(AugmentConfig()).num_views
    assert views.shape == (4 * num_views, 3, 16, 16)
    assert views.dtype == torch.float32
    if method in UNCLIPPED:
        return
    assert views.min() >= -1e-6
    assert views.max() <= 1 + 1e-6
    assert len(torch.unique(views.flatten(1), dim=0)) == len(views)
