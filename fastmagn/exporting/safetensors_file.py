"""Write a trained model as a safetensors file, and read it: named tensors and a JSON header, no code."""

from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from fastmagn.errors import InputError, one_line
from fastmagn.evaluation.trained import Trained
from fastmagn.exporting.info import METADATA_KEY, ModelInfo, info_from_json, model_info
from fastmagn.machine.files import replace_file
from fastmagn.methods.rse import NoiseEnsemble
from fastmagn.methods.test_time import MirrorEnsemble
from fastmagn.models import build_model
from fastmagn.models.shapes import fits
from fastmagn.models.weight_files import NOISES


def write_safetensors(trained: Trained, path: Path) -> None:
    """Write the model to `path`: float tensors as float32, named as in the network's state_dict.

    `mean` and `std` are the normalisation, `network.NAME` the network's tensors, `noises` those of rse's ensemble. The
    content is read back before it is written, and must give the logits of the model to the bit.
    """
    info = model_info(trained)
    info_from_json(info.to_json(), str(path))
    noises = [module.noises for module in trained.measured.modules() if isinstance(module, NoiseEnsemble)]
    tensors = {**trained.network.state_dict(), **({NOISES: noises[0]} if noises else {})}
    plain = {
        name: (tensor.float() if tensor.is_floating_point() else tensor).contiguous().clone()
        for name, tensor in tensors.items()
    }
    written = safetensors.torch.save(plain, metadata={METADATA_KEY: info.to_json()})
    model = _model(safetensors.torch.load(written), info, path.name)
    generator = torch.Generator(device="cpu").manual_seed(0)
    images = torch.rand(2, 3, *info.image_size, generator=generator, device="cpu")
    with torch.inference_mode():
        assert torch.equal(model(images), trained.measured(images)), "the file computes something else than the model"
    with replace_file(path) as file:
        file.write(written)


def read_safetensors(path: Path) -> tuple[nn.Module, ModelInfo]:
    """Read the model of a file, which may come from anyone: no code in it is run.

    Returns:
        The model on the CPU in evaluation mode, images float [B, 3, H, W] in [0, 1] -> logits [B, K], and its info.

    Raises:
        InputError: The file cannot be read, was not written by `write_safetensors`, or does not fit its network.
    """
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            info = info_from_json((file.metadata() or {}).get(METADATA_KEY), str(path))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except InputError:
        raise
    except Exception as error:  # a damaged file can make the reader fail in any way
        raise InputError(f"{path}: cannot be read as safetensors ({one_line(error, 100)}).") from error
    return _model(tensors, info, str(path)), info


def read_info(path: Path) -> ModelInfo | None:
    """What a file of `write_safetensors` says about its model; None if it is another file, or cannot be read.

    Raises:
        InputError: What it says is damaged, or of a newer version.
    """
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
    except Exception:  # a damaged file can make the reader fail in any way
        return None
    return None if text is None else info_from_json(text, str(path))


def _model(tensors: dict[str, Tensor], info: ModelInfo, file: str) -> nn.Module:
    noises = tensors.pop(NOISES, None)
    options = {"num_classes": info.num_classes, "image_size": info.image_size, "weight_names": tensors.keys()}
    unfit = f"{file}: its weights do not fit its network, {info.network}; export the run again."
    if not fits(tensors, info.network, **options):
        raise InputError(unfit)
    model = build_model(info.network, mean=info.mean, std=info.std, **options)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(unfit) from error
    if (info.noise_draws, *info.image_size) != ((0, *info.image_size) if noises is None else _form(noises)):
        raise InputError(f"{file}: its noises are not the {info.noise_draws} that its metadata name; export it again.")
    ensemble = model if noises is None else NoiseEnsemble(model, noises)
    return (MirrorEnsemble(ensemble) if info.test_time_flip else ensemble).eval()


def _form(noises: Tensor) -> tuple[int, ...]:
    return (*noises.shape[:1], *noises.shape[2:])
