"""What the commands print about folders with files that cannot be used: lines for people, without Python's classes."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.photo_folders import make_photo_folder
from tests.helpers.processes import ROOT, command_environment
from tests.helpers.spoilt_files import spoilt_files

FIELDS = {
    **{"data.name": "folder", "data.image_size": 16, "data.num_workers": 1, "device": "cpu"},
    **{"train.epochs": 1, "train.batch_size": 4, "train.max_steps": 2, "train.amp": "float32"},
    **{"augment.crop_padding_px": 0, "augment.rotation_deg": 0.0, "augment.horizontal_flip": "true"},
    **{"model.name": "resnet_small", "eval.corruption_set": "c15", "eval.num_images": 6},
}
SUFFIXES = {"JPEG": "jpg", "TIFF": "tif"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Photographs, and among them what people have: spoilt files, odd modes, links to nothing, other kinds."""
    root = make_photo_folder(tmp_path_factory.mktemp("problems"), 18, 18)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    for part in ("train", "val"):
        place = root / part / "ape"
        for number, (kind, content) in enumerate(spoilt_files(3, 48)):
            (place / f"spoilt{number}.{SUFFIXES.get(kind, kind.lower())}").write_bytes(content)
        picture.convert("P").save(place / "palette.png", transparency=bytes(range(200)))
        picture.save(place / "odd.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff")
        (place / "gone.jpg").symlink_to("/nonexistent/1.jpg")
        (place / "notes.txt").write_text("text")
    return root


def printed(module: str, *arguments: str | Path) -> str:
    command = [sys.executable, "-m", f"fastmagn.{module}", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=command_environment(), capture_output=True, text=True, timeout=300)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "Traceback" not in output
    assert not re.search(r"[A-Za-z]Warning\b|<class|<_io|\.py:\d+", output), output
    return output


@pytest.mark.slow
@pytest.mark.process
def test_no_command_prints_a_warning_class_or_a_line_of_code(folder, tmp_path):
    run = tmp_path / "run"
    fields = [part for name, value in FIELDS.items() for part in (f"--{name}", str(value))]
    train = printed("train", *fields, "--data.dir", folder, "--run_dir", run)
    for part in ("train", "val"):
        unused = f"warning: {folder / part}: files that are not used: 1 dangling link, 1 of another kind (.txt)."
        assert train.count(unused) == 1
        (line,) = re.findall(rf"warning: {folder / part}: \d+ of 68 image files cannot be read: (.*)", train)
        names = re.findall(r"spoilt\d+\.\w+", line)
        assert len(names) == len(set(names)) == 3
    printed("evaluate", "--run", run, "--eval.num_images", "5")
    printed("evaluate", "--run", run, "--images", folder / "val", "--out", tmp_path / "images.json")
    source = ("--dataset", "folder", "--data_dir", folder, "--image_size", "16")
    printed("corrupt", *source, "--corruption_set", "c15", "--num_images", "6", "--out", tmp_path / "c")
    printed("corrupt", "--verify", "--data_dir", folder, "--out", tmp_path / "c")
    printed("report", run, "--out", tmp_path / "report")
    for kind in ("safetensors", "onnx"):
        printed("export", "--run", run, "--format", kind, "--out", tmp_path / f"model.{kind}")
