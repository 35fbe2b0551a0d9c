"""Memory that the C library keeps when it is freed, so that the next step need not ask the system for it again."""

import ctypes
import os
from contextlib import suppress

# <malloc.h>. An array of up to 1 GiB comes from the heap and not from a mapping of its own, which is given back when
# the array is freed; a glibc before 2.35 allows 32 MiB at most. The heap's end is never given back: once it exceeds a
# threshold, glibc gives all of it back, and `mallopt` takes no threshold above 2 GiB. So a process keeps what it needed
# at its peak. The heap's growth (M_TOP_PAD) stays small: threads have heaps of their own, which are given back as soon
# as they are empty and hold less than that.
_M_TRIM_THRESHOLD, _NEVER = -1, -1
_M_MMAP_THRESHOLD, _THRESHOLDS = -3, (1 << 30, 1 << 25)


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory in this process, unless the user has chosen how it allocates.

    By itself glibc gives the activations of a training step back to the system, and gets them again as zeroed pages,
    with a page fault each.

    Returns:
        Whether it does so now. It does not with another C library or a preloaded allocator, nor if MALLOC_... or
        glibc.malloc... in GLIBC_TUNABLES is set in the environment.
    """
    if not _has_glibc() or _is_chosen_by_the_user():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return any(mallopt(_M_MMAP_THRESHOLD, size) for size in _THRESHOLDS) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))


def _has_glibc() -> bool:
    with suppress(OSError, ValueError):  # the name is unknown elsewhere
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    return False


def _is_chosen_by_the_user() -> bool:
    has_other_allocator = "malloc" in os.environ.get("LD_PRELOAD", "")  # libjemalloc, libtcmalloc, libmimalloc
    has_tunables = "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    return has_other_allocator or has_tunables or any(name.startswith("MALLOC_") for name in os.environ)
