"""The CPU's time for a call of the CUDA engine, with a CUDA driver that does nothing.

`python -m benchmarks.stubbed_driver SIZE BATCH` is a process of its own, because the driver is loaded once: it prints
microseconds of calls, as JSON. All above the driver is real: the engine, numba-cuda, cuda.core and cuda.bindings. Of
PyTorch, what needs a device is replaced: tensors stay in the CPU's memory, and nothing is copied or waited for.
"""

import ctypes
import json
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, nullcontext
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

_ROUNDS, _CALLS = 7, 100


def host_us_of_calls(size: int, batch: int) -> list[float]:
    """Return the microseconds of the thread's time for a call on a batch of square images, a mean for each round."""
    command = [sys.executable, "-m", "benchmarks.stubbed_driver", str(size), str(batch)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:])} failed: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout)


def load_driver() -> None:
    """Load the driver that does nothing as libcuda.so.1, before anyone else looks for one."""
    folder = tempfile.mkdtemp()
    library = Path(folder) / "libcuda.so.1"
    source = Path(__file__).with_suffix(".c")
    compiler = shutil.which("gcc") or "gcc"
    flags = ["-O1", "-w", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1"]
    subprocess.run([compiler, *flags, source, "-o", library], check=True)
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    shutil.rmtree(folder)


def _without_a_device(stack: ExitStack) -> None:
    """Replace what of PyTorch needs a device."""
    import torch

    to = torch.Tensor.to
    for name, value in (
        ("torch.cuda.device", lambda device: nullcontext()),
        ("torch.cuda.get_device_properties", lambda device: SimpleNamespace(multi_processor_count=132)),
        ("torch.cuda.get_device_capability", lambda device=None: (9, 0)),
        ("torch.cuda.current_stream", lambda device=None: SimpleNamespace(cuda_stream=1)),
        ("torch.Tensor.pin_memory", lambda tensor: tensor),
        ("torch.Tensor.to", lambda tensor, target, **options: to(tensor, "cpu" if "cuda" in str(target) else target)),
    ):
        stack.enter_context(patch(name, value))


def main(size: int, batch: int) -> None:
    """Time calls with the training step's views and print them."""
    load_driver()
    import numpy as np
    import torch

    from fastmagn.augment.engines.numba_cuda import fill_views
    from fastmagn.augment.params import ViewSpec, sample_view_params
    from fastmagn.config.schema import AugmentConfig

    augment = AugmentConfig(aug_severity=10, random_aug_severity=True, horizontal_flip=True, color_jitter=0.25)
    spec = ViewSpec(num_augmix_views=2, num_noise_views=1)
    images = torch.zeros((batch, size, size, 3), dtype=torch.uint8)
    out = torch.empty((spec.num_views * batch, size, size, 3))
    times = []
    with ExitStack() as stack:
        _without_a_device(stack)
        for _ in range(_ROUNDS + 1):
            first = np.arange(_CALLS) * batch  # every batch has images of its own
            params = [sample_view_params(0, 0, i + np.arange(batch), spec, augment, (size, size)) for i in first]
            begin = time.thread_time()
            for drawn in params:
                fill_views(images, drawn, out)
            times.append((time.thread_time() - begin) / _CALLS * 1e6)
    print(json.dumps(times[1:]))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
