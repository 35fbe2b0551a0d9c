"""fastmagn VERB, or python -m fastmagn VERB: every command under one name. `fastmagn VERB --help` explains one."""

import runpy
import sys

from fastmagn import __version__
from fastmagn.errors import EXIT_INPUT_ERROR, nearest
from fastmagn.machine.command import exit_printed
from fastmagn.machine.streams import use_unfailing_streams

VERBS = {
    "train": "train a classifier, then measure its robustness",
    "evaluate": "measure a trained run again, or on other images",
    "corrupt": "make a -C set of any test images",
    "report": "a page, tables and figures of finished runs",
    "sweep": "many runs, on Ray",
    "export": "a trained run as an ONNX or safetensors file",
    "theory": "the geometry of the loss near test images, of trained runs",
}
HELP = "usage: fastmagn VERB [--help] [arguments]\n\n" + "".join(f"  {verb:9} {what}\n" for verb, what in VERBS.items())


def main() -> None:
    """Run the command that the first argument names, with the arguments after it."""
    use_unfailing_streams()
    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if verb in ("-h", "--help"):
        print(HELP, end="")
        exit_printed()
    elif verb == "--version":
        print(f"fastmagn {__version__}")
        exit_printed()
    elif verb in VERBS:
        del sys.argv[1]
        runpy.run_module(f"fastmagn.{verb}", run_name="__main__", alter_sys=True)
    else:
        print(f"error: VERB: got {verb!r}; expected one of {', '.join(VERBS)}.{nearest(verb, VERBS)}", file=sys.stderr)
        raise SystemExit(EXIT_INPUT_ERROR)


if __name__ == "__main__":
    main()
