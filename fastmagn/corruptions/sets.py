"""The sets of corruptions by name, unions of them, and which sets a number of corruptions holds."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from fastmagn.corruptions import CORRUPTION_SETS, CORRUPTIONS, SEVERITIES, BySize, size_class

_IN_BOTH = ("blue_noise_sample", "brownish_noise", "checkerboard_cutout", "inverse_sparkles", "sparkles")
CIFAR_CBAR = (
    *_IN_BOTH,
    *("pinch_and_twirl", "ripple", "circular_motion_blur", "lines", "transverse_chromatic_abberation"),
)
IMAGENET_CBAR = (
    *_IN_BOTH,
    *("caustic_refraction", "cocentric_sine_waves", "perlin_noise", "plasma_noise", "single_frequency_greyscale"),
)
MEASURED = "measured"  # the name of the mean over all that was measured
AT = " at "  # stands between a set's title and its severities


def cbar_levels(cifar: tuple[float, ...], imagenet: tuple[float, ...]) -> BySize:
    """The table of a corruption that both have: ImageNet-C-bar's levels are for all images but the small ones."""
    return BySize(small=cifar, medium=imagenet, large=imagenet)


def set_members(corruption_set: str, height_px: int, width_px: int) -> tuple[str, ...]:
    """The corruptions of a set, or of several joined by +, for images of this size; each once, in the sets' order.

    `config.corruption_sets.set_parts` checks the names. A corruption of the user's own is a set of its own.
    """
    cbar = CIFAR_CBAR if size_class((0, height_px, width_px, 3)).name == "small" else IMAGENET_CBAR
    sets = CORRUPTION_SETS | {"cbar": cbar}
    return tuple(dict.fromkeys(name for part in corruption_set.split("+") for name in sets.get(part, (part,))))


def sets_to_show(names: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The sets that have a mean where the corruptions `names` were measured: c15, c18, c19, and cbar if it is complete.

    C-bar's are the ten of CIFAR-10-C-bar or those of ImageNet-C-bar.
    """
    cbar = next((members for members in (CIFAR_CBAR, IMAGENET_CBAR) if set(members) <= set(names)), None)
    return CORRUPTION_SETS | ({"cbar": cbar} if cbar else {})


def set_name(names: Collection[str]) -> str:
    """The name of the set that these corruptions are; theirs joined by + if they are none."""
    titles = {frozenset(members): title for title, members in sets_to_show(names).items()}
    return titles.get(frozenset(names), "+".join(in_order(names)))


def are_covered(complete: Collection[str], names: Iterable[str]) -> bool:
    """Whether each of `names` belongs to a set all of whose members are among the `complete` ones."""
    whole = [members for members in sets_to_show(complete).values() if set(members) <= set(complete)]
    return set(names) <= set().union(*whole)


def in_order(names: Iterable[str]) -> list[str]:
    """The names, each once: those of the registry in its order, then others in alphabetical order."""
    names = set(names)
    return [name for name in CORRUPTIONS if name in names] + sorted(names - CORRUPTIONS.keys())


def severities_title(severities: Mapping[str, Sequence[int]]) -> str:
    """Name the severities of each of some corruptions: "severity 1 of fog, severities 1 to 5 of the others".

    If all have the same: "severities 1 to 5".
    """
    groups: dict[tuple[int, ...], list[str]] = {}
    for name, measured in severities.items():
        groups.setdefault(tuple(measured), []).append(name)
    if len(groups) == 1:
        return _severities_text(*groups)
    few = [f"{_severities_text(some)} of {', '.join(names)}" for some, names in groups.items() if some != SEVERITIES]
    others = [f"{_severities_text(SEVERITIES)} of the others"] if SEVERITIES in groups else []
    return ", ".join(few + others)


def with_severities(title: str, severities: Mapping[str, Sequence[int]]) -> str:
    """The title of a set whose corruptions have these severities: "c18 at severity 1". All five go without saying."""
    is_whole = all(tuple(measured) == SEVERITIES for measured in severities.values())
    return title if is_whole else title + AT + severities_title(severities)


def _severities_text(severities: tuple[int, ...]) -> str:
    *most, last = severities
    if not most:
        return f"severity {last}"
    if len(most) > 1 and severities == tuple(range(severities[0], last + 1)):
        return f"severities {severities[0]} to {last}"
    return f"severities {', '.join(map(str, most))} and {last}"
