"""The documentation builds, without a warning; every command and every block of code in it is run, shortened."""

import re
import shlex
import shutil
import subprocess
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastmagn.augment.policies.own import read_policy
from fastmagn.augment.policies.table import make_table
from fastmagn.config.command_line import parse_config
from fastmagn.config.schema import Config
from fastmagn.config.text import to_yaml
from fastmagn.methods.table import METHODS
from fastmagn.models import build_model
from tests.helpers.commands import call
from tests.helpers.foreign_networks import AugmixWideResNet, trained_like
from tests.helpers.own_code import forgotten
from tests.helpers.photo_folders import make_photo_folder
from tests.helpers.processes import ROOT
from tests.helpers.published_folders import food, svhn
from tests.helpers.shards import sample, write_tar

PAGES = sorted((ROOT / "docs").rglob("*.md"))
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
# In an order in which later commands find what earlier ones have made.
ORDER = ("train", "evaluate", "report", "theory", "export", "corrupt")
SHORT = ["--train.max_steps", "2", "--train.batch_size", "8", "--eval.num_images", "4", "--device", "cpu"]
QUICK = [*SHORT, "--model.name", "resnet_small", "--train.compile", "false"]


def all_blocks(page: Path) -> list[tuple[str, str]]:
    """The language and the text of each block of code, those of tabs too."""
    return [(language, textwrap.dedent(block)) for _, language, block in BLOCK.findall(page.read_text())]


def blocks(page: Path, language: str) -> list[str]:
    return [block for found, block in all_blocks(page) if found == language]


def commands(page: Path) -> list[str]:
    return [line for block in blocks(page, "") for line in block.replace("\\\n", " ").strip().splitlines()]


def module_of(command: str) -> str:
    return shlex.split(command)[2].removeprefix("fastmagn.") if command.startswith("python -m fastmagn.") else ""


def _of_checkout(word: str) -> str:
    """An argument; a file of the checkout by its whole path."""
    return str(ROOT / word) if word.startswith(("configs/", "examples/")) else word


def run_here(command: str, places: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """A command of the package, in this process, with the page's placeholders replaced."""
    module, *arguments = shlex.split(command)[2:]
    arguments = [places.get(argument, argument) for argument in arguments]
    arguments = [_of_checkout(argument) for argument in arguments]
    if module == "fastmagn.train":
        arguments += QUICK if "--run_dir" in arguments else [*QUICK, "--run_dir", "run"]
    elif module == "fastmagn.evaluate":
        arguments += ["--eval.num_images", "4"]
    elif module == "fastmagn.theory":
        shutil.copytree("run", "second", dirs_exist_ok=True)
        arguments[arguments.index("run")] = "second"  # it compares two runs
        arguments += ["--num_images", "4", "--num_noise", "2", "--num_probes", "2"]
    call([module, *arguments], capsys)


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """A folder in which the tutorial is followed: photos/, and weights as somebody else would have trained them."""
    monkeypatch.chdir(tmp_path)
    draws = np.random.default_rng(0)
    for part, count in (("train", 12), ("val", 4)):
        for name in ("cat", "dog"):
            folder = tmp_path / "photos" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                image = Image.fromarray(draws.integers(0, 256, (70, 90, 3), np.uint8))
                image.save(folder / f"{number}.jpg")
    return tmp_path


def test_each_method_has_its_page():
    pages = {path.stem for path in (ROOT / "docs" / "methods").glob("*.md")} - {"index"}
    assert pages == set(METHODS)
    index = (ROOT / "docs" / "methods" / "index.md").read_text()
    assert all(f"[{name}]({name}.md)" in index for name in METHODS)
    assert all(f"methods/{name}.md\n" in (ROOT / "mkdocs.yml").read_text() for name in METHODS)
    assert all(f"`{name}`" in (ROOT / "README.md").read_text() for name in METHODS)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name == "methods"], ids=lambda page: page.stem)
def test_commands_of_the_methods(page, data_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for command in commands(page):
        run_here(command, {"DIR": str(data_dir)}, capsys)


@pytest.mark.slow
@pytest.mark.data
def test_commands_of_the_other_pages(data_dir, tmp_path, monkeypatch, capsys):
    """Those of single processes; benchmarks, torchrun and sweeps have tests of their own."""
    monkeypatch.chdir(tmp_path)
    places = {"DIR": str(data_dir), "RUN": "run", "CIFAR10C": "set", "runs/*": "run", "SET": "set"}
    found = [
        (page, command)
        for page in PAGES
        if page.parent.name != "methods" and page.stem not in ("tutorial", "your_images", "extending")
        for command in commands(page)
        if module_of(command) in ORDER
    ]
    assert found
    made = ["--dataset", "cifar10", "--data_dir", str(data_dir), "--num_images", "4", "--out", "set"]
    call(["fastmagn.corrupt", *made], capsys)
    torch.save(trained_like(AugmixWideResNet()).state_dict(), "augmix.pth")
    for _, command in sorted(found, key=lambda entry: ORDER.index(module_of(entry[1]))):
        shutil.rmtree("run" if module_of(command) == "train" else "nothing", ignore_errors=True)
        run_here(command, places, capsys)


def own_images(root: Path) -> dict[str, Path]:
    """What the page on one's own images reads, by a word of the command that reads it."""
    places = {name: root / name for name in ("SVHN", "food101", "webdataset", "hf")}
    places["SVHN"].mkdir()
    svhn(places["SVHN"])
    food(places["food101"], 6)
    photos = make_photo_folder(root / "photographs", 147, 6)
    from tests.helpers.tables import make_tables  # needs the extra hf

    make_tables(places["hf"], photos, "parquet")
    for part, count in (("train", 147), ("val", 1)):
        paths = sorted((photos / part).rglob("*.jpg"))
        for number in range(count):
            members = {}
            for path in paths[number::count]:
                members |= sample(path.stem, path)
            write_tar(places["webdataset"] / f"{part}-{number:03}.tar", members)
    splits = {"train": 24, "test": 8}
    arrays = {f"{split}_images": np.zeros((count, 28, 28, 3), np.uint8) for split, count in splits.items()}
    labels = {f"{split}_labels": np.arange(n)[:, None] % 4 for split, n in splits.items()}
    np.savez(root / "pathmnist.npz", **arrays, **labels)
    return places | {"pathmnist": root}


@pytest.mark.slow
def test_commands_of_your_images(tmp_path, monkeypatch, capsys):
    """In the page's order, on a small set in each layout that it describes."""
    pytest.importorskip("pyarrow", reason="needs the extra hf")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sets = own_images(tmp_path)
    torch.save(build_model("resnet_small", num_classes=9, mean=(0,) * 3, std=(1,) * 3).state_dict(), "w.pth")
    for command in commands(ROOT / "docs" / "your_images.md"):
        found = [place for word, place in sets.items() if word in command] or [tmp_path]
        if module_of(command) == "train":
            shutil.rmtree("run", ignore_errors=True)
        run_here(command, {"DIR": str(found[0]), "FILE": "w.pth", "RUN": "run", "SET": "set"}, capsys)
    for example in blocks(ROOT / "docs" / "your_images.md", "python"):
        exec(compile(example, "your_images.md", "exec"), {})


def test_the_tutorial(photos, capsys):
    """In its order, as a reader would."""
    page = ROOT / "docs" / "tutorial.md"
    for command in commands(page):
        if "--model.weights" in command:
            weights = shlex.split(command)[shlex.split(command).index("--model.weights") + 1]
            export = f"python -m fastmagn.export --run RUN --format safetensors --out {weights}"
            run_here(export, {}, capsys)
            command += " --data.image_size 64"
        run_here(command, {}, capsys)
    for example in blocks(page, "python"):
        exec(compile(example, str(page), "exec"), {})
    assert (photos / "report" / "report.html").exists()


def test_nothing_in_the_documentation_is_untested():
    known = ("python -m fastmagn.", "python -m benchmarks.", "torchrun ")
    for page in PAGES:
        assert all(command.startswith(known) for command in commands(page)), page
        languages = {language for language, _ in all_blocks(page)}
        assert languages <= {"", "text", "bash", "python", "yaml"}, page


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "bash")], ids=lambda page: page.stem)
def test_scripts_are_shell(page):
    for script in blocks(page, "bash"):
        done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "yaml")], ids=lambda page: page.stem)
def test_yaml_is_a_policy_or_a_configuration(page, tmp_path):
    path = tmp_path / "own.yaml"
    for text in blocks(page, "yaml"):
        path.write_text(text)
        if "steps:" in text or "sub_policies:" in text:
            make_table(read_policy(path), 20, 33)
        else:
            assert to_yaml(parse_config(["--config", str(path)], "test", "")) != to_yaml(Config())


@pytest.mark.parametrize("page", ["api", "configuration", "policies"])
def test_python_of_the_reference(page):
    for example in blocks(ROOT / "docs" / f"{page}.md", "python"):
        exec(compile(example, page, "exec"), {})


def test_training_commands_are_understood(tmp_path, monkeypatch, capsys):
    """Their fields, values and files."""
    monkeypatch.chdir(tmp_path)
    found = [command for page in PAGES for command in commands(page) if " fastmagn.train " in command]
    assert len(found) > len(METHODS)
    with forgotten():
        for command in found:
            words = shlex.split(command)
            words = [_of_checkout(word) for word in words[words.index("-m") + 1 :]]
            assert "run_dir:" in call([*words, "--print_config"], capsys).stdout


def test_modules_and_their_options_are_there(capsys):
    """Of all other commands. `section.field` options are those of a training command."""
    shown = {}
    for page in PAGES:
        for command in commands(page):
            words = shlex.split(command)
            module, *arguments = words[words.index("-m") + 1 :]
            if module != "fastmagn.train":
                if module not in shown:
                    shown[module] = call([module, "--help"], capsys).stdout
                options = [argument for argument in arguments if argument.startswith("--") and "." not in argument]
                assert all(option in shown[module] or option == "--config" for option in options), command
