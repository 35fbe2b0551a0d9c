"""README is short, its commands and code are run, shortened, and its links and its citation are right."""

import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from fastmagn.models import build_model
from tests.helpers.commands import call
from tests.helpers.pages import README, blocks, commands, of_checkout
from tests.helpers.photo_folders import make_photo_folder
from tests.helpers.processes import ROOT, run

TEXT = README.read_text()
COMMANDS = commands(README)
SET_UP = [command for command in COMMANDS if command.startswith("python3 -m venv")]
ON_DIGITS = [c for c in COMMANDS if c.startswith("python -m fastmagn.") and "configs/" not in c]
ON_CIFAR = [command for command in COMMANDS if "configs/cifar10" in command]
ON_PHOTOS = [command for command in COMMANDS if "configs/finetune_folder" in command]
SHORT = ["--train.max_steps", "2", "--eval.num_images", "8", "--device", "cpu"]
MAX_LINES, FIRST_SCREEN = 150, 40


def test_it_is_short_and_begins_with_two_set_up_commands_and_ci_runs_the_second():
    lines = TEXT.splitlines()
    assert len(lines) <= MAX_LINES
    assert len(SET_UP) == 2
    assert all(lines.index(command) < FIRST_SCREEN for command in SET_UP)
    assert sorted([*SET_UP, *ON_DIGITS, *ON_CIFAR, *ON_PHOTOS]) == sorted(COMMANDS), "a command that no test runs"
    assert SET_UP[0].endswith(".venv/bin/python -m fastmagn.train")
    assert SET_UP[1].endswith(".venv/bin/python -m pytest")
    for command in SET_UP:
        extras = re.search(r"pip install -c constraints\.txt -e '\.\[(.+?)\]'", command)[1]
        declared = (ROOT / "pyproject.toml").read_text()
        assert all(f"\n{extra} = [" in declared for extra in extras.split(","))
    assert r"grep -m 1 -e '-m pytest$' README.md" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.process
def test_the_first_commands_training_shortened(tmp_path):
    """Its last lines are those that README shows, with other numbers."""
    done = run(["fastmagn.train", *SHORT], tmp_path)
    (shown,) = blocks(README, "text")
    number = re.compile(r"[\d.]+ ")
    assert [number.sub("", line) for line in done.stdout.splitlines()[-7:]] == [
        number.sub("", line) for line in shown.splitlines()
    ]
    assert (tmp_path / "runs" / "digits-magn_augmix-resnet_small-seed0" / "results.json").exists()


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty folder, in which commands are given."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_baseline_and_the_report(here, capsys):
    for command in ON_DIGITS:
        words = [str(next(here.glob("runs/*"))) if word == "runs/*" else word for word in shlex.split(command)[2:]]
        call([*words, *(SHORT if words[0] == "fastmagn.train" else [])], capsys)
    assert "<h1>Robustness report</h1>" in (here / "report" / "report.html").read_text()


def with_folder(command: str, data_dir: Path) -> list[str]:
    """A training command from its module on, with this machine's folders of images and configurations."""
    return [str(data_dir) if word == "DIR" else of_checkout(word) for word in shlex.split(command)[2:]]


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("command", ON_CIFAR)
def test_training_on_cifar(command, data_dir, here, capsys):
    call([*with_folder(command, data_dir), *SHORT, "--train.batch_size", "16", "--run_dir", "run"], capsys)
    assert (here / "run" / "results.json").exists()


@pytest.mark.data
@pytest.mark.parametrize("command", ON_CIFAR)
def test_training_on_cifar_is_understood(command, data_dir, here, capsys):
    shown = call([*with_folder(command, data_dir), "--print_config"], capsys).stdout
    assert f"dir: {data_dir}\n" in shown


def test_fine_tuning_on_photos(here, capsys):
    """From weights of a network with other classes."""
    make_photo_folder(here / "PHOTOS", 20, 8)
    torch.save(build_model("resnet_small", num_classes=9, mean=(0,) * 3, std=(1,) * 3).state_dict(), "w.pth")
    for command in ON_PHOTOS:
        words = ["w.pth" if word == "FILE" else of_checkout(word) for word in shlex.split(command)[2:]]
        small = ["--train.batch_size", "8", "--model.name", "resnet_small", "--data.image_size", "32"]
        shown = call([*words, *SHORT, *small, "--run_dir", "run"], capsys).stdout
    assert "magn_augmix on folder: 20 images in 4 views\nimages decoded by " in shown
    assert (here / "run" / "results.json").exists()


def test_code(capsys):
    """With the images and the model that each block needs. The loop leaves gradients."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    images_u8, labels = torch.randint(256, (8, 32, 32, 3), dtype=torch.uint8).numpy(), torch.randint(10, (8,))
    loader = [(torch.rand(8, 3, 32, 32), labels)] * 2
    names = {"model": model, "loader": loader, "images_u8": images_u8, "labels": labels}
    found = blocks(README, "python")
    assert len(found) == 2
    assert all(len(block.splitlines()) <= 10 for block in found)
    for block in found:
        exec(compile(block, "README.md", "exec"), names | {"normalize": lambda images: images - 0.5})
    assert model[1].weight.grad.abs().sum() > 0
    clean, mca, error = map(float, capsys.readouterr().out.splitlines()[-1].split())
    assert 0 <= min(clean, mca, error) <= max(clean, mca, error) <= 1


def test_links_lead_to_files():
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        path, _, heading = target.partition("#")
        if not path.startswith("https://"):
            assert (ROOT / path).exists(), target
            assert not heading or f"\n## {heading.capitalize()}\n" in TEXT, target


def test_the_citation_is_that_of_the_citation_file():
    paper = yaml.safe_load((ROOT / "CITATION.cff").read_text())["preferred-citation"]
    (entry,) = blocks(README, "bibtex")
    fields = dict(re.findall(r"(\w+) = \{(.+?)\}", entry))
    assert fields["title"] == paper["title"]
    assert fields["author"] == " and ".join(f"{who['family-names']}, {who['given-names']}" for who in paper["authors"])
    assert int(fields["year"]) == paper["year"]
    assert fields["journal"].removeprefix("arXiv preprint arXiv:") == paper["url"].removeprefix(
        "https://arxiv.org/abs/"
    )
