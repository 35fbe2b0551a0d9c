"""Files that carry code: each payload makes a marker where it is run, and is first shown to do so."""

import importlib
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from fastmagn import evaluate, train
from fastmagn.data.cifar import CIFAR10
from fastmagn.evaluation import corrupt_command
from fastmagn.runs.checkpoint import FORMAT_VERSION
from fastmagn.theory import command as theory
from tests.hostile.files import RUN_YAML, Call, npy, sealed, write_corrupted_set, write_run_folder


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
    content = {"format_version": FORMAT_VERSION, "model": payload}
    for form in ("zip", "legacy", "bare pickle"):
        buffer = io.BytesIO()
        if form == "bare pickle":
            pickle.dump(payload, buffer, 2)
            fires(attack, pickle.loads, buffer.getvalue())
        else:
            torch.save(content, buffer, _use_new_zipfile_serialization=form == "zip")
        for seal, says in ((bytes, "checksum"), (sealed, "cannot be read as a checkpoint")):
            file.write_bytes(seal(buffer.getvalue()))
            if form != "bare pickle":
                fires(attack, lambda: torch.load(file, weights_only=False))
            what = f"__reduce__, {form}, {'its checksum forged' if seal is sealed else 'no checksum'}"
            attack.refused(surface, what, command.main, *arguments, says=says)


def whole(**changes: object) -> dict[str, object]:
    """What a checkpoint must have, and the changes."""
    return {
        **{"format_version": FORMAT_VERSION, "step": 3, "config": {}, "config_sha256": "", "data_fingerprint": ""},
        **{"model": {}, "optimizer": {}, "scaler": {}, "progress": {}},
        **changes,
    }


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def zip_bomb() -> bytes:
    """A pickle of 1 GB of zeros, in 1 MB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("archive/data.pkl", "w") as member:
            for _ in range(1024):
                member.write(bytes(1 << 20))
        archive.writestr("archive/version", "3")
    return buffer.getvalue()


FORGED: dict[str, Callable[[], bytes]] = {
    "bytearray of 2^45 bytes": lambda: saved(whole(more=Call(bytearray, 2**45))),
    "1 GB in 1 MB": zip_bomb,
    "100,000 marks": lambda: b"\x80\x02" + b"(" * 100_000 + b".",
    "a tensor": lambda: saved(torch.zeros(3)),
    "a list": lambda: saved([1]),
    "a tensor as version": lambda: saved(whole(format_version=torch.zeros(3))),
    "a list as model": lambda: saved(whole(model=[1])),
    "numbers as weights' names": lambda: saved(whole(model={1: 2})),
    "texts as weights": lambda: saved(whole(model={"mean": "x"})),
    "weights of 2^50 values in 4 bytes": lambda: saved(whole(model={"mean": torch.zeros(1).expand(2**50)})),
    "weights that lie nowhere": lambda: saved(whole(model={"mean": torch.zeros(2**40, device="meta")})),
    "no optimizer": lambda: saved({name: value for name, value in whole().items() if name != "optimizer"}),
}


@pytest.mark.parametrize("name", FORGED)
def test_checkpoints_of_other_values(attack, name):
    run = write_run_folder(attack.folder / "run")
    (run / "checkpoints" / "last.pt").write_bytes(sealed(FORGED[name]()))
    attack.refused("evaluate checkpoint", name, evaluate.main, "--run", run, says="last.pt")


@pytest.mark.parametrize("part", ["config", "optimizer", "progress"])
def test_checkpoints_of_other_state(attack, part):
    """A sound checkpoint, except one part of what training resumes from."""
    run = attack.folder / "run"
    arguments = ["--device", "cpu", "--train.batch_size", "64", "--train.max_steps", "1", "--run_dir", run]
    arguments += ["--eval.num_images", "1", "--eval.corruption_set", "c15"]
    assert attack.run(train.main, *arguments)[0] == 0
    (run / "results.json").unlink()
    file = run / "checkpoints" / "last.pt"
    sound = torch.load(io.BytesIO(file.read_bytes()), weights_only=True)
    for value in ({"state": 1}, {"names": 5}, {1: {2: 3}}, {"param_groups": [{}], "state": {0: "x"}}):
        file.unlink()
        file.write_bytes(sealed(saved({**sound, part: value, "config_sha256": "0"})))
        says = "expected" if part == "config" else "does not fit this run"
        attack.refused("train checkpoint", f"{part} {value}", train.main, *arguments, says=says)


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_weights_to_start_from(attack, suffix):
    file = attack.folder / f"weights{suffix}"
    torch.save({"model": Call(os.system, f"touch {attack.marker}")}, file)
    fires(attack, lambda: torch.load(file, weights_only=False))
    arguments = ["--model.weights", file, "--device", "cpu", "--run_dir", "run"]
    attack.refused("model.weights", f"__reduce__ in {suffix}", train.main, *arguments, says="nothing in it was run")


@pytest.mark.parametrize("file", ["fog.npy", "labels.npy"])
def test_arrays_of_objects_in_a_corrupted_set(attack, file):
    buffer = io.BytesIO()
    np.save(buffer, np.array([Call(os.system, f"touch {attack.marker}")], object), allow_pickle=True)
    fires(attack, lambda: np.load(io.BytesIO(buffer.getvalue()), allow_pickle=True))
    folder = write_corrupted_set(attack.folder / "set", {file: buffer.getvalue()})
    status, errors = attack.run(corrupt_command.main, "--verify", "--out", folder)
    assert status == corrupt_command.EXIT_DIFFERENT
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
        "corrupt --config": (corrupt_command.main, ["--config", config]),
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
        ("data: '{{class_path: {module}.X}}'\n", "data is not a mapping of its fields"),
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
    read_by("evaluate --run", attack, text, f"{key}: names a further file", "is not a mapping of its fields")


def test_a_run_yaml_as_it_is_passes(tmp_path):
    """What the attacks above change is read: they are refused for what they add."""
    run = write_run_folder(tmp_path / "run")
    assert (run / "config.yaml").read_text() == RUN_YAML
    assert isinstance(evaluate.parse_config(["--config", str(run / "config.yaml")], "test", "A test."), evaluate.Config)
    assert Path(run / "checkpoints").is_dir()
