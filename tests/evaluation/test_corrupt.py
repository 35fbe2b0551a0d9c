"""Making and checking -C sets: layout, hashes, faults, arguments, and evaluation with a made set."""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

import fastmagn.evaluation.corrupted_set
from fastmagn.config.eval_schema import EvalConfig
from fastmagn.corruptions import CORRUPTION_SETS, available_corruptions, corrupt
from fastmagn.data import load_images, open_corrupted
from fastmagn.data.corrupted.npy import check_source
from fastmagn.errors import InputError
from fastmagn.evaluation.corrupt_command import main, parse_arguments
from fastmagn.evaluation.corrupted_set import CorruptConfig, make_corrupted_set
from fastmagn.evaluation.measure import evaluate

NUM_IMAGES = 12
SEED = 7

pytestmark = pytest.mark.skipif("frost" not in available_corruptions(), reason="the frost pictures are not installed")


@pytest.fixture(scope="module")
def digits():
    return load_images("digits", Path())


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A whole c19 set of a few digits; not to be changed."""
    out = tmp_path_factory.mktemp("made") / "new" / "digits-c"
    make_corrupted_set(CorruptConfig(out=out, dataset="digits", num_images=NUM_IMAGES, seed=SEED))
    return out


@pytest.fixture
def copy(made, tmp_path) -> Path:
    return shutil.copytree(made, tmp_path / "copy")


def small(out: Path, **fields) -> CorruptConfig:
    return CorruptConfig(**{"out": out, "dataset": "digits", "num_images": 2, "corruption_set": "c15"} | fields)


def test_the_layout_is_the_published_one(made, digits):
    files = {path.name for path in made.iterdir()}
    assert files == {*(f"{name}.npy" for name in CORRUPTION_SETS["c19"]), "labels.npy", "manifest.json"}
    for name in CORRUPTION_SETS["c19"]:
        rows = np.load(made / f"{name}.npy")
        assert rows.dtype == np.uint8
        assert rows.shape == (5 * NUM_IMAGES, 32, 32, 3)
        for severity in range(1, 6):
            expected = corrupt(digits.test_images_u8[:NUM_IMAGES], name, severity, seed=SEED)
            np.testing.assert_array_equal(rows[(severity - 1) * NUM_IMAGES : severity * NUM_IMAGES], expected)
    labels = np.load(made / "labels.npy")
    assert labels.dtype == np.uint8
    assert labels.tolist() == 5 * digits.test_labels[:NUM_IMAGES].tolist()
    assert [path.name for path in made.parent.iterdir()] == [made.name]


def test_the_manifest_says_what_was_made(made, digits):
    manifest = json.loads((made / "manifest.json").read_text())
    assert manifest["dataset"] == "digits"
    assert manifest["num_images"] == NUM_IMAGES
    assert manifest["image_shape"] == [32, 32, 3]
    assert manifest["seed"] == SEED
    assert manifest["corruptions"] == list(CORRUPTION_SETS["c19"])
    assert manifest["class_names"] == list("0123456789")
    assert {"fastmagn", "numpy", "numba", "pillow", "scipy", "platform", "cpu"} <= manifest["environment"].keys()
    assert manifest["files"].keys() == {path.name for path in made.glob("*.npy")}
    for name, file in manifest["files"].items():
        content = (made / name).read_bytes()
        assert file == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    source = digits.test_images_u8[:NUM_IMAGES].tobytes()
    labels = b"".join(int(label).to_bytes(8, "little") for label in digits.test_labels[:NUM_IMAGES])
    assert manifest["source"] == {
        "images_sha256": hashlib.sha256(source).hexdigest(),
        "labels_sha256": hashlib.sha256(labels).hexdigest(),
    }


def test_a_subset_is_the_head_of_the_whole_and_chunks_do_not_show(made, tmp_path, monkeypatch):
    monkeypatch.setattr(
        fastmagn.evaluation.corrupted_set, "_CHUNK_BYTES", 2 * 32 * 32 * 3
    )  # 5 images in chunks of 2, 2 and 1
    lines = []
    make_corrupted_set(small(tmp_path / "head", num_images=5, seed=SEED, corruption_set="c18"), lines.append)
    assert "gaussian_noise.npy" not in os.listdir(tmp_path / "head")
    for name in CORRUPTION_SETS["c18"]:
        head, whole = np.load(tmp_path / "head" / f"{name}.npy"), np.load(made / f"{name}.npy")
        np.testing.assert_array_equal(head.reshape(5, 5, -1), whole.reshape(5, NUM_IMAGES, -1)[:, :5])
    assert lines[0].startswith("digits: 18 corruptions x 5 severities x 5 images, ")
    assert [line.split(":")[0] for line in lines[1:]] == list(CORRUPTION_SETS["c18"])


def test_many_classes_need_wider_labels(tmp_path, digits, monkeypatch):
    names = tuple(str(i) for i in range(1000))
    labels = np.array([999, 3])
    source = fastmagn.evaluation.corrupted_set.SourceImages(digits.test_images_u8[:2], labels, names)
    monkeypatch.setattr(fastmagn.evaluation.corrupted_set, "load_source_images", lambda config: source)
    make_corrupted_set(small(tmp_path / "c"))
    assert np.load(tmp_path / "c" / "labels.npy").tolist() == 5 * [999, 3]
    assert open_corrupted(tmp_path / "c", "fog", labels, (32, 32, 3)).shape == (5, 2, 32, 32, 3)


# --- checking a set


def verify(out: Path, *arguments: str) -> int:
    return main(["--verify", "--out", str(out), *arguments])


def test_a_set_as_made_passes(made, capsys):
    assert verify(made) == 0
    assert capsys.readouterr().out == f"{made}: 20 files, as made: sizes, SHA-256 and shapes match its manifest\n"
    assert verify(made, "--dataset", "digits") == 0
    assert capsys.readouterr().out.endswith("match its manifest and its test images\n")


def flip_bit(folder: Path) -> str:
    content = bytearray((folder / "fog.npy").read_bytes())
    content[5000] ^= 4
    (folder / "fog.npy").write_bytes(content)
    return r"fog\.npy: its SHA-256 is [0-9a-f]{64}; expected [0-9a-f]{64}: its content has changed\."


def truncate(folder: Path) -> str:
    os.truncate(folder / "frost.npy", 1000)
    return rf"frost\.npy: got 1000 bytes; expected {128 + 5 * NUM_IMAGES * 3072}\."


def remove(folder: Path) -> str:
    (folder / "snow.npy").unlink()
    return r"snow\.npy: missing\."


def swap(folder: Path) -> str:
    (folder / "snow.npy").rename(folder / "other")
    (folder / "fog.npy").rename(folder / "snow.npy")
    (folder / "other").rename(folder / "fog.npy")
    return r"snow\.npy: its SHA-256(.|\n)*fog\.npy: its SHA-256"


def add(folder: Path) -> str:
    shutil.copy(folder / "fog.npy", folder / "smoke.npy")
    return r"smoke\.npy: not in the manifest; remove it\."


def other_labels(folder: Path) -> str:
    labels = np.load(folder / "labels.npy")
    np.save(folder / "labels.npy", labels[::-1])
    return r"labels\.npy: its SHA-256"


def claim_more_images(folder: Path) -> str:
    edit_manifest(folder, num_images=NUM_IMAGES + 1)
    return rf"fog\.npy: got an array \[{5 * NUM_IMAGES}, 32, 32, 3\]; expected \[{5 * NUM_IMAGES + 5}, 32, 32, 3\]"


def edit_manifest(folder: Path, **fields) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize("spoil", [flip_bit, truncate, remove, swap, add, other_labels, claim_more_images])
def test_faults_are_found_and_named(spoil, copy, capsys):
    message = spoil(copy)
    assert verify(copy) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert all(line.startswith(f"error: {copy}") for line in captured.err.splitlines())
    assert len(captured.err.splitlines()) == {swap: 2, claim_more_images: 20}.get(spoil, 1)
    assert re.search(message, captured.err)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_bit_is_found(copy, data):
    path = copy / data.draw(st.sampled_from([*(f"{name}.npy" for name in CORRUPTION_SETS["c19"]), "labels.npy"]))
    position, bit = data.draw(st.integers(0, path.stat().st_size - 1)), data.draw(st.integers(0, 7))
    whole = path.read_bytes()
    path.write_bytes(whole[:position] + bytes([whole[position] ^ (1 << bit)]) + whole[position + 1 :])
    faults = fastmagn.evaluation.corrupted_set.verify_corrupted_set(CorruptConfig(out=copy))
    path.write_bytes(whole)
    assert len(faults) == 1
    assert faults[0].startswith(f"{path}: its SHA-256")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"manifest\.json: no such file; expected a set that python -m fastmagn\.corrupt made"),
        ("{", r"manifest\.json: not JSON"),
        ("[]", "does not hold an object"),
        ('{"format_version": 1}', "dataset, num_images, image_shape, seed, corruptions, source, files missing"),
        ({"format_version": 2}, "format_version is 2; this program reads 1"),
        ({"corruptions": ["fog"]}, "files are not those of its corruptions"),
        ({"corruptions": [["fog"]]}, "corruptions are not names"),
        ({"image_shape": [32, 32]}, r"image_shape is not \[H, W, C\]"),
        ({"corruptions": ["../fog"], "files": {"../fog.npy": {}, "labels.npy": {}}}, "not a plain file name"),
        ({"corruptions": ["fog"], "files": {"fog.npy": {}, "labels.npy": {}}}, "has no bytes and sha256"),
        ({"resize_px": 31}, "resize_px is not a length in px"),
        ({"source": {}}, "source has no images_sha256"),
    ],
)
def test_broken_manifests(copy, text, message):
    if isinstance(text, dict):
        edit_manifest(copy, **text)
    elif text is None:
        (copy / "manifest.json").unlink()
    else:
        (copy / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        verify(copy)
    assert "\n" not in str(caught.value)


def test_a_set_of_other_images_is_refused(made, copy, digits, capsys):
    images_u8, labels = digits.test_images_u8, digits.test_labels
    check_source(made, images_u8, labels)
    check_source(made, images_u8[:NUM_IMAGES], labels[:NUM_IMAGES])
    other = images_u8.copy()
    other[3, 5, 5, 1] ^= 1
    with pytest.raises(InputError, match="made of 12 images of digits, which differ from the test set's by their SHA"):
        check_source(made, other, labels)
    with pytest.raises(InputError, match="made of 12 images of digits; the test set given has 4"):
        check_source(made, images_u8[:4], labels[:4])
    edit_manifest(copy, source={"images_sha256": "0", "labels_sha256": "0"})
    assert verify(copy) == 0
    assert verify(copy, "--dataset", "digits") == 1
    assert "which differ from the test set's" in capsys.readouterr().err
    assert verify(copy, "--dataset", "cifar10", "--data_dir", "/nowhere") == 1
    assert "made of digits; --dataset says cifar10." in capsys.readouterr().err
    (copy / "manifest.json").unlink()
    check_source(copy, other, labels)  # as a published set, it cannot tell


# --- arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--out: required; --help says what to give."),
        (["--out", "c"], r"dataset: got None; expected one of cifar10, cifar100, digits, folder, "),
        (["--out", "c", "--dataset", "cifar"], r"dataset: got 'cifar'; expected one of cifar10, cifar100, digits"),
        (["--out", "c", "--dataset", "cifar10"], "data_dir: got None; expected the folder of cifar10's files"),
        (["--out", "c", "--dataset", "digits", "--seed", "-1"], r"seed: got -1; expected 0\.\.2\^64 - 1\."),
        (
            ["--out", "c", "--dataset", "digits", "--num_images", "-1"],
            r"num_images: got -1; expected 0 \(all\) or",
        ),
        (["--out", "c", "--dataset", "digits", "--num_images", "600"], r"num_images: got 600; expected 0\.\.599, the"),
        (["--out", "c", "--dataset", "digits", "--image_size", "64"], "image_size: got 64; expected none: digits has"),
        (
            ["--out", "c", "--dataset", "digits", "--corruption_set", "c12"],
            r"corruption_set: got 'c12'; expected one of c15, c18, c19, cbar, or a corruption such as fog, or sev",
        ),
        (["--out", "c", "--dataset", "digits", "--severity", "3"], "--severity: is not an option of python -m"),
        (
            ["--out", "c", "--dataset", "digits", "--resize_px", "64"],
            "resize_px: got 64; expected none: digits has",
        ),
        (
            ["--out", "c", "--dataset", "folder", "--data_dir", "x", "--image_size", "32", "--resize_px", "31"],
            r"^resize_px: got 31; expected 0 \(image_size \* 256 / 224\) or 32\.\.4096 px\.$",
        ),
        (["--out", "c", "--dataset", "folder", "--data_dir", "x"], r"image_size: got None; expected 8\.\.4096 px for"),
        (
            ["--out", "c", "--dataset", "folder", "--data_dir", "x", "--image_size", "7"],
            r"image_size: got 7; expected 8\.\.4096",
        ),
        (
            ["--out", "c", "--dataset", "folder", "--data_dir", "/none", "--image_size", "9"],
            "/none: no such folder; expected one with CLASS/IMAGE in it",
        ),
        (
            ["--out", "c", "--dataset", "cifar100", "--data_dir", "/none"],
            "data_dir: looked for CIFAR-100 in /none/cifar-100-python; .* with --data_dir, fetch it with"
            " --download true, or use --dataset digits",
        ),
        (
            ["--out", "c", "--dataset", "webdataset", "--data_dir", "/none", "--image_size", "9"],
            "^data_dir: /none: no such folder; expected one with val-000.tar, val-001.tar",
        ),
        (
            [
                *("--out", "c", "--dataset", "webdataset", "--data_dir", "/usr", "--image_size", "9"),
                "--test_shards",
                "v.tar",
            ],
            "^test_shards: /usr: 1 file is missing: v.tar",
        ),
        (
            ["--out", "c", "--dataset", "hf", "--data_dir", "owner/name", "--image_size", "9"],
            "^data_dir: owner/name: no such folder; .* or the name of a set on the hub, with --download true",
        ),
    ],
)
def test_bad_arguments(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        main(arguments)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_arguments_also_come_from_a_file(tmp_path):
    (tmp_path / "set.yaml").write_text("dataset: digits\nout: there\nnum_images: 5\nseed: 3\n")
    file, seed = ["--config", str(tmp_path / "set.yaml")], ["--seed", "4"]
    for arguments in ([*file, *seed], [*seed, *file]):
        config, verified = parse_arguments(arguments)
        assert config == CorruptConfig(out=Path("there"), dataset="digits", num_images=5, seed=4)
        assert not verified


# --- using a set


def test_evaluation_of_a_made_set_is_that_of_images_made_on_the_fly(made, digits):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    images = (digits.test_images_u8, digits.test_labels)
    for num_images in (NUM_IMAGES, 7):
        settings = {"num_images": num_images, "corruption_seed": SEED, "num_bins": 3}
        on_the_fly = evaluate(model, *images, EvalConfig(**settings), device=torch.device("cpu"))
        read = evaluate(model, *images, EvalConfig(**settings, corrupted_dir=made), device=torch.device("cpu"))
        assert read == on_the_fly
        assert len(read["corruption_accuracy"]) == 19


def test_a_folder_of_photographs_becomes_a_set(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for dog_or_cat in ("dog", "cat"):
        (tmp_path / "images" / dog_or_cat).mkdir(parents=True)
        for i in range(2):
            pixels = rng.integers(0, 256, (24, 40, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / dog_or_cat / f"{i}.png")
    (tmp_path / "images" / "dog" / "2.jpg").write_text("no picture")
    out = tmp_path / "c"
    source = ["--data_dir", str(tmp_path / "images")]
    fields = ["--dataset", "folder", "--image_size", "24", "--resize_px", "24", "--corruption_set", "c15"]
    with pytest.warns(UserWarning, match=rf"{tmp_path / 'images'}: 1 of 5 image files cannot be read: "):
        assert main(["--out", str(out), *source, *fields]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1].startswith("made 300 images in ")
    assert np.load(out / "labels.npy").tolist() == 5 * [0, 0, 1, 1]
    middle = np.asarray(Image.open(tmp_path / "images" / "dog" / "1.png"))[:, 8:32]
    expected = corrupt(middle[None], "frost", 4, indices=np.array([3]))[0]
    np.testing.assert_array_equal(np.load(out / "frost.npy")[3 * 4 + 3], expected)
    assert verify(out, *source) == 0
    Image.fromarray(middle).save(tmp_path / "images" / "dog" / "1.png")
    Image.fromarray(255 - middle).save(tmp_path / "images" / "dog" / "0.png")
    assert verify(out, *source) == 1
