"""What a power cut could take: names and contents that were not flushed when they were relied upon."""

import os
from collections.abc import Iterable

from tests.faults.shim import Call


def unflushed(calls: Iterable[Call]) -> list[str]:
    """Every rename of something that was not flushed before, and every name not flushed at the end, in words.

    A file's content is flushed by fsync of the file, its name by fsync of its folder.
    """
    contents: set[str] = set()  # files written since their last fsync
    names: dict[str, set[str]] = {}  # folder: the names that appeared since its last fsync
    faults = []
    for call in calls:
        folder, name = os.path.split(call.path)
        if call.kind == "write":
            contents.add(call.path)
        elif call.kind == "fsync":
            contents.discard(call.path)
            names.pop(call.path, None)
        elif call.kind == "unlink":
            contents.discard(call.path)
            names.get(folder, set()).discard(name)
            names.pop(call.path, None)
        elif call.kind in ("open", "mkdir", "link"):
            names.setdefault(folder, set()).add(name)
        elif call.kind == "rename":
            below = [path for path in contents if _is_in(path, call.before)]
            below += [path for path, new in names.items() if new and _is_in(path, call.before)]
            faults += [f"{path} was not flushed when {call.path} got its name" for path in below]
            contents = {_renamed(path, call) for path in contents}
            names = {_renamed(path, call): new for path, new in names.items()}
            names.get(os.path.dirname(call.before), set()).discard(os.path.basename(call.before))
            names.setdefault(folder, set()).add(name)
    faults += [f"{path} was not flushed" for path in sorted(contents)]
    faults += [
        f"the name {folder}/{name} was not flushed" for folder in sorted(names) for name in sorted(names[folder])
    ]
    return faults


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def _renamed(path: str, call: Call) -> str:
    return call.path + path[len(call.before) :] if _is_in(path, call.before) else path
