"""Links of the documentation lead somewhere; every command and every block of code in it is run, shortened."""

import itertools
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastmagn.augment.policies.own import read_policy
from fastmagn.augment.policies.table import make_table
from fastmagn.config.command_line import parse_config
from fastmagn.config.schema import Config
from fastmagn.config.text import flatten, to_yaml
from fastmagn.data.files.decoding import _FORMATS
from fastmagn.errors import InputError
from fastmagn.methods.table import METHODS
from fastmagn.models import build_model
from tests.helpers.commands import call
from tests.helpers.foreign_networks import AugmixWideResNet, trained_like
from tests.helpers.own_code import forgotten
from tests.helpers.pages import (
    BLOCK,
    PAGES,
    README,
    all_blocks,
    blocks,
    commands,
    module_of,
    of_checkout,
    run_code,
    run_here,
)
from tests.helpers.photo_folders import make_photo_folder
from tests.helpers.processes import ROOT
from tests.helpers.published_folders import food, svhn
from tests.helpers.shards import sample, write_tar
from tests.helpers.small_runs import measures_little

# In an order in which later commands find what earlier ones have made.
ORDER = ("train", "evaluate", "report", "theory", "export", "corrupt")
# Followed in their own order, below and in test_newcomers_pages.py and test_extend.py.
FOLLOWED = ("your_photos", "your_images", "extending", "quickstart", "measure_any_model", "export")


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """A folder in which the page on photographs is followed: photos/, in two classes."""
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


def headings(page: Path) -> set[str]:
    """The anchors of its headings, as MkDocs and GitHub name them."""
    titles = re.findall(r"^#+ (.+)$", re.sub(BLOCK, "", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_pages_and_headings(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, heading = target.partition("#")
        if not path.startswith("https://"):
            file = page.parent / path if path else page
            assert file.exists(), target
            assert not heading or heading in headings(file), target


def test_each_method_has_its_page():
    pages = {path.stem for path in (ROOT / "docs" / "methods").glob("*.md")} - {"index"}
    assert pages == set(METHODS)
    index = (ROOT / "docs" / "methods" / "index.md").read_text()
    assert all(f"[{name}]({name}.md)" in index for name in METHODS)
    assert all(f"methods/{name}.md\n" in (ROOT / "mkdocs.yml").read_text() for name in METHODS)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name == "methods"], ids=lambda page: page.stem)
def test_commands_of_the_methods(page, data_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    measures_little(monkeypatch)
    for command in commands(page):
        run_here(command, {"DIR": str(data_dir)}, capsys)


@pytest.mark.slow
@pytest.mark.data
def test_commands_of_the_other_pages(data_dir, tmp_path, monkeypatch, capsys):
    """Those of single processes; benchmarks, torchrun and sweeps have tests of their own."""
    monkeypatch.chdir(tmp_path)
    places = {"DIR": str(data_dir), "RUN": "run", "CIFAR10C": "set", "runs/*": "run", "SET": "set"}
    places |= dict.fromkeys(("RUN/evaluation.json", "runs/*/evaluation.json"), "run/evaluation.json")
    found = [
        (page, command)
        for page in PAGES
        if page.parent.name != "methods" and page.stem not in FOLLOWED
        for command in commands(page)
        if module_of(command) in ORDER
    ]
    assert found
    made = ["--dataset", "cifar10", "--data_dir", str(data_dir), "--num_images", "4", "--out", "set"]
    call(["fastmagn.corrupt", *made], capsys)
    torch.save(trained_like(AugmixWideResNet()).state_dict(), "augmix.pth")
    for _, command in sorted(found, key=lambda entry: ORDER.index(module_of(entry[1]))):
        shutil.rmtree("run" if module_of(command) == "train" else "nothing", ignore_errors=True)
        if module_of(command) == "corrupt" and "--verify" not in command:
            shutil.rmtree("set", ignore_errors=True)  # nothing reads the first one any more
            command += " --num_images 4"
        run_here(command, places, capsys)


def own_images(root: Path) -> dict[str, Path]:
    """What the page on data sets reads, by a word of the command that reads it."""
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
    tiny = root / "tiny-imagenet-200"
    for i in range(12):
        (tiny / "train" / f"n{i % 3}" / "images").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (i, i, i)).save(tiny / "train" / f"n{i % 3}" / "images" / f"{i}.JPEG")
    shutil.copytree(tiny / "train" / "n0" / "images", tiny / "val" / "images")
    listed = [f"{i}.JPEG\tn{i % 3}\t0\t0\t9\t9" for i in range(0, 12, 3)]
    (tiny / "val" / "val_annotations.txt").write_text("\n".join(listed))
    return places | {"pathmnist": root, "resize_px 64": tiny}


@pytest.mark.slow
def test_your_images(tmp_path, monkeypatch, capsys):
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


def test_your_photos(photos, capsys):
    """In the page's order, as a reader would."""
    page = ROOT / "docs" / "your_photos.md"
    for command in commands(page):
        if "--model.weights" in command:
            weights = shlex.split(command)[shlex.split(command).index("--model.weights") + 1]
            assert f'"{weights}"' in page.read_text()  # the file that the page tells the reader to write
            shutil.copy("RUN/checkpoints/last.pt", weights)
            command += " --data.image_size 64"
        elif "resnet50" in command:
            command += " --data.image_size 32 --run_dir large"
        run_here(command, {}, capsys)
    run_code(page)
    assert (photos / "report" / "report.html").exists()


def test_a_file_of_weights_has_one_normalisation():
    found: dict[str, set[tuple[str, ...]]] = {}
    for page in PAGES:
        for command in commands(page):
            words = shlex.split(command)
            if "--weights" in words:
                value_of = dict(itertools.pairwise(words))
                given = (value_of.get("--mean", ""), value_of.get("--std", ""))
                found.setdefault(value_of["--weights"], set()).add(given)
    assert found["augmix.pth"] == {("0.5", "0.5")}
    assert all(len(given) == 1 for given in found.values()), found


def test_the_formats_that_reach_a_decoder_are_named():
    sentence = re.search(r"Only ([^.]+?)\s+reach a decoder", (ROOT / "SECURITY.md").read_text())
    assert sentence is not None
    assert {name.upper() for name in re.split(r",\s+|\s+and\s+", sentence[1])} == {*_FORMATS, "AVIF"}


def test_nothing_in_the_documentation_is_untested():
    known = ("python -m fastmagn.", "python -m benchmarks.", "python examples/", "torchrun ")
    for page in PAGES:
        assert all(command.startswith(known) for command in commands(page)), page
        languages = {language for language, _ in all_blocks(page)}
        assert languages <= {"", "text", "bash", "python", "yaml"}, page


def test_what_is_to_be_installed_is_there_to_be_installed():
    """fastmagn is on no index: what people copy names the checkout, or a folder of wheels. Messages may be quoted."""
    by_name = re.compile(r"pip install (?!--no-index ).*fastmagn\[\w")
    others = [README, *sorted((ROOT / "examples").glob("*.*")), *sorted((ROOT / "configs").rglob("*.*"))]
    for page in (*PAGES, *others):
        for line in page.read_text().splitlines():
            assert not by_name.search(line) or line.startswith("> "), (page, line)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "bash")], ids=lambda page: page.stem)
def test_scripts_are_shell(page):
    for script in blocks(page, "bash"):
        done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", [page for page in PAGES if "#SBATCH" in page.read_text()], ids=lambda page: page.stem)
def test_a_slurm_step_gets_the_cores_that_its_job_asks_for(page):
    """Since Slurm 22.05, srun does not take --cpus-per-task from the job."""
    for script in blocks(page, "bash"):
        if "#SBATCH --cpus-per-task=" in script:
            steps = [line for line in script.splitlines() if line.startswith("srun ")]
            assert steps
            assert all(step.startswith('srun --cpus-per-task="$SLURM_CPUS_PER_TASK" ') for step in steps)


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
            words = [of_checkout(word) for word in words[words.index("-m") + 1 :]]
            assert "run_dir:" in call([*words, "--print_config"], capsys).stdout


def test_modules_and_their_options_are_there(capsys):
    """Of all other commands; some hand on a training command's `--config`, `--import` and `--section.field` options."""
    shown: dict[str, set[str]] = {}
    fields = {f"--{name}" for name in flatten(Config()) if "." in name}
    for page in PAGES:
        for command in commands(page):
            words = shlex.split(command)
            module, *arguments = words[words.index("-m") + 1 :] if "-m" in words else map(of_checkout, words[1:])
            if module != "fastmagn.train":
                if module not in shown:
                    shown[module] = options_in(call([module, "--help"], capsys).stdout)
                options = {word for word in arguments if re.fullmatch(r"--[\w.-]+", word)}
                assert options <= shown[module] | fields | {"--config", "--import"}, command
                check_training_options(arguments, fields)


def options_in(text: str) -> set[str]:
    """The options that a text names, whole."""
    return {word.rstrip(".") for word in re.findall(r"(?<![\w-])--[\w.-]+", text)}


def check_training_options(arguments: list[str], fields: set[str]) -> None:
    """Parse the fields of a training that a command hands on, and each recipe such as "--method magn"."""
    shared = [word for pair in itertools.pairwise(arguments) if pair[0] in fields for word in pair]
    recipes = [shlex.split(word) for word in arguments if word.startswith("--") and " " in word]
    for recipe in recipes or [[]]:
        given = ["digits_quickstart" if word == "FILE" else of_checkout(word) for word in recipe]
        parse_config([*shared, *given], "test", "")


def test_a_part_of_an_option_is_not_that_option():
    assert options_in("[--run_dir DIR], --ray.address; --config. a--b") == {"--run_dir", "--ray.address", "--config"}


@pytest.mark.parametrize("word", ["--method magn --train.epoch 3", "--train.epochs few", "--methods magn"])
def test_recipes_in_quotes_are_parsed(word):
    with pytest.raises(InputError, match=r"is not an option|got 'few'"):
        check_training_options(["--run", "name", word], set())
