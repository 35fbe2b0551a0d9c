"""Write a trained model as an ONNX file, checked in onnxruntime, and read it. Only this module needs the extra `onnx`.

Shape letters: B batch, K classes, H W image.
"""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastmagn.errors import InputError, check, one_line, printable, without
from fastmagn.evaluation.trained import Trained
from fastmagn.exporting.info import METADATA_KEY, ModelInfo, info_from_json, model_info
from fastmagn.machine.files import replace_file

OPSET = 20
BATCH_SIZES = (1, 2, 7)
MAX_DIFFERENCE = 1e-4  # of a probability; both sides compute in float32
_CUDA = "CUDAExecutionProvider"
_Provider = str | tuple[str, dict[str, str]]
INPUT, OUTPUTS = "images", ("logits", "probabilities")


class Exported(nn.Module):
    """The function in the file: images -> logits and probabilities, float32 [B, K].

    Args:
        model: Images float [B, 3, H, W] in [0, 1] -> logits [B, K].
        input: uint8 for images uint8 [B, H, W, 3], as cameras and decoders give them; float for float32 [B, 3, H, W]
            in [0, 1].
    """

    def __init__(self, model: nn.Module, input: str) -> None:
        super().__init__()
        self.model = model
        self.input = input

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if self.input == "uint8":
            images = images.permute(0, 3, 1, 2).float() / 255
        logits = self.model(images).float()
        return logits, logits.softmax(dim=1)


def write_onnx(trained: Trained, path: Path, input: str) -> float:
    """Write the model to `path`, unless onnxruntime computes something else than PyTorch.

    Normalisation and test-time ensembles are inside. The batch size is dynamic, the image size is fixed.

    Args:
        trained: The model.
        path: The file.
        input: uint8 or float, see `Exported`.

    Returns:
        The largest difference between a probability of onnxruntime and of PyTorch, both on the CPU in float32, over
        random images in batches of 1, 2 and 7.

    Raises:
        InputError: The extra `onnx` is not installed; the network cannot be exported; the difference is too large.
            No file is written then.
    """
    _require("onnx", "onnxscript", "onnxruntime")
    info = model_info(trained)
    info_from_json(info.to_json(), str(path))
    exported = Exported(trained.measured, input).eval()
    written = _serialised(exported, _random_images(2, input, info), info, path)
    difference = _largest_difference(written, exported, info)
    if not difference <= MAX_DIFFERENCE:  # also true for nan
        raise InputError(
            f"{path}: not written: onnxruntime's probabilities differ from PyTorch's by {difference:.1e}; expected "
            f"{MAX_DIFFERENCE:.0e} at most. Export to safetensors, or try other versions of onnxruntime and torch."
        )
    with replace_file(path) as file:
        file.write(written)
    return difference


def read_onnx(path: Path, device: str) -> tuple[Callable[[np.ndarray], np.ndarray], ModelInfo]:
    """Open a file that `write_onnx` wrote in onnxruntime.

    Args:
        path: The file.
        device: auto, cpu or cuda.

    Returns:
        (uint8 [B, H, W, 3], or float32 [B, 3, H, W] in [0, 1]) -> logits float32 [B, K], and the model's info.
        Images are converted to the input of the file; this rounds floats to 256 levels if it takes uint8.

    Raises:
        InputError: The extra `onnx` is not installed; onnxruntime has no CUDA, or cannot use it, and `device` is cuda;
            the file cannot be used, or names other files.
    """
    _require("onnx", "onnxruntime")
    providers = _providers(device)
    content = _self_contained(path)
    session = _session(content, providers, str(path))
    is_on_cpu = _CUDA not in session.get_providers()  # onnxruntime falls back to the CPU when CUDA does not start
    check(not (device == "cuda" and is_on_cpu), "device", device, "cpu or auto, as onnxruntime cannot use CUDA here")
    info = info_from_json(session.get_modelmeta().custom_metadata_map.get(METADATA_KEY), str(path))
    inputs, outputs = session.get_inputs(), [output.name for output in session.get_outputs()]
    expected = {"tensor(uint8)": [*info.image_size, 3], "tensor(float)": [3, *info.image_size]}
    form = expected.get(inputs[0].type) if len(inputs) == 1 else None
    if form is None or inputs[0].shape[1:] != form or OUTPUTS[0] not in outputs:
        raise InputError(f"{path}: its inputs and outputs are not those of fastmagn.export; export the run again.")
    return _InOnnxruntime(path, providers, session, content), info


class _InOnnxruntime:
    """What `Classifier` calls; a pickle holds the content that was read, whatever has become of the file."""

    def __init__(self, path: Path, providers: Sequence[_Provider], session: Any, content: bytes) -> None:
        self.path, self.providers, self.session, self.content = path, providers, session, content
        (self.input,) = session.get_inputs()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        takes_uint8 = self.input.type == "tensor(uint8)"
        if takes_uint8 and images.dtype != np.uint8:
            images = np.round(images.transpose(0, 2, 3, 1) * 255).astype(np.uint8)
        elif not takes_uint8 and images.dtype == np.uint8:
            images = images.transpose(0, 3, 1, 2).astype(np.float32) / 255
        return self.session.run([OUTPUTS[0]], {self.input.name: np.ascontiguousarray(images)})[0]

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened, (self.path, self.providers, self.content)


def _opened(path: Path, providers: Sequence[_Provider], content: bytes) -> _InOnnxruntime:
    return _InOnnxruntime(path, providers, _session(content, providers, str(path)), content)


def _require(*packages: str) -> None:
    """Raise InputError unless the packages can be imported."""
    for package in packages:
        try:
            __import__(package)
        except ImportError as error:
            raise without(package, error, f"onnx: needs {package}; pip install 'fastmagn[onnx]'.") from error


def _serialised(exported: Exported, images: Tensor, info: ModelInfo, path: Path) -> bytes:
    """The ONNX model of `exported`, with its metadata, traced with the example `images`."""
    batch = {INPUT: {0: torch.export.Dim("batch")}}
    names: dict[str, Any] = {"input_names": [INPUT], "output_names": list(OUTPUTS)}
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # parts of PyTorch warn about other parts
            program: Any = torch.onnx.export(
                exported, (images,), dynamo=True, dynamic_shapes=batch, opset_version=OPSET, verbose=False, **names
            )
        proto = program.model_proto
        _describe(proto, info, exported.input)
        return proto.SerializeToString()
    except Exception as error:  # operations that the exporter cannot translate, models above protobuf's 2 GB
        raise InputError(
            f"{path}: PyTorch cannot export {info.network} to ONNX ({type(error).__name__}: {one_line(error)}). Export "
            "to safetensors instead."
        ) from error
    finally:
        logger.setLevel(level)


def _describe(proto: Any, info: ModelInfo, input: str) -> None:
    """Write the model's info into the ONNX model's own metadata."""
    graph = proto.graph
    # The exporter records the source line of each node, with paths of the machine that it ran on: remove them.
    for part in (*graph.node, *graph.value_info, *graph.initializer, *graph.input, *graph.output, graph, proto):
        del part.metadata_props[:]
    for function in proto.functions:
        for part in (*function.node, *function.value_info, function):
            del part.metadata_props[:]
    proto.producer_name, proto.producer_version = "fastmagn", info.fastmagn
    proto.doc_string = f"{info.network}, trained by {info.method} on {info.data}; {INPUT}: {_form(info, input)}"
    metadata = {METADATA_KEY: info.to_json(), "class_names": json.dumps(info.class_names), "data": info.data}
    metadata |= {"method": info.method, "input": _form(info, input)}
    if info.results is not None:
        metadata |= {"clean_accuracy": str(info.results["clean_accuracy"]), "mca": json.dumps(info.results["mca"])}
    for name, value in metadata.items():
        proto.metadata_props.add(key=name, value=value)


def _form(info: ModelInfo, input: str) -> str:
    height, width = info.image_size
    return f"uint8 [B, {height}, {width}, 3]" if input == "uint8" else f"float32 [B, 3, {height}, {width}] in [0, 1]"


def _largest_difference(written: bytes, exported: Exported, info: ModelInfo) -> float:
    """The largest difference of a probability, over batches of several sizes; nan where either has one."""
    session = _session(written, ["CPUExecutionProvider"])
    differences = []
    for batch in BATCH_SIZES:
        images = _random_images(batch, exported.input, info)
        (probabilities,) = session.run([OUTPUTS[1]], {INPUT: images.numpy()})
        with torch.inference_mode():
            wanted = exported(images)[1].numpy()
        assert probabilities.shape == wanted.shape == (batch, info.num_classes)
        differences.append(np.abs(probabilities.astype(np.float64) - wanted).max())
    return float(np.max(differences))


def _random_images(batch: int, input: str, info: ModelInfo) -> Tensor:
    """Images whose pixels are independent, the same ones each time."""
    generator = torch.Generator(device="cpu").manual_seed(batch)
    shape = (batch, *info.image_size, 3)
    images_u8 = torch.randint(256, shape, dtype=torch.uint8, generator=generator, device="cpu")
    return images_u8 if input == "uint8" else (images_u8.permute(0, 3, 1, 2).float() / 255).contiguous()


def _providers(device: str) -> list[_Provider]:
    """onnxruntime's providers for a device, best first. CUDA's computes in TensorFloat-32 unless it is told not to."""
    import onnxruntime

    has_cuda = _CUDA in onnxruntime.get_available_providers()
    if device == "cuda" and not has_cuda:
        raise InputError(
            "device: got 'cuda'; expected cpu or auto, as this onnxruntime has no CUDA (onnxruntime-gpu has)."
        )
    on_cuda: list[_Provider] = [(_CUDA, {"use_tf32": "0"})]
    return [*(on_cuda if has_cuda and device != "cpu" else []), "CPUExecutionProvider"]


def _self_contained(path: Path) -> bytes:
    """The content of an ONNX file.

    Raises:
        InputError: It cannot be read, or a tensor's values are in another file, which could be any file of the machine.
    """
    import onnx

    try:
        content = path.read_bytes()
        model = onnx.ModelProto.FromString(content)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    except Exception as error:  # protobuf's errors depend on its implementation
        raise InputError(f"{path}: is not an ONNX model ({type(error).__name__}); export the run again.") from error
    for tensor in _tensors(model):
        if tensor.external_data or tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise InputError(
                f"{path}: the values of {printable(tensor.name[:80])!r} are in another file; expected an ONNX file "
                "that holds everything. Save it without external data."
            )
    return content


def _tensors(message: Any) -> Iterator[Any]:
    """Every TensorProto inside a protobuf message: of the graph, of subgraphs and of functions."""
    for field, value in message.ListFields():
        if field.type != field.TYPE_MESSAGE:
            continue
        for inner in [value] if hasattr(value, "ListFields") else value:
            if field.message_type.name == "TensorProto":
                yield inner
            else:
                yield from _tensors(inner)


def _session(model: bytes, providers: Sequence[_Provider], name: str = "the exported model") -> Any:
    """An onnxruntime session that logs only errors."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=providers)
    except Exception as error:  # onnxruntime's errors have no common class
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise InputError(f"{name}: cannot be read by onnxruntime ({reason}).") from error
