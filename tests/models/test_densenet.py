"""DenseNet-121 for CIFAR as the field has it, and weights of the form that earlier versions built."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torchvision.models.densenet import DenseNet

import fastmagn
from fastmagn.config.command_line import parse_config
from fastmagn.data import load_images, split_validation
from fastmagn.evaluation.trained import load_run
from fastmagn.exporting.config import ExportConfig
from fastmagn.exporting.export import export
from fastmagn.machine.files import write_json
from fastmagn.machine.hardware import settle_hardware
from fastmagn.models import Normalised, build_model
from fastmagn.models.pretrained import load_pretrained
from fastmagn.runs.paths import last_checkpoint
from fastmagn.training.build import build_run
from fastmagn.training.run import train
from tests.helpers.foreign_networks import KuangliuDenseNet121, trained_like
from tests.helpers.run_folders import MEAN, STD, made_results, write_run

SMALL = "densenet121_k12"


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def older_form(growth: int = 12, num_classes: int = 10) -> DenseNet:
    """What earlier versions built, with the ImageNet stem's normalisation and ReLU."""
    network = DenseNet(growth, (6, 12, 24, 16), 2 * growth, num_classes=num_classes)
    network.features.conv0 = nn.Conv2d(3, 2 * growth, kernel_size=3, padding=1, bias=False)
    network.features.pool0 = nn.Identity()
    return trained_like(network)


@pytest.fixture(scope="module")
def old() -> Normalised:
    return Normalised(older_form(), MEAN, STD).eval()


@pytest.fixture
def old_run(old, tmp_path):
    """A run folder whose checkpoint holds the older form."""
    folder = tmp_path / "run"
    config = parse_config(["--run_dir", str(folder), "--model.name", SMALL, "--method", "standard"], "test", "")
    write_run(folder, config, model=old)
    write_json(folder / "results.json", made_results(config))
    return folder


def images() -> torch.Tensor:
    return torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def test_the_fields_numbers_of_parameters(build):
    assert count(build("densenet121").network) == 6_956_298 == count(KuangliuDenseNet121())
    assert count(build(SMALL).network) == count(KuangliuDenseNet121(growth=12))
    assert not any("norm0" in name for name in build(SMALL).state_dict())


def test_the_stem_is_one_convolution(build):
    stem = nn.Sequential(*list(build(SMALL).network.features.children())[:4])
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(stem(x), stem[0](x))


def test_an_old_run_gives_its_old_outputs(old, old_run):
    trained = load_run(old_run)
    with torch.no_grad():
        assert torch.equal(trained.network(images()), old(images()))


def test_an_old_run_is_exported_and_read(old, old_run, tmp_path):
    file = tmp_path / "old.safetensors"
    export(ExportConfig(run=old_run, format="safetensors", out=file))
    assert "network.features.norm0.weight" in load_file(file)
    with torch.no_grad():
        wanted = old(images()).softmax(dim=1).numpy()
    got = fastmagn.load(file, device="cpu").predict(images())
    assert abs(got.probabilities - wanted).max() < 1e-5


@pytest.mark.parametrize("options", [{}, {"bn_views": "per_view", "num_views": 2}])
def test_old_weights_as_first_weights(old, tmp_path, options):
    torch.save(old.state_dict(), tmp_path / "old.pt")
    new = build_model(SMALL, num_classes=10, mean=MEAN, std=STD, **options).eval()
    load_pretrained(new.network, tmp_path / "old.pt", 10)
    with torch.no_grad():
        assert torch.equal(new(images()), old(images()))
    split = options.get("num_views", 1)
    assert all(getattr(m, "num_views", 1) == split for m in new.modules() if isinstance(m, nn.BatchNorm2d))


def test_a_resumed_run_is_built_in_the_form_of_its_checkpoint(old_run):
    config = parse_config(["--config", str(old_run / "config.yaml"), "--device", "cpu"], "test", "")
    image_set = load_images("digits", "data")
    for changed, has_norm in ((config, True), (dataclasses.replace(config, run_dir=old_run / "new"), False)):
        run = build_run(settle_hardware(changed), image_set, split_validation(image_set, 0, 0)[0])
        assert ("network.features.norm0.weight" in run.model.state_dict()) == has_norm


@pytest.mark.slow
def test_a_run_of_the_older_form_resumes_in_it(old, tmp_path):
    """Steps of learning rate 1e-12 leave the weights what they were; a new run has the new form."""
    torch.save(old.state_dict(), tmp_path / "old.pt")
    arguments = ["--model.name", SMALL, "--method", "standard", "--train.batch_size", "4", "--device", "cpu"]
    arguments += ["--eval.num_images", "2", "--eval.corruption_set", "c15", "--optim.lr", "1e-12"]
    arguments += ["--train.checkpoint_every_steps", "1", "--run_dir", str(tmp_path / "run")]

    def run(*more: str) -> dict:
        return train(parse_config([*arguments, *more], "test", ""))

    run("--model.weights", str(tmp_path / "old.pt"), "--train.max_steps", "1")
    (tmp_path / "old.pt").unlink()
    assert run("--model.weights", str(tmp_path / "old.pt"), "--train.max_steps", "2")["steps"] == 2
    saved = torch.load(last_checkpoint(tmp_path / "run"), weights_only=True)["model"]
    for name, value in old.state_dict().items():
        if name.startswith("network.") and name.endswith(("weight", "bias")):
            torch.testing.assert_close(saved[name], value, rtol=0, atol=1e-6)
    assert json.loads((tmp_path / "run" / "results.json").read_text())["steps"] == 2
