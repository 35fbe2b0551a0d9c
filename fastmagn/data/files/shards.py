"""Which files hold a split of a sharded set: named by a pattern, or found by the names that the field gives them."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from fastmagn.errors import InputError, check, counted, one_line, some, warn_caller
from fastmagn.machine.console import console
from fastmagn.machine.torchrun import rank

TRAIN = ("train",)
TEST = ("val", "validation", "valid", "test")
_BRACES = re.compile(r"\{([^{}]*)\}")
_NUMBERS = re.compile(r"(\d{1,18})\.\.(\d{1,18})")
_MAX_SHARDS = 1_000_000
_LAST_NUMBER = re.compile(r"(\d+)\.[a-z]+$")
_OF = re.compile(r"-(\d{5})-of-(\d{5})\.[a-z]+$")


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
        InputError: There are none, or some of them are missing.
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
            _check_whole(root, groups[0])
            others = [other for other in splits[number + 1 :] if _has(root, other, suffixes)]
            tell_of_others(root, split, others, field)
            return groups[0]
    looked = ", ".join(f"{split}-*{suffixes[0]}" for split in splits)
    raise InputError(
        f"data.dir: {root}: no files of this split ({looked}, also below data, or in a folder {splits[0]}); expected"
        f" {_layout(splits, suffixes)}, or {field} to name them."
    )


def tell_of_others(root: Path | str, split: str, others: Sequence[str], field: str) -> None:
    """Print which split is tested on, if others could have been: test beside validation, say."""
    if others and rank() == 0:
        unused = f"{', '.join(others)} {'is' if len(others) == 1 else 'are'} not used"
        console.print(f"{root}: tested on {split}; {unused} (--{field} names what is)", soft_wrap=True)


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
        raise InputError(
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
    return [*named, own]


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


def _check_whole(root: Path, names: list[str]) -> None:
    """Shards that say of how many they are must all be there; a gap in other numbers is a warning."""
    of = [match for name in names if (match := _OF.search(name))]
    if of and len(of) == len(names):
        missing = (
            sorted(set(range(int(of[0][2]))) - {int(match[1]) for match in of}) if int(of[0][2]) <= _MAX_SHARDS else []
        )
        if missing:
            raise InputError(
                f"data.dir: {root}: {len(missing)} of {counted(int(of[0][2]), 'file')} missing: number"
                f" {some(map(str, missing))} beside {names[0]}. Fetch them."
            )
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


def _layout(splits: Sequence[str], suffixes: Sequence[str]) -> str:
    return f"{splits[0]}-000{suffixes[0]}, {splits[0]}-001{suffixes[0]}, ..."
