"""The model card beside an exported file, in Markdown: what the model is, how it was made and measured, its use."""

import re
from typing import Any

from fastmagn.config.schema import Config
from fastmagn.config.text import escape_markdown, plain, yaml_text
from fastmagn.corruptions.sets import AT
from fastmagn.data.subset import BY_CLASS
from fastmagn.errors import counted
from fastmagn.evaluation.shown import mca_title, percent
from fastmagn.evaluation.trained import Trained
from fastmagn.exporting.config import ExportConfig
from fastmagn.exporting.info import model_info

_CIFAR_LICENCE = (
    "It was published without an explicit licence; its authors ask to cite A. Krizhevsky, *Learning multiple layers of "
    "features from tiny images*, 2009."
)
ABOUT_DATA = {
    "cifar10": ("CIFAR-10: 50,000 training and 10,000 test images of 32x32 px in 10 classes. " + _CIFAR_LICENCE),
    "cifar100": ("CIFAR-100: 50,000 training and 10,000 test images of 32x32 px in 100 classes. " + _CIFAR_LICENCE),
    "digits": (
        "scikit-learn's digits, enlarged to 32x32 px: 1,198 training and 599 test images, the test part of *Optical "
        "Recognition of Handwritten Digits* (E. Alpaydin and C. Kaynak, UCI, 1998). Licence: CC BY 4.0."
    ),
}
_OWN_DATA = "Images of your own. **Fill in**: where they are from, who is in them, and their licence."
_OWN_LICENCE = "Yours to choose, within what the licence of the data allows. **Fill in.**"
_PUBLISHED_DATA = "torchvision's {}, as it was published. **Fill in**: its licence and whom to cite."
# The sections that decide the weights. Paths are left out: they describe the machine, not the weights.
_OF_METHODS = ("mixing", "prime", "spectra", "afa", "noisymix", "attack")
_SECTIONS = ("method", "data", "model", "train", "optim", "augment", *_OF_METHODS, "loss")
_PATHS = ("dir", "download")


def model_card(trained: Trained, name: str, config: ExportConfig, input: str | None) -> str:
    """The text of the card.

    Args:
        trained: The model.
        name: What `fastmagn.load` takes: the exported file, or the name of a published model.
        config: Its format, licence and record are used.
        input: uint8 or float for ONNX, else None.
    """
    info = model_info(trained)
    height, width = info.image_size
    weights = _which_weights(trained.config)
    ensemble = f" Probabilities are averaged over {info.noise_draws} fixed noises." * bool(info.noise_draws)
    padded = ""
    if info.padded_from is not None:
        rows, columns = info.padded_from
        padded = f" ({rows}x{columns} px, padded by repeating the pixels of their edges)"
    steps = counted(trained.steps, "step")
    unfinished = "" if trained.has_ended else f" **Training had not ended: these are the weights after {steps}.**"
    flip = " Logits are averaged over the image and its mirror image." * info.test_time_flip
    return "\n\n".join(
        [
            f"# {escape_markdown(name)}",
            f"`{info.network}` for {height}x{width} px images{padded} of {counted(info.num_classes, 'class')}, trained "
            f"by `{info.method}` on `{info.data}` {_version(trained.results, info.fastmagn)}; weights: "
            f"{weights}.{unfinished}{flip}{ensemble}",
            "## Use",
            _usage(name, config.format, input, height, width),
            "Classes, in order: " + ", ".join(map(_code, info.class_names)) + ".",
            "## Data",
            _about_data(info.data),
            "## Numbers",
            _numbers(trained.results),
            "## How it was trained",
            _training(trained),
            *([f"The run's configuration, results and metrics: `{config.record}`."] if config.record else []),
            "## Intended use and limits",
            f"For {height}x{width} px images like those it was trained on, clean or corrupted like the measured ones. "
            "Every image gets one of the classes above, whatever it shows. Robustness was measured on synthetic "
            "corruptions. That says little about other changes: another camera, other class frequencies, adversarial "
            "images. The calibration errors above hold for images like the measured ones. If decisions affect people, "
            "first measure the model on images from where it will be used.",
            "## Licence of the weights",
            f"{config.licence}." if config.licence else _OWN_LICENCE,
        ]
    )


def _version(results: dict[str, Any] | None, exporting: str) -> str:
    """The version of fastmagn that measured the model, where its results say it."""
    measuring = (results or {}).get("environment", {}).get("fastmagn")
    is_known = isinstance(measuring, str) and re.fullmatch(r"[\w.+-]{1,40}", measuring, re.ASCII)
    return f"and measured with fastmagn {measuring}" if is_known else f"and exported with fastmagn {exporting}"


def _which_weights(config: Config) -> str:
    if config.eval.weights == "last":
        return "the last step's"
    if config.train.swa_fraction == 0:
        return "a moving average over the steps"
    average = (
        f"an equal average of those after each of the last epochs (train.swa_fraction {config.train.swa_fraction:g})"
    )
    is_cut = config.train.max_steps > 0
    return average + ", or the last step's if train.max_steps ended the run before these epochs" * is_cut


def _code(text: str) -> str:
    """The text as code, which Markdown shows as it stands."""
    longest = max((len(ticks) for ticks in re.findall("`+", text)), default=0)
    fence, space = "`" * (longest + 1), " " * (longest > 0)
    return f"{fence}{space}{' '.join(text.split())}{space}{fence}"


def _about_data(name: str) -> str:
    _, _, title = name.partition(":")
    return ABOUT_DATA.get(name, _PUBLISHED_DATA.format(title) if title else _OWN_DATA)


def _usage(name: str, format: str, input: str | None, height: int, width: int) -> str:
    lines = f'```python\nimport fastmagn\n\nlabels, probabilities = fastmagn.load("{name}").predict(images)\n```'
    images = f"`images`: uint8 [B, {height}, {width}, 3], RGB, or float [B, 3, {height}, {width}] in [0, 1]"
    if format == "safetensors":
        return f"{lines}\n\n{images}. The header's `fastmagn` entry is this card's data as JSON."
    form = (
        f"uint8 [B, {height}, {width}, 3], RGB" if input == "uint8" else f"float32 [B, 3, {height}, {width}] in [0, 1]"
    )
    return (
        f"{lines}\n\n{images}. In any ONNX runtime: input `images`, {form}; outputs `logits` and `probabilities`. "
        "Normalisation is inside; the batch is dynamic."
    )


def _numbers(results: dict[str, Any] | None) -> str:
    if results is None:
        return "None: the run has no `results.json`, or it measures other weights."
    rms, calibration = results["rms_calibration_error"], results.get("calibration", {})
    title, *severities = rms["corruption_set"].split(AT)
    measured = AT.join(["all that were measured" if "+" in title else title, *severities])
    rows = [("clean accuracy", results["clean_accuracy"])]
    rows += [(f"mCA {mca_title(name, results)}", value) for name, value in results["mca"].items() if value is not None]
    rows += [("RMS calibration error, clean", rms["clean"])]
    rows += [(f"RMS calibration error, corrupt ({measured})", rms["corrupt"])]
    rows += [(f"ECE, {name}", calibration[name].get("ece")) for name in ("clean", "corrupt") if name in calibration]
    binning, pooling = (escape_markdown(rms[name]) for name in ("binning", "pooling"))
    table = "\n".join(f"| {escape_markdown(name)} | {percent(value)} % |" for name, value in rows if value is not None)
    return (
        f"On {_test_images(results)}, with corruptions {_corruptions(results)}; mCA is the mean accuracy"
        f" over a set's corruptions and severities; calibration with"
        f" {counted(rms['num_bins'], 'bin')} ({binning}, {pooling}).\n\n"
        f"| measure | value |\n| --- | --- |\n{table}"
    )


def _test_images(results: dict[str, Any]) -> str:
    """How many, and how they were chosen; results of earlier versions do not say it."""
    number, subset = counted(results["num_images"], "test image", ","), results.get("subset", {})
    if subset.get("chosen", "all") == "all" or "of" not in subset:
        return number
    seed = f" by seed {subset['seed']}" if "seed" in subset else ""
    how = f"drawn evenly over the classes{seed}" if subset["chosen"] == BY_CLASS else "the first"
    return f"{number} of {subset['of']:,} ({how})"


def _corruptions(results: dict[str, Any]) -> str:
    """Who made the corrupted images; results of version 1 do not say it, and have a folder for those of others."""
    made_as = results.get("corrupted_as")
    if made_as is None and results["config"]["eval"].get("corrupted_dir") is not None:
        return "from the files of a -C set that fastmagn has not made"
    if made_as is None:
        return "made by fastmagn"
    quality = made_as.get("jpeg_quality")
    jpeg = f"JPEG {escape_markdown(str(quality))}" if quality else "no JPEG"
    return f"made by fastmagn (version {made_as.get('version')}, {jpeg})"


def _training(trained: Trained) -> str:
    """The settings that decide the weights, as a configuration file that trains the same model."""
    config = plain(trained.config)
    settings = {name: config[name] for name in _SECTIONS}
    settings["data"] = {name: value for name, value in config["data"].items() if name not in _PATHS}
    results = trained.results or {}
    duration = ""
    if "train_s" in results and "steps" in results:
        described = results.get("environment", {})
        parts = ("device", "cpu", "torch")
        machine = {name: escape_markdown(str(described.get(name) or "unknown")) for name in parts}
        duration = (
            f"\n\n{counted(results['steps'], 'step', ',')} in {results['train_s']:,.0f} s on {machine['device']}"
            f" ({machine['cpu']}), "
            f"torch {machine['torch']}."
        )
    text = yaml_text(settings)
    return f"`python -m fastmagn.train --config FILE`, with this FILE:\n\n```yaml\n{text}```{duration}"
