"""The pages that a newcomer reads: every command is run, shortened, and every block of Python, in the page's order."""

import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch.distributed.run import get_args_parser

from fastmagn.methods.table import METHODS
from fastmagn.models import MODELS, build_model
from fastmagn.training.run import train
from tests.helpers.commands import call
from tests.helpers.foreign_networks import AugmixWideResNet, trained_like
from tests.helpers.pages import DOCS, PAGES, README, blocks, commands, module_of, of_checkout, run_code, run_here
from tests.helpers.processes import ROOT, command_environment
from tests.helpers.small_runs import config_for, made_once
from tests.test_examples import EXAMPLES

INSTALL, QUICKSTART, OWN_LOOP = DOCS / "install.md", DOCS / "quickstart.md", DOCS / "own_loop.md"
MEASURE, EXPORT = DOCS / "measure_any_model.md", DOCS / "export.md"
ON_CIFAR = [command for command in commands(QUICKSTART) if "configs/cifar" in command]
PHOTOGRAPHS = [command for command in commands(MEASURE) if "IMAGENET_C" in command or "--images" in command]
OF_RUNS = [command for command in commands(MEASURE) if "RUN" in command and command not in PHOTOGRAPHS]
SHORT = ["--train.max_steps", "2", "--eval.num_images", "8", "--device", "cpu"]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty folder, in which commands are given."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory, pytestconfig) -> Path:
    return made_once(tmp_path_factory, pytestconfig, "pages", lambda run_dir: train(config_for(SHORT, run_dir)))


@pytest.fixture
def own_run(trained_run, here) -> Path:
    return shutil.copytree(trained_run, here / "run")


def test_every_extra_is_explained_and_named_as_it_is():
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    text = INSTALL.read_text()
    rows = re.findall(r"^\| (`.*?) \|", text[: text.index("## Machines with a GPU")], re.MULTILINE)
    assert sorted(name for row in rows for name in re.findall(r"`(\w+)`", row)) == sorted(extras)
    for named in re.findall(r"'(?:\.|fastmagn)\[([\w,]+)\]'", text):
        assert set(named.split(",")) <= extras


@pytest.mark.process
def test_completion_in_bash(tmp_path):
    """What Tab does after `fastmagn train --optim.l`."""
    (block,) = (block for block in blocks(INSTALL, "bash") if "completion" in block)
    command = 'fastmagn() { python -m fastmagn "$@"; }'  # this checkout's
    typed = "COMP_WORDS=(fastmagn train --optim.l) COMP_CWORD=2"
    complete = "$(complete -p fastmagn | sed 's/.*-F \\([^ ]*\\).*/\\1/')"
    script = f"{command}\n{block}\n{typed}\n{complete}\necho ${{COMPREPLY[@]}}"
    environment = command_environment()
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["--optim.lr"], done.stderr


def test_quickstart(here, capsys):
    """On the digits: both runs, in the folders that it names, and their report."""
    for command in (command for command in commands(QUICKSTART) if command not in ON_CIFAR):
        words = shlex.split(command)[2:]
        if module_of(command) == "train":
            shown = call([*words, *SHORT], capsys).stdout
        else:
            runs = sorted(map(str, Path("runs").iterdir()))
            call([word for given in words for word in (runs if given == "runs/*" else [given])], capsys)
    assert "clean accuracy" in shown
    made = "digits-magn_augmix-resnet_small-seed0"
    assert {path.name for path in Path("runs").iterdir()} == {made, made.replace("magn_augmix", "standard")}
    table = QUICKSTART.read_text().split("## What a run leaves")[1].split("Ctrl-C")[0]
    for name in re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE):
        assert (Path("runs") / made / name).exists(), name
    for name in ("report.html", "report.md", "report.json", "tables", "figures"):
        assert (here / "report" / name).exists(), name


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("command", ON_CIFAR)
def test_quickstart_on_cifar(command, data_dir, here, capsys):
    run_here(command, {"DIR": str(data_dir)}, capsys)
    assert (here / "run" / "results.json").exists()


def test_quickstart_names_every_network_and_counts_the_methods():
    text = QUICKSTART.read_text()
    assert all(f"`{name}`" in text for name in MODELS)
    assert len(METHODS) == 7 + 19
    assert "the paper's seven and 19 rivals" in text


def test_git_ignores_what_the_commands_write():
    """A clone in which README's and the pages' commands were given has no change."""
    named = [line.strip("/\n") for line in (ROOT / ".gitignore").open() if line.startswith("/")]
    words = [shlex.split(command) for page in (README, *PAGES) for command in commands(page)]
    written = {
        word.partition("/")[0]
        for command in words
        for option, word in itertools.pairwise(command)
        if option in ("--out", "--run_dir") and word not in ("DIR", "OUT") and "fastmagn.evaluate" not in command
    }
    assert {"report", "runs", "RUN", "model.onnx"} <= written
    assert [name for name in sorted(written) if not any(fnmatch(name, pattern) for pattern in named)] == []


def test_code_of_your_own_loop():
    run_code(OWN_LOOP)
    for command in commands(OWN_LOOP):
        assert Path(shlex.split(command)[1]).stem in EXAMPLES, "tests/test_examples.py runs these"


def test_measuring_a_run_again(own_run, here, capsys):
    """In the page's order: one command reads what another has stored. What torchrun starts is run without it."""
    call(["fastmagn.corrupt", "--dataset", "digits", "--num_images", "8", "--out", "set"], capsys)
    assert len(OF_RUNS) == 6
    for command in OF_RUNS:
        words = shlex.split(command.replace("RUN", "run").replace("SET", "set"))
        module = words[words.index("-m") + 1 :]
        short = [] if "--logits" in words else ["--eval.num_images", "8"]  # of stored logits all are measured
        assert "mCA" in call([*module, *short], capsys).stdout


def test_measuring_on_photographs(here, capsys):
    """A fine-tuned run of three classes on a -C set of image files, and on a folder of two of the classes."""
    generator = np.random.default_rng(0)
    cells = [f"set/{name}/{severity}" for name in ("fog", "brightness") for severity in range(1, 6)]
    for folder in ("photos/train", "photos/val", "others", *cells):
        for class_name in ("bird", "cat", "dog"):
            (here / folder / class_name).mkdir(parents=True)
            for i in range(3):
                pixels = generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(here / folder / class_name / f"{i}.jpg")
    shutil.rmtree(here / "others" / "dog")
    (here / "others" / "bird").rename(here / "others" / "wings")
    (here / "classes.csv").write_text("wings,bird\n")
    torch.save(build_model("resnet_small", num_classes=9, mean=(0,) * 3, std=(1,) * 3).state_dict(), here / "w.pth")
    small = ["--model.name", "resnet_small", "--data.image_size", "32"]
    tuned = [
        "--config",
        of_checkout("configs/finetune_folder.yaml"),
        "--data.dir",
        "photos",
        "--model.weights",
        "w.pth",
    ]
    call(["fastmagn.train", *tuned, *SHORT, *small, "--train.batch_size", "4", "--run_dir", "run"], capsys)
    torch.save(torchvision.models.resnet50(num_classes=3).state_dict(), here / "resnet50.pth")
    places = {"RUN": "run", "IMAGENET_C": "set", "RENDITIONS": "others", "IMAGENET": "photos"}
    places["FILE"] = "run/checkpoints/last.pt"
    shown = ""
    for command in PHOTOGRAPHS:
        words = [places.get(word, word) for word in shlex.split(command)[2:]]
        every = [] if "--images" in words else ["--eval.num_images", "0"]  # of a folder all are measured
        shown += call([*words, "--device", "cpu", *every], capsys).stdout
    assert shown.count("among these 2 classes") == 3


@pytest.mark.data
def test_measuring_published_weights(data_dir, here, capsys):
    torch.save(trained_like(AugmixWideResNet()).state_dict(), "augmix.pth")
    (command,) = (command for command in commands(MEASURE) if "augmix.pth" in command)
    assert "clean accuracy" in run_here(command, {"DIR": str(data_dir)}, capsys)
    assert (here / "augmix.evaluation.json").exists()


def test_code_that_measures_any_model():
    run_code(MEASURE)
    for command in (command for command in commands(MEASURE) if not command.startswith(("python -m", "torchrun"))):
        assert Path(shlex.split(command)[1]).stem in EXAMPLES, "tests/test_examples.py runs these"


def test_exporting_loading_and_sharing(trained_run, here, monkeypatch, capsys):
    """The code loads what the commands have written, and from a stand-in for the hub what they have sent."""
    pytest.importorskip("huggingface_hub")
    from tests.helpers.hub import stand_in  # needs huggingface_hub

    stand_in(here / "hub", monkeypatch)
    for command in commands(EXPORT):
        run_here(command, {"RUN": str(trained_run)}, capsys)
    assert (here / "model.onnx.md").exists()
    run_code(EXPORT)


def test_the_geometry_of_the_loss(own_run, here, capsys):
    (command,) = (command for command in commands(DOCS / "reproducing.md") if module_of(command) == "theory")
    run_here(command, {"RUN": "run"}, capsys)
    assert (here / "geometry" / "geometry.png").exists()


@pytest.mark.data
def test_making_a_corrupted_set(data_dir, here, capsys):
    for command in commands(DOCS / "corrupted_sets.md"):
        if module_of(command) == "corrupt":
            short = [] if "--verify" in command else ["--num_images", "5"]
            run_here(shlex.join([*shlex.split(command), *short]), {"DIR": str(data_dir), "SET": "set"}, capsys)
    assert (here / "set" / "manifest.json").exists()


def test_what_starts_several_processes_is_understood():
    """torchrun's own options. tests/machine/test_processes.py trains and measures on two processes."""
    found = [shlex.split(command) for page in PAGES for command in commands(page) if command.startswith("torchrun ")]
    assert {words[words.index("-m") + 1] for words in found} == {"fastmagn.train", "fastmagn.evaluate"}
    for words in found:
        asked = get_args_parser().parse_args(words[1:])
        assert int(asked.nproc_per_node) > 1
        assert asked.module
        assert asked.training_script_args == words[words.index("-m") + 2 :]
