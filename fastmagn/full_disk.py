"""What a full or failing disk means: a run does not end for it."""

import errno
import shutil
from pathlib import Path

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ESTALE}


def check_room(folder: Path, num_bytes: int) -> None:
    """Raise OSError (ENOSPC) unless the disk of an existing folder has room; a quota shows when writing only."""
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise OSError(errno.ENOSPC, f"it needs {_mb(num_bytes)}, and the disk has {_mb(free)}", str(folder))


def underlying(error: BaseException) -> BaseException:
    """The OSError or interruption that PyTorch has put a RuntimeError above; else the error itself."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError | KeyboardInterrupt):
        cause = cause.__cause__ or cause.__context__
    return error if cause is None else cause


def _mb(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.1f} MB"
