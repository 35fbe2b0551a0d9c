"""python -m fastmagn.warm_up: compile all kernels of the CPU now, so that no run waits for them; for an image's build.

Later processes of the same user, Python and kind of CPU load them from the cache on disk.
"""

import time

from jsonargparse import ArgumentParser

from fastmagn.config.called import command
from fastmagn.config.command_line import make_parser, parse
from fastmagn.errors import InputError, counted, some
from fastmagn.machine.command import run_command
from fastmagn.machine.console import console


def command_parser() -> ArgumentParser:
    """The parser of the command's arguments: it has none but --help."""
    return make_parser(
        command("warm_up"),
        "Compile all kernels that training, evaluation and corrupt use on a CPU, in a process per core, and keep them "
        "on disk. The first run then does not wait for them. What is kept already is not compiled again. They fit this "
        "kind of CPU, this Python and this version of numba only. NUMBA_CACHE_DIR names another folder for them.",
    )


def main(arguments: list[str]) -> int:
    """Compile the kernels, and say where they are kept.

    Raises:
        InputError: An argument is unknown; a kernel cannot be compiled or kept.
    """
    parse(command_parser(), arguments)
    from fastmagn.warming.ahead import compile_groups  # here, so that --help does not wait for numba
    from fastmagn.warming.kernels import all_groups
    from fastmagn_kernels.compiling import shared_folder
    from fastmagn_kernels.threads import num_threads

    folder, groups = shared_folder(), all_groups()
    if folder is None:
        raise InputError("kernels: no folder that later runs share can be written; name one by NUMBA_CACHE_DIR.")
    console.print(f"compiling kernels in {counted(num_threads(), 'process')} (about a minute of work)")
    start = time.perf_counter()
    faults = compile_groups(groups)
    if faults:
        raise InputError(f"kernels: {some([f'{name}: {fault}' for name, fault in faults.items()])}.")
    seconds = time.perf_counter() - start
    console.print(f"{len(groups)} groups of kernels are kept in {folder} ({seconds:.1f} s)", soft_wrap=True)
    return 0


if __name__ == "__main__":
    run_command(main)
