"""Small files that claim, or unfold into, more than a machine has: refused in little memory."""

import io
import json
import resource
import zipfile
import zlib

import numpy as np
import pytest
import torch

from fastmagn import evaluate, report, train
from fastmagn.evaluation import corrupt_command
from fastmagn.models.weight_files import read_weights
from fastmagn.models.wrapped import unwrap
from fastmagn.reporting.runs import read_run
from fastmagn.runs.paths import EVALUATION
from tests.helpers.report_folders import write_run
from tests.hostile.files import npy, npy_header, write_run_folder

MEMORY_MIB = 400  # what an attack may add to the process's peak


@pytest.fixture(autouse=True)
def _little_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < MEMORY_MIB * 1024, grown


def laughs(levels: int) -> str:
    """The billion laughs: nine times nine times nine ..."""
    lines = ["a0: &a0 [ha]\n"]
    lines += [f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]\n" for i in range(levels)]
    return "".join(lines)


YAML_BOMBS = {
    "billion laughs": (laughs(12), "has the anchor or alias"),
    "a list that holds itself": ("method: &a [*a]\n", "has the anchor or alias"),
    "merge keys": ("x: &a {k: v}\ny: {<<: [" + "*a, " * 999 + "*a]}\n", "has the anchor or alias"),
    "50,000 levels": ("method: " + "[" * 50_000 + "]" * 50_000, "is more than 16 levels deep"),
    "a number of 6,000 digits": ("train: {epochs: " + "9" * 6000 + "}\n", "has a value of 6000 characters"),
    "2 MB": ("# " + "x" * (2 << 20), "expected a YAML file of at most 1048576 bytes"),
}


@pytest.mark.parametrize("name", YAML_BOMBS)
def test_yaml(attack, name):
    text, says = YAML_BOMBS[name]
    run = write_run_folder(attack.folder / "run")
    (run / "config.yaml").write_text(text)
    attack.refused("evaluate --run (YAML)", name, evaluate.main, "--run", run, says=says)
    attack.refused("train --config (YAML)", name, train.main, "--config", run / "config.yaml", says=says)


def deflated(weights: dict[str, torch.Tensor]) -> bytes:
    """A file of torch.save whose members are compressed."""
    plain, packed = io.BytesIO(), io.BytesIO()
    torch.save(weights, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for member in source.infolist():
            target.writestr(member.filename, source.read(member))
    return packed.getvalue()


@pytest.mark.parametrize("suffix", ["pt", "pth.tar"])
def test_weights_that_unpack_to_a_thousand_times_their_size(attack, suffix):
    content = deflated({"stem.0.weight": torch.zeros(2**23)})
    assert len(content) < 2**16
    file = attack.folder / f"weights.{suffix}"
    file.write_bytes(content)
    says = "cannot be read as a file of torch.save (ValueError; nothing in it was run)"
    attack.refused("weights", f"deflated .{suffix}", evaluate.main, "--weights", file, says=says)


def test_a_name_of_60_000_prefixes():
    """A list of all of them would take ten gigabytes."""
    name = "model." * 60_000 + "x"
    assert list(unwrap({name: torch.zeros(1)}, {"weight"}).tensors) == [name.removeprefix("model." * 8)]


def test_weights_in_pytorchs_older_form_are_read(attack):
    weights = {"stem.0.weight": torch.arange(6.0)}
    torch.save(weights, attack.folder / "old.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(read_weights(attack.folder / "old.pt", "weights").tensors["stem.0.weight"], torch.arange(6.0))


HEADERS = {
    "2^60 bytes": npy_header(f"({2**60},)"),
    "2^64 bytes, which overflow to 0": npy_header(f"({2**32}, {2**32})"),
    "2^70 bytes": npy_header(f"({2**70},)"),
    "a negative side": npy_header("(-1,)"),
    "100 axes": npy_header("(" + "1," * 100 + ")"),
    "5,000 signs before a number": npy_header("-" * 5000 + "1"),
    "3,000 parentheses": npy_header("(" * 3000 + ")" * 3000),
    "a call as dtype": npy_header("(3,)", "__import__('os').system('touch marker')"),
    "objects as dtype": npy_header("(3,)", "'|O'"),
    "a header of 4 GB": b"\x93NUMPY\x03\x00\xff\xff\xff\xff",
    "values of 0 bytes": npy_header("(3,)", "'|V0'"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_npy_headers(attack, name):
    (attack.folder / "clean.npy").write_bytes(HEADERS[name])
    (attack.folder / "labels.npy").write_bytes(npy(np.arange(6) % 3))
    (attack.folder / "fog.npy").write_bytes(npy(np.zeros((5, 6, 3), np.float32)))
    says = "not a whole .npy array of plain numbers"
    attack.refused("logits .npy header", name, evaluate.main, "--logits", attack.folder, says=says)


@pytest.mark.parametrize("name", ["labels [0]", "labels []", "labels [6, 1]", "clean []"])
def test_logits_of_other_shapes(attack, name):
    arrays = {"labels": np.arange(6) % 3, "clean": np.zeros((1, 6, 3), np.float32)}
    file, shape = name.split(" ", 1)
    arrays[file] = np.zeros([int(side) for side in shape[1:-1].split(",") if side], arrays[file].dtype)
    for file, array in arrays.items():
        (attack.folder / f"{file}.npy").write_bytes(npy(array))
    (attack.folder / "fog.npy").write_bytes(npy(np.zeros((5, 6, 3), np.float32)))
    attack.refused("logits .npy", name, evaluate.main, "--logits", attack.folder, says="expected [M] and [1, M, K]")


def test_logits_that_are_no_numbers(attack):
    (attack.folder / "labels.npy").write_bytes(npy(np.arange(6) % 3))
    (attack.folder / "clean.npy").write_bytes(npy(np.full((1, 6, 3), np.nan, np.float32)))
    (attack.folder / "fog.npy").write_bytes(npy(np.zeros((5, 6, 3), np.float32)))
    status, errors = attack.run(evaluate.main, "--logits", attack.folder)
    assert status == 0
    assert errors == ""
    results = json.loads((attack.folder / EVALUATION).read_text())
    assert (results["clean_accuracy"], results["corruption_accuracy"]["fog"]) == (None, [1 / 3] * 5)


def png_bomb(width: int, height: int) -> bytes:
    """A whole PNG of black pixels of one bit."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")

    packer = zlib.compressobj(1)
    row = bytes(1 + (width + 7) // 8)
    block = row * max(1, (1 << 20) // len(row))
    count, left = divmod(height * len(row), len(block))
    pixels = b"".join(packer.compress(block) for _ in range(count)) + packer.compress(block[:left]) + packer.flush()
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([1, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(50_000, 50_000), (1, 100_000_000), (100_000_000, 1)])
def test_png(attack, width, height):
    images = attack.folder / "images" / "class"
    images.mkdir(parents=True)
    (images / "bomb.png").write_bytes(png_bomb(width, height))
    arguments = ["--dataset", "folder", "--data_dir", images.parent, "--image_size", "32", "--out", "set"]
    line = attack.refused(
        "image folder", f"PNG {width} x {height}", corrupt_command.main, *arguments, says="cannot be read"
    )
    assert "exceeds limit" in line


JSON_BOMBS = {
    "100,000 levels": "[" * 100_000,
    "a number of 5,000 digits": '{"seed": ' + "9" * 5000 + "}",
    "1e999": '{"clean_accuracy": 1e999}',
    "NaN": '{"clean_accuracy": NaN}',
}


@pytest.mark.parametrize("name", JSON_BOMBS)
def test_json(attack, name):
    run = write_run(attack.folder / "run")
    (run / "results.json").write_text(JSON_BOMBS[name])
    attack.refused("report results.json", name, report.main, run, "--out", "out", says="is damaged")


@pytest.mark.parametrize("name", JSON_BOMBS)
def test_jsonl(attack, name):
    """A log costs the training curve only."""
    run = write_run(attack.folder / "run")
    (run / "metrics.jsonl").write_text(JSON_BOMBS[name] + "\n")
    read, faults = read_run(run)
    assert read.epochs == ()
    assert "metrics.jsonl: line 1 is damaged" in faults[0]
    attack.note("report metrics.jsonl", name, f"left out: {faults[0]}")
