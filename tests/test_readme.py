"""Every command in README is run, shortened: a few steps, a few images, the data folder of the tests."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastmagn.models import build_model
from fastmagn.sweeping.arguments import parse_arguments
from fastmagn.sweeping.definition import make_trials
from fastmagn.training.run import train
from tests.helpers.commands import call
from tests.helpers.photo_folders import make_photo_folder
from tests.helpers.processes import LAUNCHER, ROOT, TWO_PROCESSES, command_environment, run
from tests.helpers.small_runs import config_for, made_once

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
COMMANDS = [line for language, block in BLOCKS if not language for line in block.strip().splitlines()]
SET_UP = [command for command in COMMANDS if command.startswith("python3 -m venv")]
TRAINING_ON_FILES = [c for c in COMMANDS if "fastmagn.train --data.name folder" in c]
PHOTOGRAPHS = [c for c in COMMANDS if any(word in c for word in ("finetune_folder", "IMAGENET_C", "--images"))]
TRAINING = [c for c in COMMANDS if c.startswith("python -m fastmagn.train --config") and c not in PHOTOGRAPHS]
TRAINING_TOGETHER = [command for command in COMMANDS if command.startswith("torchrun") and "fastmagn.train" in command]
BENCHMARKS = [command for command in COMMANDS if command.startswith("python -m benchmarks.")]
EVALUATION = [command for command in COMMANDS if "-m fastmagn.evaluate" in command and command not in PHOTOGRAPHS]
THEORY = [command for command in COMMANDS if command.startswith("python -m fastmagn.theory")]
CORRUPTION = [command for command in COMMANDS if command.startswith("python -m fastmagn.corrupt")]
SWEEP = [command for command in COMMANDS if command.startswith("python -m fastmagn.sweep")]
REPORT = [command for command in COMMANDS if command.startswith("python -m fastmagn.report")]
EXPORT = [command for command in COMMANDS if command.startswith("python -m fastmagn.export")]
SHORT = ["--train.max_steps", "2", "--eval.num_images", "8", "--device", "cpu"]


def test_readme_has_two_set_up_commands_and_ci_runs_the_second():
    assert len(SET_UP) == 2
    tested = [*SET_UP, *TRAINING, *TRAINING_ON_FILES, *PHOTOGRAPHS, *TRAINING_TOGETHER, *EVALUATION, *THEORY]
    tested += [*CORRUPTION, *REPORT, *SWEEP, *EXPORT, *BENCHMARKS]
    assert sorted(tested) == sorted(COMMANDS), "a command that no test runs"
    assert SET_UP[0].endswith(".venv/bin/python -m fastmagn.train")
    assert SET_UP[1].endswith(".venv/bin/python -m pytest")
    for command in SET_UP:
        extras = re.search(r"pip install -c constraints\.txt -e '\.\[(.+?)\]'", command)[1]
        declared = (ROOT / "pyproject.toml").read_text()
        assert all(f"\n{extra} = [" in declared for extra in extras.split(","))
    assert r"grep -m 1 -e '-m pytest$' README.md" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.process
def test_the_first_commands_training_shortened(tmp_path):
    done = run(["fastmagn.train", *SHORT], tmp_path)
    assert "clean accuracy" in done.stdout
    command = "python -m fastmagn.report runs/digits-magn_augmix-resnet_small-seed0 --out report"
    assert done.stdout.endswith(f"tables, figures and a page of it: {command}\n")
    assert (tmp_path / "runs" / "digits-magn_augmix-resnet_small-seed0" / "results.json").exists()


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty folder, in which commands are given."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory, pytestconfig) -> Path:
    return made_once(tmp_path_factory, pytestconfig, "readme", lambda run_dir: train(config_for(SHORT, run_dir)))


@pytest.fixture
def own_run(trained_run, here) -> Path:
    return shutil.copytree(trained_run, here / "run")


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("command", TRAINING)
def test_training_commands(command, data_dir, here, capsys):
    call([*with_folders(command, data_dir), *SHORT, "--train.batch_size", "16", "--run_dir", "run"], capsys)
    assert (here / "run" / "results.json").exists()


@pytest.mark.data
@pytest.mark.parametrize("command", [*TRAINING, *TRAINING_TOGETHER])
def test_training_commands_are_understood(command, data_dir, here, capsys):
    shown = call([*with_folders(command, data_dir), "--print_config"], capsys).stdout
    assert f"dir: {data_dir}\n" in shown


def with_folders(command: str, data_dir: Path) -> list[str]:
    """A training command from its module on, with this machine's folders of images and configurations."""
    words = shlex.split(command)
    words[words.index("DIR")] = str(data_dir)
    words[words.index("--config") + 1] = str(ROOT / words[words.index("--config") + 1])
    return words[words.index("-m") + 1 :]


@pytest.mark.parametrize("command", TRAINING_ON_FILES)
def test_training_on_ones_own_images(command, here, capsys):
    photos = make_photo_folder(here / "photos", 20, 8)
    arguments = [str(photos) if argument == "PHOTOS" else argument for argument in shlex.split(command)[2:]]
    small = ["--train.batch_size", "8", "--model.name", "resnet_small", "--data.image_size", "32", "--run_dir", "run"]
    shown = call([*arguments, *SHORT, *small], capsys).stdout
    assert "magn_augmix on folder: 20 images in 4 views\nimages decoded by " in shown
    assert (here / "run" / "results.json").exists()


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.data
def test_training_on_several_processes(data_dir, tmp_path):
    """README's and the page's command, on two processes of this machine."""
    for command in TRAINING_TOGETHER:
        quick = ["--model.name", "resnet_small", "--train.batch_size", "16", "--run_dir", "run", *SHORT]
        run([*TWO_PROCESSES, "-m", *with_folders(command, data_dir), *quick], tmp_path)
        assert (tmp_path / "run" / "results.json").exists()


def test_the_page_on_several_gpus_has_readmes_commands():
    page = (ROOT / "docs" / "several_gpus.md").read_text()
    assert all(command in page for command in TRAINING_TOGETHER)


def test_benchmarks_are_there(capsys):
    """That they run is tested in tests/benchmarks; here that README names existing ones, with existing options."""
    for command in BENCHMARKS:
        module, *arguments = shlex.split(command)[2:]
        shown = call([module, "--help"], capsys).stdout
        options = [argument for argument in arguments if argument.startswith("--") and "." not in argument]
        assert all(option in shown or option == "--config" for option in options), command


def test_export_commands_and_python_examples(trained_run, here, capsys):
    """In README's order: the examples load what the commands have written."""
    assert EXPORT
    for command in EXPORT:
        call([argument.replace("RUN", str(trained_run)) for argument in shlex.split(command)[2:]], capsys)
    assert (here / "model.onnx.md").exists()
    examples = [block for language, block in BLOCKS if language == "python"]
    assert len(examples) >= 3
    for example in examples:
        exec(compile(example, "README.md", "exec"), {})


@pytest.mark.parametrize("launched", [False, pytest.param(True, marks=[pytest.mark.slow, pytest.mark.process])])
def test_evaluation_commands(launched, own_run, here, capsys):
    """In README's order: one of them reads what another has stored. What torchrun starts is also run without it."""
    call(["fastmagn.corrupt", "--dataset", "digits", "--num_images", "8", "--out", "set"], capsys)
    for command in EVALUATION:
        words = shlex.split(command.replace("RUN", "run").replace("SET", "set"))
        module = words[words.index("-m") + 1 :]
        short = ["--eval.num_images", "8"]
        if launched and words[0] == "torchrun":
            shown = run([LAUNCHER, "--standalone", *words[1:], *short], here).stdout
        else:
            shown = call([*module, *short], capsys).stdout
        assert "mCA" in shown


def test_commands_on_photographs(here, capsys):
    """Fine-tuning on three classes, then a -C set of image files and a folder of two of the classes."""
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
    places = {"PHOTOS": "photos", "FILE": "w.pth", "RUN": "run", "IMAGENET_C": "set", "RENDITIONS": "others"}
    places["configs/"] = f"{ROOT}/configs/"
    for command in PHOTOGRAPHS:
        for word, place in places.items():
            command = command.replace(word, place)
        small = ["--model.name", "resnet_small", "--data.image_size", "32", "--device", "cpu"]
        small += ["--run_dir", "run", "--train.batch_size", "4", *SHORT] if "fastmagn.train" in command else []
        small += ["--eval.num_images", "0"] if "fastmagn.evaluate" in command else []
        shown = call([*shlex.split(command)[2:], *small], capsys).stdout
    assert "among these 2 classes" in shown


def test_theory_commands(trained_run, here, capsys):
    second = shutil.copytree(trained_run, here / "second")
    for command in THEORY:
        words = shlex.split(command)[2:]
        runs = iter([str(trained_run), str(second)])
        arguments = [next(runs) if word == "RUN" else word for word in words]
        call([*arguments, "--num_images", "4", "--num_noise", "2", "--num_probes", "2"], capsys)
        assert (here / words[words.index("--out") + 1] / "geometry.png").exists()


@pytest.mark.data
def test_corruption_commands(data_dir, here, capsys):
    for command in CORRUPTION:
        arguments = [argument.replace("DIR", str(data_dir)).replace("SET", "set") for argument in shlex.split(command)]
        short = [] if "--verify" in arguments else ["--num_images", "5"]
        call([*arguments[2:], *short], capsys)
    assert (here / "set" / "manifest.json").exists()


def test_report_commands(trained_run, here, capsys):
    for command in REPORT:
        call([argument.replace("runs/*", str(trained_run)) for argument in shlex.split(command)[2:]], capsys)
    assert (here / "report" / "report.md").exists()
    assert "<h1>Robustness report</h1>" in (here / "report" / "report.html").read_text()


@pytest.mark.process
def test_completion_in_bash(tmp_path):
    """What Tab does after `fastmagn train --optim.l`."""
    (block,) = (block for language, block in BLOCKS if language == "bash")
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


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_sweep_commands(tmp_path):
    for command in SWEEP:
        quick = ["--train.max_steps", "1", "--train.batch_size", "512", "--eval.num_images", "4", "--device", "cpu"]
        arguments = [argument.replace("seed=0,1,2", "seed=0") for argument in shlex.split(command)[2:]]
        run([*arguments, *quick, "--eval.corruption_set", "c15"], tmp_path)
        out = arguments[arguments.index("--out") + 1]
        assert (tmp_path / out / "report" / "report.md").exists()


def test_sweep_commands_are_understood(tmp_path):
    for command in SWEEP:
        request = parse_arguments(shlex.split(command)[3:])
        assert len(make_trials(request.arguments, request.search, tmp_path)[1]) > 1


def test_commands_of_the_page_on_sweeps(tmp_path):
    """Each names fields, files and values that exist, and the file it shows is one."""
    page = (ROOT / "docs" / "sweeps.md").read_text()
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    script = next(block for language, block in blocks if language == "bash").replace("\\\n", " ")
    commands = [line for language, block in blocks if not language for line in block.splitlines()]
    commands += [line[line.index("python -m") :] for line in script.splitlines() if "-m fastmagn.sweep" in line]
    shown = tmp_path / "configs" / "sweeps" / "shown.yaml"
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shown.write_text(next(block for _, block in blocks if block.startswith("base:")))
    counts = []
    for command in [*commands, f"python -m fastmagn.sweep --config {shown}"]:
        if command.startswith("python -m fastmagn.sweep"):
            words = [str(ROOT / word) if word.startswith("configs/") else word for word in shlex.split(command)[3:]]
            request = parse_arguments(words)
            counts.append(len(make_trials(request.arguments, request.search, request.out)[1]))
    assert counts == [6, 20, 4, 4, 24]


@pytest.mark.parametrize(
    ("module", "option"),
    [
        ("train", "--eval."),
        ("evaluate", "--eval."),
        ("corrupt", "--num_images"),
        ("theory", "--num_probes"),
        ("report", "--out"),
        ("export", "--weights"),
        ("sweep", "--grid"),
    ],
)
def test_help_lists_the_fields(module, option, capsys):
    shown = call([f"fastmagn.{module}", "--help"], capsys).stdout
    assert option in shown
    if module != "theory":
        assert "Exit codes: 0 done; 2 unusable input" in " ".join(shown.split())
