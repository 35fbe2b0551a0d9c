"""Write a run's model as one file, with its model card."""

from pathlib import Path

from fastmagn.errors import InputError
from fastmagn.evaluation.trained import load_run
from fastmagn.exporting.card import model_card
from fastmagn.exporting.config import ExportConfig
from fastmagn.exporting.hub import check_hub, push_to_hub
from fastmagn.exporting.onnx_file import MAX_DIFFERENCE, write_onnx
from fastmagn.exporting.safetensors_file import write_safetensors
from fastmagn.machine.console import console, warn
from fastmagn.machine.files import check_writable, write_text
from fastmagn.models.published import published_file


def export(config: ExportConfig) -> None:
    """Write the file and its card, and print what was checked.

    The exported model is the one that results.json measures: with rse's ensemble, whose noises are drawn once from the
    run's seed, and with the mean over an image and its mirror image if eval.test_time_flip is on.

    Raises:
        InputError: The run cannot be read, the file cannot be written, or it computes something else than the model; or
            it cannot be pushed.
    """
    if config.push is not None:
        check_hub()
    check_writable(config.out, config.out.parent)
    trained = load_run(config.run, weights=config.weights)
    input = (config.input or "uint8") if config.format == "onnx" else None
    card = config.out.with_name(f"{config.out.name}.md")
    checked = "read back equal to the model"
    try:
        if config.format == "onnx":
            difference = write_onnx(trained, config.out, config.input or "uint8")
            checked = (
                f"onnxruntime's probabilities differ from PyTorch's by {difference:.1e} at most (bound "
                f"{MAX_DIFFERENCE:.0e}), in batches of 1, 2 and 7 images"
            )
        else:
            write_safetensors(trained, config.out)
        write_text(card, model_card(trained, _name(config.out), config, input) + "\n")
    except OSError as error:
        raise InputError(f"out: {config.out} cannot be written ({error.strerror or error}).") from error
    size_mb = config.out.stat().st_size / 1e6
    console.print(f"{config.out} ({size_mb:.1f} MB): {checked}; card: {card}", soft_wrap=True)
    if trained.results is None:
        warn(f"{config.run} has no results.json of these weights, so the card has no numbers.")
    if config.push is not None:
        console.print(f"pushed: {push_to_hub(config.out, config.push)}", soft_wrap=True)


def _name(file: Path) -> str:
    """What `fastmagn.load` takes: the name of the file, or of the published model that it is."""
    published = published_file(file.stem)
    return file.stem if published is not None and published.samefile(file) else file.name
