"""Commands and code of README and of the documentation, as a reader would copy them."""

import re
import shlex
import shutil
import textwrap
from pathlib import Path

import pytest

from tests.helpers.commands import call
from tests.helpers.processes import ROOT

README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
SHORT = ["--train.max_steps", "2", "--train.batch_size", "8", "--eval.num_images", "4", "--device", "cpu"]
QUICK = [*SHORT, "--model.name", "resnet_small", "--train.compile", "false"]


def all_blocks(page: Path) -> list[tuple[str, str]]:
    """The language and the text of each block of code, those of tabs too."""
    return [(language, textwrap.dedent(block)) for _, language, block in BLOCK.findall(page.read_text())]


def blocks(page: Path, language: str) -> list[str]:
    """The page's blocks of this language; those without a language are commands."""
    return [block for found, block in all_blocks(page) if found == language]


def commands(page: Path) -> list[str]:
    """Each command of the page, on a line."""
    return [line for block in blocks(page, "") for line in block.replace("\\\n", " ").strip().splitlines()]


def module_of(command: str) -> str:
    """The command's name, such as `train`; empty if it is none of the package's."""
    return shlex.split(command)[2].removeprefix("fastmagn.") if command.startswith("python -m fastmagn.") else ""


def of_checkout(word: str) -> str:
    """An argument; a file of the checkout by its whole path."""
    return str(ROOT / word) if word.startswith(("configs/", "examples/")) else word


def run_code(page: Path, names: dict[str, object] | None = None) -> None:
    """The page's blocks of Python, in its order, each with `names`."""
    for number, block in enumerate(blocks(page, "python")):
        exec(compile(block, f"block {number} of {page.name}", "exec"), dict(names or {}))


def run_here(command: str, places: dict[str, str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command of the package prints, in this process, with the page's placeholders replaced."""
    module, *arguments = shlex.split(command)[2:]
    arguments = [places.get(argument, argument) for argument in arguments]
    arguments = [of_checkout(argument) for argument in arguments]
    if module == "fastmagn.train":
        arguments += QUICK if "--run_dir" in arguments else [*QUICK, "--run_dir", "run"]
    elif module == "fastmagn.evaluate":
        arguments += ["--eval.num_images", "4"]
    elif module == "fastmagn.theory":
        shutil.copytree("run", "second", dirs_exist_ok=True)
        arguments[arguments.index("run")] = "second"  # it compares two runs
        arguments += ["--num_images", "4", "--num_noise", "2", "--num_probes", "2"]
    return call([module, *arguments], capsys).stdout
