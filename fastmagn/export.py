"""python -m fastmagn.export: a trained run as one file, for `fastmagn.load` and for other programs.

python -m fastmagn.export --run RUN --format onnx --out FILE.onnx [--input uint8|float] [--weights last|ema]
python -m fastmagn.export --run RUN --format safetensors --out FILE.safetensors
"""

from argparse import ArgumentError

from jsonargparse import ArgumentParser

from fastmagn.errors import EXIT_CODES, InputError
from fastmagn.exporting.config import ExportConfig
from fastmagn.machine.command import run_command


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
    config = parse_arguments(arguments)
    from fastmagn.exporting.export import export  # here, so that --help does not wait for PyTorch

    export(config)
    return 0


if __name__ == "__main__":
    run_command(main)
