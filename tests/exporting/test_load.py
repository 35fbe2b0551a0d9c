"""`fastmagn.load` and `predict`: every kind of file and of images, against the network in float64; hostile files."""

import dataclasses
import json
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import CenterCrop, InterpolationMode, Resize

import fastmagn
from fastmagn.config.schema import Config, DataConfig
from fastmagn.data.files.decoding import resize_px
from fastmagn.errors import InputError
from fastmagn.evaluation.trained import load_run
from fastmagn.export import main
from fastmagn.exporting.images import as_batch
from fastmagn.exporting.info import ModelInfo, info_from_json
from fastmagn.exporting.said import resized_alike
from tests.helpers.run_folders import CLASS_NAMES, make_run, plain_probabilities


@pytest.fixture(scope="module")
def files(run_dir, onnx_u8, tmp_path_factory) -> dict[str, Path]:
    """Everything that can be loaded, of one run."""
    folder = tmp_path_factory.mktemp("files")
    kinds = {
        "safetensors": (folder / "model.safetensors", []),
        "onnx float": (folder / "float.onnx", ["--input", "float"]),
    }
    for path, arguments in kinds.values():
        main(["--run", str(run_dir), "--format", path.suffix[1:], "--out", str(path), *arguments])
    return {"run folder": run_dir, "onnx uint8": onnx_u8} | {kind: path for kind, (path, _) in kinds.items()}


@pytest.fixture(scope="module")
def wanted(run_dir, images_u8) -> np.ndarray:
    return plain_probabilities(load_run(run_dir).network, images_u8)


def images_in_every_form(images_u8: np.ndarray, folder: Path) -> dict:
    floats, pictures = images_u8 / 255, [Image.fromarray(image) for image in images_u8]
    paths = [folder / f"{number}.png" for number in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        picture.save(path)
    return {
        "uint8 [B, H, W, 3]": images_u8,
        "uint8 [B, 3, H, W]": images_u8.transpose(0, 3, 1, 2),
        "uint8 tensor": torch.from_numpy(images_u8),
        "float32 [B, 3, H, W]": floats.transpose(0, 3, 1, 2).astype(np.float32),
        "float64 [B, H, W, 3]": floats,
        "float32 tensor": torch.from_numpy(floats).permute(0, 3, 1, 2).float().requires_grad_(),
        "Pillow": pictures,
        "paths": paths,
        "strings and Pillow": (str(paths[0]), *pictures[1:]),
    }


@pytest.mark.parametrize("kind", ["run folder", "safetensors", "onnx uint8", "onnx float"])
def test_every_file_takes_every_form_of_images(files, kind, images_u8, wanted, tmp_path):
    classifier = fastmagn.load(files[kind], device="cpu")
    assert classifier.class_names == CLASS_NAMES
    assert classifier.image_size == (32, 32)
    for form, images in images_in_every_form(images_u8, tmp_path).items():
        labels, probabilities = classifier.predict(images, batch_size=2)
        assert (labels.dtype, probabilities.dtype) == (np.int64, np.float32)
        np.testing.assert_allclose(probabilities, wanted, atol=1e-5, err_msg=form)
        np.testing.assert_array_equal(labels, wanted.argmax(axis=1), err_msg=form)


def test_one_image_by_itself_and_none_at_all(files, images_u8):
    classifier = fastmagn.load(str(files["safetensors"]))
    whole = classifier.predict(images_u8)
    assert whole.labels.shape == (5,)
    one = classifier.predict(Image.fromarray(images_u8[3]))
    np.testing.assert_allclose(one.probabilities[0], whole.probabilities[3], atol=1e-6)
    none = classifier.predict(images_u8[:0])
    assert (none.labels.shape, none.probabilities.shape) == ((0,), (0, 10))
    assert classifier.predict([]).labels.dtype == np.int64


@pytest.mark.parametrize("kind", ["run folder", "safetensors", "onnx float"])
def test_autocast_around_it_does_not_matter(files, kind, images_u8):
    classifier = fastmagn.load(files[kind], device="cpu")
    floats = torch.from_numpy(images_u8).permute(0, 3, 1, 2) / 255
    expected = classifier.predict(images_u8).probabilities, classifier(floats)
    with torch.autocast("cpu", torch.bfloat16):
        made = classifier.predict(images_u8).probabilities, classifier(floats)
    np.testing.assert_array_equal(made[0], expected[0])
    assert torch.equal(made[1], expected[1])


@pytest.mark.parametrize("kind", ["run folder", "safetensors", "onnx uint8", "onnx float"])
def test_a_copy_in_another_process_predicts_the_same(files, kind, images_u8):
    classifier = fastmagn.load(files[kind], device="cpu")
    other = pickle.loads(pickle.dumps(classifier))
    assert repr(other) == repr(classifier)
    np.testing.assert_array_equal(other.predict(images_u8).probabilities, classifier.predict(images_u8).probabilities)


def with_another_bias(file: Path) -> bytes:
    """The ONNX file of a classifier whose first class has a logit that is larger by 100."""
    import onnx

    model = onnx.load(file)
    (bias,) = (tensor for tensor in model.graph.initializer if tensor.name.endswith("head.bias"))
    values = onnx.numpy_helper.to_array(bias) + np.float32(100) * (np.arange(10) == 0)
    bias.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), bias.name))
    return model.SerializeToString()


def test_a_copy_is_of_the_onnx_model_that_was_loaded_whatever_becomes_of_its_file(
    onnx_u8, images_u8, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    file = Path(shutil.copy(onnx_u8, tmp_path / "model.onnx"))
    classifier = fastmagn.load("model.onnx", device="cpu")
    wanted = classifier.predict(images_u8).probabilities
    file.write_bytes(with_another_bias(onnx_u8))
    assert fastmagn.load("model.onnx", device="cpu").predict(images_u8).labels.tolist() == [0] * 5
    (tmp_path / "elsewhere").mkdir()
    for change in (lambda: None, file.unlink, lambda: monkeypatch.chdir("elsewhere")):
        change()
        other = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(classifier))))
        np.testing.assert_array_equal(other.predict(images_u8).probabilities, wanted)


def test_floats_that_an_interpolation_left_beyond_the_range_are_taken(files, images_u8):
    classifier = fastmagn.load(files["safetensors"], device="cpu")
    floats = images_u8.astype(np.float32).transpose(0, 3, 1, 2) / 255
    beyond = np.where(floats == 1, np.float32(1 + 1e-6), np.where(floats == 0, np.float32(-1e-8), floats))
    assert beyond.max() > 1
    expected = classifier.predict(floats).probabilities
    np.testing.assert_array_equal(classifier.predict(beyond).probabilities, expected)
    with pytest.raises(InputError, match=r"images: got floats in 0\.\.1\.004; expected \[0, 1\]"):
        classifier.predict(floats * np.float32(1.004))


@pytest.mark.parametrize("arguments", [["--method", "rse", "--eval.rse_draws", "3"], ["--eval.test_time_flip", "true"]])
def test_an_ensemble_is_loaded_whole(tmp_path, images_u8, arguments):
    make_run(tmp_path / "run", *arguments)
    out = tmp_path / "model.safetensors"
    main(["--run", str(tmp_path / "run"), "--format", "safetensors", "--out", str(out)])
    from_run, from_file = (fastmagn.load(path).predict(images_u8) for path in (tmp_path / "run", out))
    np.testing.assert_array_equal(from_file.probabilities, from_run.probabilities)
    single = plain_probabilities(load_run(tmp_path / "run").network, images_u8)
    assert np.abs(from_file.probabilities - single).max() > 1e-5


def test_files_are_decoded_upright_as_rgb_and_resized_only_when_asked(files, tmp_path):
    classifier = fastmagn.load(files["safetensors"])
    picture = Image.fromarray(np.random.default_rng(1).integers(256, size=(48, 70, 3), dtype=np.uint8))
    for mode in ("RGB", "L", "P", "RGBA", "I;16"):
        path = tmp_path / f"{mode.replace(';', '-')}.png"
        if mode == "I;16":
            grey = np.asarray(picture.convert("L")).astype(np.uint16) * 256
            Image.fromarray(grey).save(path)
            rgb = picture.convert("L").convert("RGB")
        else:
            picture.convert(mode).save(path)
            rgb = picture.convert(mode).convert("RGB")
        with pytest.raises(InputError) as error:
            classifier.predict([path])
        assert str(error.value) == (
            f"image {path}: got 70 x 48 px; expected 32 x 32, as the model was trained on. With resize=True its "
            "shorter side is resized and its centre is cut out."
        )
        resized = CenterCrop(32)(Resize(32, InterpolationMode.BICUBIC)(rgb))
        wanted = classifier.predict(np.asarray(resized)[None])
        np.testing.assert_array_equal(classifier.predict([path], resize=True).probabilities, wanted.probabilities)
    square = picture.crop((0, 0, 32, 32))
    exif = square.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    square.save(tmp_path / "turned.png", exif=exif)
    turned = classifier.predict(tmp_path / "turned.png").probabilities
    upright = classifier.predict(np.rot90(np.asarray(square), k=-1)[None].copy()).probabilities
    np.testing.assert_array_equal(turned, upright)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            np.zeros((1, 28, 28, 3), np.uint8),
            "images: got uint8 [1, 28, 28, 3]; expected [B, 32, 32, 3] or [B, 3, 32, 32], the size that the model "
            "was trained on. Resize them first.",
        ),
        (
            np.zeros((32, 32, 3), np.uint8),
            "images: got uint8 [32, 32, 3]; expected a batch, [B, H, W, 3] or [B, 3, H, W]. For a single image, "
            "give images[None].",
        ),
        (
            np.full((1, 32, 32, 3), 7.5),
            "images: got floats in 7.5..7.5; expected [0, 1]: the model normalises them itself.",
        ),
        (
            torch.full((1, 3, 32, 32), torch.nan),
            "images: got floats in nan..nan; expected [0, 1]: the model normalises them itself.",
        ),
        (
            np.zeros((1, 32, 32, 3), np.int64),
            "images: got int64 [1, 32, 32, 3]; expected uint8 (levels 0..255), or floats in [0, 1].",
        ),
        (7, "images: got a int; expected an array or tensor [B, H, W, 3], or a list of files or Pillow images."),
        (
            [np.zeros((32, 32, 3), np.uint8)],
            "images: got a list of ndarray; expected an array or tensor [B, H, W, 3], or a list of files or Pillow "
            "images.",
        ),
    ],
    ids=["size", "single", "range", "nan", "dtype", "number", "list"],
)
def test_unusable_images_are_one_line(files, images, message):
    with pytest.raises(InputError) as error:
        fastmagn.load(files["safetensors"]).predict(images)
    assert str(error.value) == message


@pytest.mark.parametrize("text", [b"", b"no picture", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\nshowpage\n"])
def test_a_file_that_is_no_image_is_one_line(files, tmp_path, text):
    (tmp_path / "a.png").write_bytes(text)
    for path in (tmp_path / "a.png", tmp_path / "absent.png", tmp_path):
        with pytest.raises(InputError, match=rf"^image {re.escape(str(path))}: cannot be read as an image \(.*\)\.$"):
            fastmagn.load(files["safetensors"]).predict([path])
    for batch_size in (0, 2.5, "4"):
        with pytest.raises(InputError, match=rf"^batch_size: got {batch_size!r}; expected an integer, 1 or more\.$"):
            fastmagn.load(files["safetensors"]).predict([], batch_size=batch_size)


def test_a_name_that_is_too_long_is_one_line():
    for name in ("x" * 300, "x" * 300 + ".onnx"):
        with pytest.raises(InputError, match=rf"^{name}: cannot be read \(File name too long\); expected a run folder"):
            fastmagn.load(name)


class Bomb:
    """What a pickle runs when it is read."""

    def __reduce__(self):
        return (Path.touch, (Path("pwned"),))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.safetensors", "no such file"),
        ("model.pt", "expected NAME.safetensors, NAME.onnx, or a run folder"),
        ("pickle.safetensors", "cannot be read as safetensors"),
        ("pickle.onnx", "is not an ONNX model"),
        ("short.safetensors", "cannot be read as safetensors"),
        ("short.onnx", "is not an ONNX model"),
        ("stranger.safetensors", "was not written by fastmagn.export: its metadata have no 'fastmagn'"),
        ("folder", "is not a run folder: it has no config.yaml"),
    ],
)
def test_another_file_is_one_line_and_runs_no_code(files, tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    bomb = pickle.dumps(Bomb())
    for suffix, kind in (("safetensors", "safetensors"), ("onnx", "onnx uint8")):
        (tmp_path / f"pickle.{suffix}").write_bytes(bomb)
        (tmp_path / f"short.{suffix}").write_bytes(files[kind].read_bytes()[:-5000])
    safetensors.torch.save_file({"weight": torch.zeros(3)}, tmp_path / "stranger.safetensors")
    (tmp_path / "model.pt").write_bytes(bomb)
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError) as error:
        fastmagn.load(name)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "pwned").exists()


def rewritten(source: Path, out: Path, **changed) -> Path:
    """The file with other metadata."""
    header = json.loads(safetensors.safe_open(source, "pt").metadata()["fastmagn"]) | changed
    safetensors.torch.save_file(safetensors.torch.load_file(source), out, metadata={"fastmagn": json.dumps(header)})
    return out


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"format_version": 3}, "got format version 3; expected 1 or 2. Use a newer fastmagn."),
        ({"network": "resnet18"}, "its weights do not fit its network, resnet18; export the run again."),
        ({"network": "os:system"}, "model.name: got 'os:system'; expected one of resnet18"),
        ({"network": "timm:hf-hub:someone/something"}, "timm"),
        ({"network": 7}, "its metadata are damaged (ValueError); export the run again."),
        ({"class_names": ["one"]}, "its weights do not fit its network, resnet_small; export the run again."),
        ({"class_names": None}, "its metadata are damaged (TypeError); export the run again."),
        ({"image_size": [32, -1]}, "its metadata are damaged (ValueError)"),
        ({"image_size": [32, 40]}, "its metadata are damaged (ValueError)"),
        ({"resize_px": 31}, "its metadata are damaged (ValueError)"),
        ({"padded_from": [28]}, "its metadata are damaged (ValueError)"),
        ({"padded_from": [28, 33]}, "its metadata are damaged (ValueError)"),
        ({"mean": [0.1, 0.2]}, "its metadata are damaged (ValueError)"),
        ({"noise_draws": 2}, "its noises are not the 2 that its metadata name"),
        ({"stranger": 1}, "its metadata are damaged (TypeError)"),
    ],
    ids=str,
)
def test_metadata_that_do_not_fit_are_one_line(files, tmp_path, changed, message):
    with pytest.raises(InputError) as error:
        fastmagn.load(rewritten(files["safetensors"], tmp_path / "changed.safetensors", **changed))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


INFO = ModelInfo(
    network="resnet18",
    class_names=("a", "b"),
    image_size=(32, 32),
    resize_px=37,
    mean=(0.5, 0.5, 0.5),
    std=(0.2, 0.2, 0.2),
    data="folder",
    method="magn",
    weights="last",
    bn_views="joint",
    test_time_flip=False,
    noise_draws=0,
    results=None,
    fastmagn="0.1.0",
)
LARGEST = dataclasses.replace(INFO, image_size=(4096, 4096), resize_px=4681)  # 4096 * 256 / 224
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def test_metadata_read_back_equal():
    for info in (INFO, LARGEST, dataclasses.replace(INFO, padded_from=(28, 20))):
        assert info_from_json(info.to_json(), "f") == info


def test_the_largest_images_are_measured_as_the_run_measured_them():
    config = Config(data=DataConfig(name="folder", dir=Path("photos"), image_size=4096))
    assert resize_px(resized_alike(LARGEST, config).data) == LARGEST.resize_px == resize_px(config.data)


@given(name=st.sampled_from([field.name for field in dataclasses.fields(INFO)]), value=JSON)
def test_any_field_of_anything_is_read_or_refused_in_one_line(name, value):
    text = json.dumps(json.loads(INFO.to_json()) | {name: value})
    info, message = None, ""
    try:
        info = info_from_json(text, "f")
    except InputError as error:
        message = str(error)
    assert "\n" not in message
    assert info is None or info_from_json(info.to_json(), "f") == info


@given(st.text() | st.builds(json.dumps, JSON))
def test_any_text_is_refused_in_one_line(text):
    with pytest.raises(InputError):
        info_from_json(text, "f")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("kind", ["safetensors", "onnx uint8"])
def test_cuda_where_there_is_none_is_one_line(files, kind):
    with pytest.raises(InputError, match=r"device: got 'cuda'; expected cpu or auto, as "):
        fastmagn.load(files[kind], device="cuda")
    with pytest.raises(InputError, match=r"device: got 'gpu'; expected auto, cpu or cuda\."):
        fastmagn.load(files[kind], device="gpu")


@pytest.mark.parametrize("starts", [True, False])
def test_onnx_on_cuda_computes_in_float32_or_is_refused(files, monkeypatch, starts):
    """onnxruntime computes in TensorFloat-32 by default, and on the CPU where CUDA does not start."""
    import onnxruntime

    real, asked = onnxruntime.InferenceSession, []
    cuda, cpu = "CUDAExecutionProvider", "CPUExecutionProvider"

    def session(model, options, providers):
        asked.extend(providers)
        started = real(model, options, providers=[cpu])
        monkeypatch.setattr(started, "get_providers", lambda: [cuda, cpu] if starts else [cpu])
        return started

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [cuda, cpu])
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    if starts:
        fastmagn.load(files["onnx uint8"], device="cuda")
    else:
        fastmagn.load(files["onnx uint8"], device="auto")
        with pytest.raises(InputError) as error:
            fastmagn.load(files["onnx uint8"], device="cuda")
        expected = "device: got 'cuda'; expected cpu or auto, as onnxruntime cannot use CUDA here."
        assert str(error.value) == expected
    assert asked[:2] == [(cuda, {"use_tf32": "0"}), cpu]


def test_a_picture_of_the_models_size_is_enlarged_and_cut_as_test_images_are():
    info = dataclasses.replace(INFO, image_size=(28, 28), resize_px=32)
    picture = Image.fromarray(np.random.default_rng(2).integers(256, size=(28, 28, 3), dtype=np.uint8))
    as_evaluated = CenterCrop(28)(Resize(32, InterpolationMode.BICUBIC)(picture))
    np.testing.assert_array_equal(as_batch([picture], info, True)[0], np.asarray(as_evaluated))
    np.testing.assert_array_equal(as_batch([picture], info, False)[0], np.asarray(picture))


def test_it_shows_what_it_is(files):
    assert repr(fastmagn.load(files["onnx uint8"])) == "Classifier(resnet_small, 10 classes of digits, 32x32 px)"
