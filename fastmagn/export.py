"""python -m fastmagn.export: a trained run as one file, for `fastmagn.load` and for other programs.

python -m fastmagn.export --run RUN --format onnx --out FILE.onnx [--input uint8|float] [--weights last|ema]
python -m fastmagn.export --run RUN --format safetensors --out FILE.safetensors
"""

from jsonargparse import ArgumentParser

from fastmagn.config.called import command
from fastmagn.config.command_line import add_import_option, make_parser, of_kind, parse
from fastmagn.exporting.config import ExportConfig
from fastmagn.machine.command import run_command


def parse_arguments(arguments: list[str]) -> ExportConfig:
    """The command's arguments.

    Raises:
        InputError: An unknown or missing argument, or a value that is not allowed.
    """
    return of_kind(ExportConfig, parse(command_parser(), arguments))


def command_parser() -> ArgumentParser:
    """The parser of the command's arguments."""
    description = "Export a run as one file, ONNX or safetensors, with its model card. fastmagn.load(FILE) reads both."
    parser = make_parser(command("export"), description, ExportConfig)
    add_import_option(parser)
    return parser


def main(arguments: list[str]) -> int:
    config = parse_arguments(arguments)
    from fastmagn.exporting.export import export  # here, so that --help does not wait for PyTorch

    export(config)
    return 0


if __name__ == "__main__":
    run_command(main)
