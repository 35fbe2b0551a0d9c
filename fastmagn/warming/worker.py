"""A process that compiles groups of kernels: a name on each line of its input, an answer for each in a pipe.

An empty answer means that the group is in the cache; else it says in one line what went wrong. The process ends with
the one that started it, however that ends, because its input then ends.
"""

import os
import queue
import sys
import threading

from fastmagn.errors import one_line
from fastmagn.warming.kernels import compile_group
from fastmagn_kernels.compiling import mark_kept


def main(answers_fd: int) -> None:
    answers = os.fdopen(answers_fd, "w")
    names: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(names,), daemon=True).start()
    while True:
        name, fault = names.get(), ""
        try:
            compile_group(name)
            mark_kept(name)
        except Exception as error:
            fault = f"{type(error).__name__}: {one_line(error)}"
        print(fault, file=answers, flush=True)


def _read(names: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        names.put(line.strip())
    os._exit(0)  # beside a kernel that is being compiled: numba renames whole files into its cache
