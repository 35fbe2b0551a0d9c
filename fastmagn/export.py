"""python -m fastmagn.export: a trained run as one file, for `fastmagn.load` and for other programs.

python -m fastmagn.export --run RUN --format onnx --out FILE.onnx [--input uint8|float] [--weights last|ema]
python -m fastmagn.export --run RUN --format safetensors --out FILE.safetensors
"""

from argparse import ArgumentError
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser

from fastmagn.errors import EXIT_CODES, InputError, check
from fastmagn.evaluation.trained import load_run
from fastmagn.exporting.card import model_card
from fastmagn.exporting.onnx_file import MAX_DIFFERENCE, write_onnx
from fastmagn.exporting.safetensors_file import write_safetensors
from fastmagn.machine.command import run_command
from fastmagn.machine.console import console
from fastmagn.machine.files import write_text


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What to export, and to where.

    Args:
        run: Folder of the run.
        format: onnx (checked in onnxruntime; needs the extra onnx), or safetensors.
        out: The file, whose name ends in .onnx or .safetensors; FILE.md beside it gets the model card. What is there is
            replaced.
        weights: The last step's weights (last), or their moving average (ema); by default what the run's eval.weights
            says.
        input: For onnx: uint8, images [B, H, W, 3] as decoders have them (the default), or float, [B, 3, H, W] in
            [0, 1].
    """

    run: Path
    format: Literal["onnx", "safetensors"]
    out: Path
    weights: Literal["last", "ema"] | None = None
    input: Literal["uint8", "float"] | None = None

    def __post_init__(self) -> None:
        check(self.out.suffix == f".{self.format}", "out", str(self.out), f"a name that ends in .{self.format}")
        check(self.input is None or self.format == "onnx", "input", self.input, "none: it is for --format onnx")


def export(config: ExportConfig) -> None:
    """Write the file and its card.

    The test-time model is exported, the one that results.json measures: rse's ensemble with its noises, which are drawn
    once from the run's seed, and that of an image's mirror image where eval.test_time_flip is on.

    Raises:
        InputError: The run cannot be read, the file not be written, or it is another function than the model.
    """
    trained = load_run(config.run, config.weights)
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
        input = (config.input or "uint8") if config.format == "onnx" else None
        card = config.out.with_name(f"{config.out.name}.md")
        write_text(card, model_card(trained, config.out.name, config.format, input) + "\n")
    except OSError as error:
        raise InputError(f"out: {config.out} cannot be written ({error.strerror or error}).") from error
    size_mb = config.out.stat().st_size / 1e6
    console.print(f"{config.out} ({size_mb:.1f} MB): {checked}; card: {card}", soft_wrap=True, markup=False)


def parse_arguments(arguments: list[str]) -> ExportConfig:
    """The command's arguments.

    Raises:
        InputError: An unknown or missing argument, or a value that is not allowed.
    """
    parser = ArgumentParser(
        prog="python -m fastmagn.export",
        description="A run as one file, ONNX or safetensors, and its model card; fastmagn.load(FILE) reads both.",
        epilog=EXIT_CODES,
        exit_on_error=False,
    )
    parser.add_class_arguments(ExportConfig)
    try:
        values = vars(parser.instantiate(parser.parse_args(arguments)))
    except ArgumentError as error:
        raise InputError(" ".join(str(error).split())) from error
    return ExportConfig(**{name: values[name] for name in ExportConfig.__dataclass_fields__})


def main(arguments: list[str]) -> int:
    export(parse_arguments(arguments))
    return 0


if __name__ == "__main__":
    run_command(main)
