"""Weights are compared with a network before the network takes memory."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models as torchvision_models

import fastmagn
from fastmagn.config.schema import Config, ModelConfig
from fastmagn.errors import InputError
from fastmagn.exporting.info import METADATA_KEY
from fastmagn.machine.files import write_json
from fastmagn.models import MODELS, build_model
from fastmagn.models.shapes import fits
from tests.helpers.processes import run
from tests.helpers.run_folders import MEAN, STD, made_results, plain_probabilities, write_run
from tests.helpers.tiers import slow_but

INFO = {
    **{"format_version": 1, "num_classes": 2, "class_names": ["a", "b"], "image_size": [224, 224], "resize_px": 224},
    **{"mean": [0, 0, 0], "std": [1, 1, 1], "data": "d", "method": "m", "weights": "last", "bn_views": "joint"},
    **{"test_time_flip": False, "noise_draws": 0, "results": None, "fastmagn": "0.1.0"},
}
NAMES = [*MODELS, *(f"torchvision:{name}" for name in ("regnet_x_400mf", "swin_t", "vit_b_16", "densenet121"))]


@pytest.mark.parametrize("name", NAMES)
def test_a_networks_own_weights_fit_and_others_do_not(name):
    options = {"num_classes": 3, "image_size": (32, 32)}
    state = build_model(name, mean=(0.0,) * 3, std=(1.0,) * 3, **options).state_dict()
    assert fits(state, name, **options)
    assert not fits(state, name, num_classes=4, image_size=(32, 32))
    first = next(iter(state))
    assert not fits({key: value for key, value in state.items() if key != first}, name, **options)
    assert not fits(state | {"more": torch.zeros(1)}, name, **options)
    assert not fits(state | {first: 3}, name, **options)


def test_an_own_network_that_needs_values_when_it_is_built(tmp_path, monkeypatch):
    """A tensor without values has no numpy()."""

    def scaled(num_classes: int) -> nn.Module:
        network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, num_classes))
        largest = float(np.abs(network[1].weight.detach().numpy()).max())
        nn.init.uniform_(network[1].weight, -largest / 2, largest / 2)
        return network

    monkeypatch.setitem(MODELS, "scaled", scaled)
    config = Config(run_dir=str(tmp_path), model=ModelConfig(name="scaled"))
    model = build_model("scaled", num_classes=10, mean=MEAN, std=STD, seed=1).eval()
    write_run(tmp_path, config, model=model)
    write_json(tmp_path / "results.json", made_results(config))
    images_u8 = np.random.default_rng(0).integers(256, size=(3, 32, 32, 3), dtype=np.uint8)
    wanted = plain_probabilities(model, images_u8)
    np.testing.assert_allclose(fastmagn.load(tmp_path, "cpu").predict(images_u8).probabilities, wanted, atol=1e-5)
    assert fits(model.state_dict(), "scaled", num_classes=10, image_size=(32, 32))


LARGE = ("vit_h_14", "regnet_y_128gf", "vgg19", "convnext_large", "swin_v2_b")


@pytest.mark.process
@pytest.mark.parametrize("name", slow_but(LARGE, "vit_h_14", "regnet_y_128gf"))
def test_a_small_file_that_names_a_large_network_takes_no_memory(name, tmp_path):
    assert name in torchvision_models.list_models()
    info = json.dumps(INFO | {"network": f"torchvision:{name}"})
    save_file({"mean": torch.zeros(1)}, tmp_path / "a.safetensors", metadata={METADATA_KEY: info})
    program = (
        "import resource, sys, fastmagn, torchvision.models, fastmagn.exporting.classifier\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: fastmagn.load(sys.argv[1], device='cpu')\n"
        "except fastmagn.errors.InputError as error: print(error)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    line, grown_mib = run(["-c", program, str(tmp_path / "a.safetensors")], tmp_path).stdout.splitlines()
    assert line.endswith(f"its weights do not fit its network, torchvision:{name}; export the run again.")
    assert int(grown_mib) < 100


def test_an_unknown_network_is_named(tmp_path):
    info = json.dumps(INFO | {"network": "torchvision:resnet19"})
    save_file({"mean": torch.zeros(1)}, tmp_path / "a.safetensors", metadata={METADATA_KEY: info})
    with pytest.raises(InputError, match="resnet19"):
        fastmagn.load(tmp_path / "a.safetensors", device="cpu")
