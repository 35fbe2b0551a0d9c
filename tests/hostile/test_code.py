"""Files that carry code: each payload makes a marker where it is run, and is first shown to do so."""

import importlib
import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from fastmagn import corrupt, evaluate, train
from fastmagn.checkpoint import FORMAT_VERSION
from fastmagn.data.cifar import CIFAR10
from fastmagn.theory import __main__ as theory
from tests.hostile.files import RUN_YAML, Call, npy, write_corrupted_set, write_run_folder


def fires(attack, load, *arguments) -> None:
    """Whoever trusts the file runs it."""
    load(*arguments)
    assert attack.marker.exists()
    attack.marker.unlink()


@pytest.mark.parametrize("file", ["batches.meta", "data_batch_1", "test_batch"])
def test_pickles_of_a_data_set(attack, file):
    payload = pickle.dumps({"data": Call(os.system, f"touch {attack.marker}"), "labels": [0]}, 2)
    fires(attack, pickle.loads, payload)
    folder = attack.folder / CIFAR10.folder
    folder.mkdir()
    names = pickle.dumps({"label_names": [str(k) for k in range(10)]}, 2)
    blank = pickle.dumps({"data": np.zeros((10_000, 3072), np.uint8), "labels": [0] * 10_000}, 2)
    for name in CIFAR10.files:
        (folder / name).write_bytes(names if name == CIFAR10.meta_file else blank)
    (folder / file).write_bytes(payload)
    arguments = ["--data.name", "cifar10", "--data.dir", attack.folder, "--run_dir", attack.folder / "run"]
    attack.refused(f"CIFAR {file}", "pickle that calls os.system", train.main, *arguments, says="Nothing in it was run")


@pytest.mark.parametrize("command", [evaluate, train, theory])
def test_checkpoints(attack, command):
    run = write_run_folder(attack.folder / "run")
    file = run / "checkpoints" / "last.pt"
    arguments = {
        evaluate: ["--run", run],
        train: ["--config", run / "config.yaml", "--run_dir", run],
        theory: [run, "--out", attack.folder / "out"],
    }[command]
    payload = Call(os.system, f"touch {attack.marker}")
    surface = f"{command.__spec__.name.removesuffix('.__main__').removeprefix('fastmagn.')} checkpoint"
    for form in ("zip", "legacy", "bare pickle"):
        if form == "bare pickle":
            file.write_bytes(pickle.dumps(payload, 2))
            fires(attack, pickle.loads, file.read_bytes())
        else:
            content = {"format_version": FORMAT_VERSION, "model": payload}
            torch.save(content, file, _use_new_zipfile_serialization=form == "zip")
            fires(attack, lambda: torch.load(file, weights_only=False))
        attack.refused(surface, f"__reduce__, {form}", command.main, *arguments, says="last.pt")


@pytest.mark.parametrize("file", ["fog.npy", "labels.npy"])
def test_arrays_of_objects_in_a_corrupted_set(attack, file):
    buffer = io.BytesIO()
    np.save(buffer, np.array([Call(os.system, f"touch {attack.marker}")], object), allow_pickle=True)
    fires(attack, lambda: np.load(io.BytesIO(buffer.getvalue()), allow_pickle=True))
    folder = write_corrupted_set(attack.folder / "set", {file: buffer.getvalue()})
    status, errors = attack.run(corrupt.main, "--verify", "--out", folder)
    assert status == corrupt.EXIT_DIFFERENT
    assert "not a whole .npy array of plain numbers" in errors
    attack.note(f"-C set {file}", "array of objects", f"refused: {errors.splitlines()[0]}")


@pytest.mark.parametrize("file", ["clean.npy", "labels.npy"])
def test_arrays_of_objects_as_logits(attack, file):
    (attack.folder / "fog.npy").write_bytes(npy(np.zeros((5, 6, 3), np.float32)))
    (attack.folder / "clean.npy").write_bytes(npy(np.zeros((1, 6, 3), np.float32)))
    (attack.folder / "labels.npy").write_bytes(npy(np.arange(6) % 3))
    np.save(attack.folder / file, np.array([Call(os.system, f"touch {attack.marker}")], object), allow_pickle=True)
    fires(attack, lambda: np.load(attack.folder / file, allow_pickle=True))
    says = "not a whole .npy array of plain numbers"
    attack.refused(f"logits {file}", "array of objects", evaluate.main, "--logits", attack.folder, says=says)


YAML_CODE = {
    "tag python/object/apply": "method: !!python/object/apply:os.system ['touch {marker}']\n",
    "tag python/object/new": "method: !!python/object/new:os.system ['touch {marker}']\n",
    "tag by a handle": "%TAG !p! tag:yaml.org,2002:python/\n---\nmethod: !p!object/new:os.system ['touch {marker}']\n",
}


def read_by(command: str, attack, text: str, attack_name: str, says: str) -> None:
    """Give a command the text as --config, as the base of one, or as a foreign run's config.yaml."""
    run = write_run_folder(attack.folder / "run")
    config = run / "config.yaml"
    config.write_text(text)
    based = attack.folder / "based.yaml"
    based.write_text(f"base: {config}\nmethod: magn\n")
    main, arguments = {
        "train --config": (train.main, ["--config", config]),
        "train base:": (train.main, [f"--config={based}"]),
        "corrupt --config": (corrupt.main, ["--config", config]),
        "evaluate --run": (evaluate.main, ["--run", run]),
        "theory RUN": (theory.main, [run, "--out", attack.folder / "out"]),
    }[command]
    attack.refused(f"{command} (YAML)", attack_name, main, *arguments, says=says)


READERS = ["train --config", "train base:", "corrupt --config", "evaluate --run", "theory RUN"]


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize("name", YAML_CODE)
def test_yaml_tags(attack, name, command):
    text = YAML_CODE[name].format(marker=attack.marker)
    fires(attack, yaml.unsafe_load, text)
    read_by(command, attack, text, name, "has the tag")


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize(
    ("form", "says"),
    [
        ("data: {{class_path: {module}.X}}\n", "class_path, which names code"),
        ("data: '{{class_path: {module}.X}}'\n", "data is no mapping of its fields"),
    ],
    ids=["mapping", "text"],
)
def test_a_class_path_imports_nothing(attack, command, form, says, monkeypatch):
    """The parser of the command line imports the module of a class_path before it refuses it."""
    module = f"payload_{READERS.index(command)}_{len(says)}"
    (attack.folder / f"{module}.py").write_text(f"open({str(attack.marker)!r}, 'w').close()\nclass X: pass\n")
    monkeypatch.syspath_prepend(attack.folder)
    read_by(command, attack, form.format(module=module), "class_path to a module", says)
    fires(attack, importlib.import_module, module)


@pytest.mark.parametrize("key", ["data", "model", "config"])
def test_a_section_names_no_further_file(attack, key):
    (attack.folder / "other.yaml").write_text("name: cifar10\n")
    text = f"{key}: other.yaml\n"
    read_by("evaluate --run", attack, text, f"{key}: names a further file", "is no mapping of its fields")


def test_a_run_yaml_as_it_is_passes(tmp_path):
    """What the attacks above change is read: they are refused for what they add."""
    run = write_run_folder(tmp_path / "run")
    assert (run / "config.yaml").read_text() == RUN_YAML
    assert isinstance(evaluate.parse_config(["--config", str(run / "config.yaml")], "test", "A test."), evaluate.Config)
    assert Path(run / "checkpoints").is_dir()
