"""configs/imagenet and configs/finetune_folder.yaml: AugMix's published recipe, and runs on small photographs."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastmagn.config.command_line import parse_config
from fastmagn.config.schema import AugmentConfig, Config, LossConfig, OptimConfig
from fastmagn.corruptions import CORRUPTION_SETS
from fastmagn.evaluate import main
from fastmagn.models import build_model
from fastmagn.training.run import train
from tests.helpers.processes import ROOT, TWO_PROCESSES, run

CONFIGS = ROOT / "configs"
METHODS = ("standard", "augmix", "magn_augmix")
CLASSES = ("n01440764", "n01443537", "n01484850")


def parse(file: str, *arguments: str) -> Config:
    return parse_config(["--config", str(CONFIGS / file), *arguments], "test", "A test.")


@pytest.mark.parametrize("method", METHODS)
def test_the_recipe_is_augmixs(method):
    """google-research/augmix, imagenet.py: its defaults, with the 180 epochs of the paper."""
    config = parse(f"imagenet/{method}.yaml")
    assert (config.method, config.data.name, config.data.image_size) == (method, "folder", 224)
    assert (config.model.name, config.train.epochs, config.train.batch_size) == ("resnet50", 180, 256)
    assert config.optim == OptimConfig(lr=0.1, momentum=0.9, weight_decay=1e-4, schedule="step", step_epochs=60)
    plain = {"crop_padding_px": 0, "rotation_deg": 0, "color_jitter": 0}
    assert config.augment == AugmentConfig(
        aug_severity=1, mixture_width=3, mixture_depth=-1, horizontal_flip=True, sigma_max=0.2, **plain
    )
    assert config.data.min_crop_area == 0.08
    assert config.loss == LossConfig(consistency_weight=3, jsd_weight=12)


@pytest.mark.parametrize("method", METHODS)
def test_eight_gpus_scale_batch_and_learning_rate_alone(method):
    one, eight = parse(f"imagenet/{method}.yaml"), parse(f"imagenet/8_gpus/{method}.yaml")
    ratio = eight.train.batch_size / one.train.batch_size
    assert eight.train.batch_size % 8 == 0
    assert eight.optim.lr == pytest.approx(ratio * one.optim.lr)
    train, optim = (
        dataclasses.replace(eight.train, batch_size=one.train.batch_size),
        dataclasses.replace(eight.optim, lr=one.optim.lr),
    )
    assert dataclasses.replace(eight, train=train, optim=optim) == one


def save_images(folder: Path, num_images: int, generator: np.random.Generator) -> None:
    """Photographs of `num_images` in each class, of several sizes: each class has its own colour."""
    for label, class_name in enumerate(CLASSES):
        (folder / class_name).mkdir(parents=True)
        for i in range(num_images):
            height, width = generator.integers(40, 90, 2)
            pixels = generator.integers(0, 120, (height, width, 3))
            pixels[:, :, label] += 120
            Image.fromarray(pixels.astype(np.uint8)).save(folder / class_name / f"{i:04}.JPEG")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    folder, generator = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    save_images(folder / "train", 8, generator)
    save_images(folder / "val", 4, generator)
    return folder


SMALL = ["--model.name", "resnet_small", "--data.image_size", "32", "--train.batch_size", "8", "--device", "cpu"]
SHORT = ["--train.max_steps", "2", "--eval.num_images", "5", "--data.num_workers", "1", "--data.source", "torchvision"]


@pytest.mark.parametrize("file", [f"imagenet/8_gpus/{method}.yaml" for method in METHODS])
def test_each_runs_to_its_results(file, photographs, tmp_path):
    arguments = ["--data.dir", str(photographs), "--run_dir", str(tmp_path / "run"), *SMALL, *SHORT]
    results = train(parse(file, *arguments))
    assert results["steps"] == 2
    assert results["num_images"] == 5
    assert results["config"]["augment"]["aug_severity"] == 1


@pytest.mark.parametrize("name", ["webdataset", "hf"])
def test_shards_and_tables_are_fine_tuned_as_folders_are(name):
    file = {"webdataset": "finetune_shards.yaml", "hf": "finetune_hf.yaml"}[name]
    folder = parse("finetune_folder.yaml")
    assert parse(file) == dataclasses.replace(folder, data=dataclasses.replace(folder.data, name=name))


def test_fine_tuning_then_imagenet_c_and_other_images(photographs, tmp_path, capsys):
    """From weights for seven classes; measured again on a -C set of files and on a folder of two of the classes."""
    options = {"mean": (0.5,) * 3, "std": (0.2,) * 3, "seed": 9}
    pretrained = build_model("resnet_small", num_classes=7, **options).network.state_dict()
    torch.save(pretrained, tmp_path / "pretrained.pth")
    run_dir, own = tmp_path / "run", shutil.copytree(photographs, tmp_path / "photographs")
    arguments = ["--data.dir", str(own), "--run_dir", str(run_dir), *SMALL, *SHORT]
    train(parse("finetune_folder.yaml", *arguments, "--model.weights", str(tmp_path / "pretrained.pth")))
    assert "new for 3 classes: head.weight, head.bias" in capsys.readouterr().out
    generator = np.random.default_rng(1)
    for name in CORRUPTION_SETS["c15"]:
        for severity in range(1, 6):
            save_images(tmp_path / "set" / name / str(severity), 4, generator)
    assert main(["--run", str(run_dir), "--corrupted", str(tmp_path / "set"), "--eval.num_images", "0"]) == 0
    shutil.rmtree(own)  # not needed any more
    save_images(tmp_path / "renditions", 3, generator)
    (tmp_path / "renditions" / CLASSES[0]).rename(tmp_path / "renditions" / "tench")
    (tmp_path / "classes.csv").write_text(f"folder,class\ntench,{CLASSES[0]}\n")
    images = ["--images", str(tmp_path / "renditions"), "--classes", str(tmp_path / "classes.csv")]
    assert main(["--run", str(run_dir), *images]) == 0
    results = json.loads((run_dir / "evaluation.json").read_text())
    assert results["num_images"] == 12
    assert results["mca"]["c15"] == pytest.approx(np.mean(list(results["corruption_accuracy"].values())))
    entry = results["image_folders"][str(tmp_path / "renditions")]
    assert (entry["num_images"], entry["num_classes"]) == (9, 3)
    assert entry["own_classes"] == entry["all_classes"]  # the folder has all classes


@pytest.mark.slow
@pytest.mark.process
def test_two_processes_measure_image_files_as_one_does(photographs, tmp_path):
    """Also where one of them meets a file that cannot be read."""
    run_dir = tmp_path / "run"
    exact = ["--train.amp", "float32", "--data.dir", str(photographs), "--run_dir", str(run_dir)]
    train(parse("finetune_folder.yaml", *SMALL, *SHORT, *exact))
    generator = np.random.default_rng(2)
    for severity in range(1, 6):
        save_images(tmp_path / "set" / "fog" / str(severity), 4, generator)
    save_images(tmp_path / "others", 5, generator)
    for damaged in (tmp_path / "set" / "fog" / "2" / CLASSES[2], tmp_path / "others" / CLASSES[0]):
        (damaged / "0003.JPEG").write_bytes(b"not a picture")
    for what in (["--corrupted", "set", "--eval.num_images", "0"], ["--images", "others"]):
        together, alone = tmp_path / "together.json", tmp_path / "alone.json"
        folders = [str(tmp_path / word) if word in ("set", "others") else word for word in what]
        arguments = ["--run_dir", str(run_dir), *folders, "--out"]
        assert main([*arguments, str(alone)]) == 0
        done = run([*TWO_PROCESSES, "-m", "fastmagn.evaluate", *arguments, str(together)], tmp_path)
        assert done.stdout.count("left out") == 1 + ("--corrupted" in what)  # rank 0 alone prints; frost and others
        one, two = json.loads(alone.read_text()), json.loads(together.read_text())
        assert accuracies_of(one) == accuracies_of(two)


def accuracies_of(results: dict) -> list:
    if "image_folders" not in results:
        return [results["clean_accuracy"], results["corruption_accuracy"], results["class_accuracy"]]
    names = ("num_images", "own_classes", "class_accuracy")
    return [{name: entry[name] for name in names} for entry in results["image_folders"].values()]
