"""fastmagn VERB, or python -m fastmagn VERB: every command under one name. `fastmagn VERB --help` explains one."""

import argparse
import sys

from fastmagn import __version__
from fastmagn.config.called import called_as
from fastmagn.errors import EXIT_INPUT_ERROR, InputError, nearest, printable
from fastmagn.machine.command import exit_printed, run_command
from fastmagn.machine.streams import use_unfailing_streams
from fastmagn.registry import resolve

VERBS = {
    "train": "train a classifier, then measure its robustness",
    "evaluate": "measure a trained run again, or on other images",
    "corrupt": "make a -C set of any test images",
    "report": "a page, tables and figures of finished runs",
    "sweep": "many runs, on Ray",
    "export": "a trained run as an ONNX or safetensors file",
    "theory": "the geometry of the loss near test images, of trained runs",
    "warm_up": "compile all kernels ahead of the first run",
}
# Where a verb's `main` is. Modules that run as `python -m fastmagn.VERB` and are packages, or hide a function of their
# name, keep it elsewhere: nothing is then imported first and run as __main__ later.
_MODULES = {verb: f"fastmagn.{verb}" for verb in VERBS} | {
    "corrupt": "fastmagn.evaluation.corrupt_command",
    "theory": "fastmagn.theory.command",
}
_MAINS = {verb: f"{module}:main" for verb, module in _MODULES.items()}
_PARSERS = {verb: f"{module}:command_parser" for verb, module in _MODULES.items()} | {
    "sweep": "fastmagn.sweeping.arguments:command_parser"
}
_TAKE_FIELDS = ("evaluate", "sweep")  # options of their own, and every field of the configuration


def main(program: str = "fastmagn") -> None:
    """Run the command that the first argument names, with the arguments after it.

    Args:
        program: How it was called: `fastmagn` or `python -m fastmagn`.
    """
    use_unfailing_streams()
    option, *arguments = sys.argv[1:] or ["--help"]
    if (verb := option.replace("-", "_")) in VERBS:  # warm-up is warm_up
        del sys.argv[1]
        with called_as(program):
            run_command(resolve(_MAINS, verb, "VERB"))
    try:
        print(_answer(program, option, arguments))
    except InputError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        raise SystemExit(EXIT_INPUT_ERROR) from None
    exit_printed()


def _answer(program: str, option: str, arguments: list[str]) -> str:
    """What an option in place of a verb prints.

    Raises:
        InputError: The option or verb is unknown.
    """
    if option in ("-h", "--help"):
        return _help(program)
    if option == "--version":
        return f"fastmagn {__version__}"
    if option.partition("=")[0] == "--print_completion":
        given = [*option.split("=", 1)[1:], *arguments]
        return _completion(program, given[0] if given else "")
    raise InputError(f"VERB: got {option!r}; expected one of {', '.join(VERBS)}.{nearest(option, VERBS)}")


def _help(program: str) -> str:
    verbs = "".join(f"  {verb:9} {what}\n" for verb, what in VERBS.items())
    return (
        f"usage: {program} VERB [arguments]\n\n"
        f"Train corruption-robust image classifiers, and measure them.\n\n{verbs}\n"
        f"{program} VERB --help explains a verb. In place of a verb:\n\n"
        "  --version                 the version\n"
        "  --print_completion SHELL  a script for Tab completion in bash, zsh or tcsh\n\n"
        "train needs no argument, no GPU and no data: it trains on digits."
    )


def _completion(program: str, shell: str) -> str:
    from fastmagn.config.command_line import config_parser
    from fastmagn.config.completion import completion_script
    from fastmagn.methods.table import METHODS
    from fastmagn.models import MODELS

    def parsers(verb: str) -> list[argparse.ArgumentParser]:
        own = resolve(_PARSERS, verb, "VERB")()
        return [own, config_parser(program, "")] if verb in _TAKE_FIELDS else [own]

    names = {"method": METHODS, "model.name": MODELS}
    return completion_script("fastmagn", {verb: (what, parsers(verb)) for verb, what in VERBS.items()}, names, shell)


if __name__ == "__main__":
    main("python -m fastmagn")
