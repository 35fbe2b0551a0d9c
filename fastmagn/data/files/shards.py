"""Which files hold a split of a sharded set: named by a pattern, or found by the names that the field gives them."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fastmagn.errors import InputError, MissingSplit, check, counted, one_line, printable, some, warn_caller
from fastmagn.machine.console import console
from fastmagn.machine.torchrun import rank

TRAIN = ("train",)
TEST = ("val", "validation", "valid", "test")
_BRACES = re.compile(r"\{([^{}]*)\}")
_NUMBERS = re.compile(r"(\d{1,18})\.\.(\d{1,18})")
_MAX_SHARDS = 1_000_000
_MAX_STATE_BYTES = 1 << 26
_LAST_NUMBER = re.compile(r"(\d+)\.[a-z]+$")
_OF = re.compile(r"-(\d{5})-of-(\d{5})(?:-[0-9a-f]{6,64})?\.[a-z]+$")  # older files of the hub have a hash
_UNCOUNTED = re.compile(r"(-?\d+)?\.[a-z]+$")
_SAVED = "state.json"  # in which save_to_disk names the files that it wrote


def find_shards(
    root: Path, splits: Sequence[str], suffixes: Sequence[str], pattern: str | None, field: str
) -> list[str]:
    """The paths of a split's files relative to `root`, in the order of their names.

    Without a pattern they are SPLIT-*.SUFFIX or SPLIT.SUFFIX in `root` or in its folder data, or all in its folder
    SPLIT; the first of `splits` that has any counts, and it is in one of these places only.

    Args:
        root: The folder of the set.
        splits: The names of the split.
        suffixes: The files' suffixes, with a dot.
        pattern: What the user gave: `{000..146}` and `{a,b}` stand for several names, `*` and `?` for those there are.
        field: Where it was given.

    Raises:
        InputError: There are none (MissingSplit), or some of them are missing.
    """
    if not root.is_dir():
        raise InputError(f"data.dir: {root}: no such folder; expected one with {_layout(splits, suffixes)}.")
    if pattern is not None:
        return _named(root, pattern, field)
    for number, split in enumerate(splits):
        groups = [names for suffix in suffixes for names in _of_split(root, split, suffix) if names]
        if len(groups) > 1:  # which would hold the same images twice
            raise InputError(
                f"data.dir: {root}: this split is in {len(groups)} places, {some(names[0] for names in groups)};"
                f" expected one. Name its files: {field}."
            )
        if groups:
            _check_whole(root, groups[0], field)
            others = [other for other in splits[number + 1 :] if _has(root, other, suffixes)]
            tell_of_others(root, split, others, field)
            return groups[0]
    looked = ", ".join(f"{split}-*{suffixes[0]}" for split in splits)
    raise MissingSplit(
        f"data.dir: {root}: no files of this split ({looked}, also below data, or in a folder {splits[0]}); expected"
        f" {_layout(splits, suffixes)}, or {field} to name them."
    )


def tell_of_others(root: Path | str, split: str, others: Sequence[str], field: str) -> None:
    """Print which split is tested on, if others could have been: test beside validation, say."""
    if others and rank() == 0:
        unused = f"{', '.join(others)} {'is' if len(others) == 1 else 'are'} not used"
        console.print(f"{root}: tested on {split}; {unused} (--{field} chooses others)", soft_wrap=True)


def expand(pattern: str) -> list[str]:
    """The names that braces stand for: `a-{00..02}.tar` gives a-00.tar, a-01.tar, a-02.tar.

    Raises:
        InputError: They stand for more than a million names.
    """
    names = [pattern]
    while (match := _BRACES.search(names[0])) is not None:
        numbers = _NUMBERS.fullmatch(match[1])
        words = match[1].split(",")
        first, last = (int(numbers[1]), int(numbers[2])) if numbers else (0, len(words) - 1)
        is_some = 0 < (last - first + 1) * len(names) <= _MAX_SHARDS
        check(is_some, "pattern", pattern, f"1..{_MAX_SHARDS:,} names in rising order")
        inner = [f"{number:0{len(numbers[1])}}" for number in range(first, last + 1)] if numbers else words
        names = [
            name[: at.start()] + part + name[at.end() :]
            for name in names
            if (at := _BRACES.search(name))
            for part in inner
        ]
    return names


def _named(root: Path, pattern: str, field: str) -> list[str]:
    check(not Path(pattern).is_absolute() and ".." not in Path(pattern).parts, field, pattern, "files below data.dir")
    names: list[str] = []
    missing = []
    for name in expand(pattern):
        try:
            found = _files(root, root.glob(name)) if name else []
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"{field}: got {pattern!r} ({one_line(error)}); expected names, * and ?.") from None
        names += found
        missing += [] if found else [name]
    if missing:
        kind = InputError if names else MissingSplit
        raise kind(
            f"{field}: {root}: {counted(len(missing), 'file')} {'is' if len(missing) == 1 else 'are'} missing:"
            f" {some(missing)}; got {pattern!r}."
        )
    return list(dict.fromkeys(names))


def _of_split(root: Path, split: str, suffix: str) -> list[list[str]]:
    """The files of a split in each place where they may be, sorted."""
    return [_files(root, place) for place in _places(root, split, suffix)]


def _has(root: Path, split: str, suffixes: Sequence[str]) -> bool:
    return any(path.is_file() for suffix in suffixes for place in _places(root, split, suffix) for path in place)


def _places(root: Path, split: str, suffix: str) -> list[list[Path]]:
    """The paths that a split's files may have, in each place. `datasets` keeps caches beside what it saved."""
    named = ([*inner.glob(f"{split}-*{suffix}"), inner / f"{split}{suffix}"] for inner in (root, root / "data"))
    own = [path for path in (root / split).glob(f"*{suffix}") if not path.name.startswith(("cache-", "tmp", "."))]
    saved = _saved(root / split / _SAVED) if suffix == ".arrow" else None
    return [*named, own if saved is None else [path for path in saved if path.suffix == suffix]]


def _saved(state: Path) -> list[Path] | None:
    """The files that the last `save_to_disk` wrote into a folder, which may hold older ones; None if it wrote none.

    Raises:
        InputError: One is missing, or the file cannot be read or names something else than files beside it.
    """
    if not state.is_file():
        return None
    try:
        with state.open("rb") as file:
            listed = json.loads(file.read(_MAX_STATE_BYTES))["_data_files"]
        paths = [state.parent / file["filename"] for file in listed]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise InputError(
            f"{state}: cannot be read ({one_line(error)}); expected what save_to_disk writes. Save the set again."
        ) from error
    wrong = [printable(str(path)) for path in paths if path.parent != state.parent or not path.is_file()]
    if wrong:
        raise InputError(
            f"{state}: names {counted(len(wrong), 'file')} that {'is' if len(wrong) == 1 else 'are'} not beside it:"
            f" {some(wrong)}; expected what save_to_disk writes. Fetch what is missing, or save the set again."
        )
    return paths


def _files(root: Path, paths: Iterable[Path]) -> list[str]:
    """Those that are files, relative to `root`, sorted; images behind a link that leads nowhere would be missed."""
    paths = sorted(paths)
    dangling = [str(path) for path in paths if path.is_symlink() and not path.exists()]
    if dangling:
        raise InputError(
            f"data.dir: {root}: {counted(len(dangling), 'dangling link')}: {some(dangling)}; expected files. Fetch what"
            " is missing, or remove the links."
        )
    return [str(path.relative_to(root)) for path in paths if path.is_file()]


def _check_whole(root: Path, names: list[str], field: str) -> None:
    """Shards that say of how many they are must be of one set and all there; a gap in other numbers is a warning."""
    of = {name: _OF.search(name) for name in names}
    if any(of.values()):
        _check_counted(root, of, field)
        return
    numbers = [int(match[1]) for name in names if (match := _LAST_NUMBER.search(name))]
    if (
        numbers
        and len(numbers) == len(names)
        and max(numbers) - min(numbers) >= len(numbers)
        and max(numbers) < _MAX_SHARDS
    ):
        absent = sorted(set(range(min(numbers), max(numbers))) - set(numbers))
        warn_caller(f"{root}: {len(absent)} numbers are missing beside {names[0]}: {some(map(str, absent))}.")


def _check_counted(root: Path, of: Mapping[str, re.Match[str] | None], field: str) -> None:
    """Check shards of which some say their number and of how many they are; those of one set have one name before it.

    Args:
        root: The folder of the set.
        of: Each file's match of _OF.
        field: Where the files could be named.

    Raises:
        InputError: Files of two sets are mixed, so that images would be used twice; or some are missing.
    """
    sets: dict[str, dict[tuple[str, str], str]] = {}
    for name, match in of.items():
        known = sets.setdefault(name[: match.start()] if match else _UNCOUNTED.sub("", name), {})
        number = (match[1], match[2]) if match else (name, "")
        other = next((file for (_, count), file in known.items() if count != number[1]), known.get(number))
        if other is not None:
            raise InputError(
                f"data.dir: {root}: {other} and {name} are not of one set of files; expected one set, in which each"
                f" image is once. Remove what is left of another one, or name the files: {field}."
            )
        known[number] = name
    for known in sets.values():
        count = int(next(iter(known))[1] or 0)
        missing = sorted(set(range(count)) - {int(number) for number, _ in known}) if count else []
        if missing:
            raise InputError(
                f"data.dir: {root}: {len(missing)} of {counted(count, 'file')} missing: number"
                f" {some(map(str, missing))} beside {next(iter(known.values()))}. Fetch them."
            )


def _layout(splits: Sequence[str], suffixes: Sequence[str]) -> str:
    return f"{splits[0]}-000{suffixes[0]}, {splits[0]}-001{suffixes[0]}, ..."
