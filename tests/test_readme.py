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

from fastmagn.config.command_line import parse_config
from fastmagn.models import build_model
from fastmagn.sweeping.arguments import parse_arguments
from fastmagn.sweeping.definition import make_trials
from fastmagn.training.run import train
from tests.data.photo_folders import make_photo_folder

ROOT = Path(__file__).parent.parent
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


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


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


def test_the_first_commands_training_shortened(tmp_path):
    done = run(["fastmagn.train", *SHORT], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "clean accuracy" in done.stdout
    command = "python -m fastmagn.report runs/digits-magn_augmix-resnet_small-seed0 --out report"
    assert done.stdout.endswith(f"tables, figures and a page of it: {command}\n")
    assert (tmp_path / "runs" / "digits-magn_augmix-resnet_small-seed0" / "results.json").exists()


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory) -> Path:
    run_dir = tmp_path_factory.mktemp("readme") / "run"
    train(parse_config([*SHORT, "--run_dir", str(run_dir)], "test", "A test."))
    return run_dir


@pytest.mark.data
@pytest.mark.parametrize("command", TRAINING)
def test_training_commands(command, data_dir, tmp_path):
    arguments = shlex.split(command)[2:]
    arguments[arguments.index("DIR")] = str(data_dir)
    arguments[arguments.index("--config") + 1] = str(ROOT / arguments[arguments.index("--config") + 1])
    done = run([*arguments, *SHORT, "--train.batch_size", "16", "--run_dir", "run"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "results.json").exists()


@pytest.mark.parametrize("command", TRAINING_ON_FILES)
def test_training_on_ones_own_images(command, tmp_path):
    photos = make_photo_folder(tmp_path / "photos", 20, 8)
    arguments = [str(photos) if argument == "PHOTOS" else argument for argument in shlex.split(command)[2:]]
    small = ["--train.batch_size", "8", "--model.name", "resnet_small", "--data.image_size", "32", "--run_dir", "run"]
    done = run([*arguments, *SHORT, *small], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "magn_augmix on folder: 20 images (decoded by " in done.stdout
    assert (tmp_path / "run" / "results.json").exists()


@pytest.mark.data
def test_training_on_several_processes(data_dir, tmp_path):
    """README's and the page's command, on two processes of this machine."""
    page = (ROOT / "docs" / "several_gpus.md").read_text()
    assert all(command in page for command in TRAINING_TOGETHER)
    for command in TRAINING_TOGETHER:
        arguments = shlex.split(command.replace("--nproc_per_node 8", "--standalone --nproc_per_node 2"))[1:]
        arguments[arguments.index("DIR")] = str(data_dir)
        arguments[arguments.index("--config") + 1] = str(ROOT / arguments[arguments.index("--config") + 1])
        quick = ["--model.name", "resnet_small", "--train.batch_size", "16", "--run_dir", "run", *SHORT]
        done = run(["torch.distributed.run", *arguments, *quick], tmp_path)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "run" / "results.json").exists()


def test_benchmarks_are_there():
    """That they run is tested in tests/benchmarks; here that README names existing ones, with existing options."""
    for command in BENCHMARKS:
        module, *arguments = shlex.split(command)[2:]
        done = run([module, "--help"], ROOT)
        assert done.returncode == 0, done.stderr
        options = [argument for argument in arguments if argument.startswith("--") and "." not in argument]
        assert all(option in done.stdout or option == "--config" for option in options), command


def test_export_commands_and_python_examples(trained_run, tmp_path, monkeypatch):
    """In README's order: the examples load what the commands have written."""
    assert EXPORT
    for command in EXPORT:
        done = run([argument.replace("RUN", str(trained_run)) for argument in shlex.split(command)[2:]], tmp_path)
        assert done.returncode == 0, (command, done.stderr)
    assert (tmp_path / "model.onnx.md").exists()
    monkeypatch.chdir(tmp_path)
    examples = [block for language, block in BLOCKS if language == "python"]
    assert len(examples) >= 3
    for example in examples:
        exec(compile(example, "README.md", "exec"), {})


def test_evaluation_commands(trained_run, tmp_path):
    """In README's order: one of them reads what another has stored."""
    made = run(["fastmagn.corrupt", "--dataset", "digits", "--num_images", "8", "--out", "set"], tmp_path)
    assert made.returncode == 0, made.stderr
    for command in EVALUATION:
        arguments = [
            argument.replace("RUN", str(trained_run)).replace("SET", "set") for argument in shlex.split(command)
        ]
        if arguments[0] == "torchrun":
            launched = ["torch.distributed.run", "--standalone", *arguments[1:]]
        else:
            launched = arguments[2:]
        done = run([*launched, "--eval.num_images", "8"], tmp_path)
        assert done.returncode == 0, (command, done.stderr)
        assert "mCA" in done.stdout


def test_commands_on_photographs(tmp_path):
    """Fine-tuning on three classes, then a -C set of image files and a folder of two of the classes."""
    generator = np.random.default_rng(0)
    cells = [f"set/{name}/{severity}" for name in ("fog", "brightness") for severity in range(1, 6)]
    for folder in ("photos/train", "photos/val", "others", *cells):
        for class_name in ("bird", "cat", "dog"):
            (tmp_path / folder / class_name).mkdir(parents=True)
            for i in range(3):
                pixels = generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / folder / class_name / f"{i}.jpg")
    shutil.rmtree(tmp_path / "others" / "dog")
    (tmp_path / "others" / "bird").rename(tmp_path / "others" / "wings")
    (tmp_path / "classes.csv").write_text("wings,bird\n")
    torch.save(build_model("resnet_small", num_classes=9, mean=(0,) * 3, std=(1,) * 3).state_dict(), tmp_path / "w.pth")
    places = {"PHOTOS": "photos", "FILE": "w.pth", "RUN": "run", "IMAGENET_C": "set", "RENDITIONS": "others"}
    places["configs/"] = f"{ROOT}/configs/"
    for command in PHOTOGRAPHS:
        for word, place in places.items():
            command = command.replace(word, place)
        small = ["--model.name", "resnet_small", "--data.image_size", "32", "--device", "cpu"]
        small += ["--run_dir", "run", "--train.batch_size", "4", *SHORT] if "fastmagn.train" in command else []
        small += ["--eval.num_images", "0"] if "fastmagn.evaluate" in command else []
        done = run([*shlex.split(command)[2:], *small], tmp_path)
        assert done.returncode == 0, (command, done.stderr)
    assert "among these 2 classes" in done.stdout


def test_theory_commands(trained_run, tmp_path):
    second = shutil.copytree(trained_run, tmp_path / "second")
    for command in THEORY:
        words = shlex.split(command)[2:]
        runs = iter([str(trained_run), str(second)])
        arguments = [next(runs) if word == "RUN" else word for word in words]
        done = run([*arguments, "--num_images", "4", "--num_noise", "2", "--num_probes", "2"], tmp_path)
        assert done.returncode == 0, (command, done.stderr)
        assert (tmp_path / words[words.index("--out") + 1] / "geometry.png").exists()


@pytest.mark.data
def test_corruption_commands(data_dir, tmp_path):
    for command in CORRUPTION:
        arguments = [argument.replace("DIR", str(data_dir)).replace("SET", "set") for argument in shlex.split(command)]
        short = [] if "--verify" in arguments else ["--num_images", "5"]
        done = run([*arguments[2:], *short], tmp_path)
        assert done.returncode == 0, (command, done.stderr)
    assert (tmp_path / "set" / "manifest.json").exists()


def test_report_commands(trained_run, tmp_path):
    for command in REPORT:
        arguments = [argument.replace("runs/*", str(trained_run)) for argument in shlex.split(command)]
        done = run(arguments[2:], tmp_path)
        assert done.returncode == 0, (command, done.stderr)
    assert (tmp_path / "report" / "report.md").exists()
    assert "<h1>Robustness report</h1>" in (tmp_path / "report" / "report.html").read_text()


def test_completion_in_bash(tmp_path):
    """What Tab does after `fastmagn-train --optim.l`, and where nothing fits."""
    (block,) = (block for language, block in BLOCKS if language == "bash")
    typed = "COMP_WORDS=(fastmagn-train --optim.l) COMP_CWORD=1"
    script = (
        f"{block}\n{typed}\n$(complete -p fastmagn-train | sed 's/.*-F \\([^ ]*\\).*/\\1/')\necho ${{COMPREPLY[@]}}"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    done = subprocess.run(
        ["bash", "-O", "expand_aliases", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["--optim.lr"], done.stderr


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_sweep_commands(tmp_path):
    for command in SWEEP:
        quick = ["--train.max_steps", "1", "--train.batch_size", "512", "--eval.num_images", "4", "--device", "cpu"]
        arguments = [argument.replace("seed=0,1,2", "seed=0") for argument in shlex.split(command)[2:]]
        done = run([*arguments, *quick, "--eval.corruption_set", "c15"], tmp_path)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        out = arguments[arguments.index("--out") + 1]
        assert (tmp_path / out / "report" / "report.md").exists()


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


def test_help_lists_the_fields(tmp_path):
    for module, option in (
        ("train", "--eval."),
        ("evaluate", "--eval."),
        ("corrupt", "--num_images"),
        ("theory", "--num_probes"),
        ("report", "--out"),
        ("export", "--weights"),
        ("sweep", "--grid"),
    ):
        done = run([f"fastmagn.{module}", "--help"], tmp_path)
        assert done.returncode == 0, done.stderr
        assert option in done.stdout
        if module != "theory":
            assert "Exit codes: 0 done; 2 unusable input" in " ".join(done.stdout.split())
