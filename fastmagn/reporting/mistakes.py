"""The most confident wrong predictions of a run, from its stored logits, with their images."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastmagn.config.schema import Config
from fastmagn.corruptions import SEVERITIES, corrupt, size_class
from fastmagn.data import ImageSet, open_corrupted
from fastmagn.data.corrupted.npy import MANIFEST, read_manifest, rows_of
from fastmagn.errors import InputError, counted
from fastmagn.evaluation.logits import read_logits, read_severities
from fastmagn.reporting.gallery import ImagesOf, read_config
from fastmagn.reporting.names import corruption_title
from fastmagn.reporting.pictures import png_address
from fastmagn.reporting.provenance import measuring_command
from fastmagn.reporting.runs import FinishedRun

NUM_MISTAKES = 12
MOST_OF_ONE = 3
NUM_CONFUSIONS = 10
_AGREEMENT = 1e-6
_SLACK = 1e-4  # far above what float32 rounds away of a doubt, relative to its logits


class Mistake(NamedTuple):
    """A wrong prediction. `confidence` is the predicted class's probability, `log_doubt` the logarithm of the rest."""

    row: int
    corruption: str
    severity: int
    true: int
    predicted: int
    confidence: float
    log_doubt: float


class Confusion(NamedTuple):
    """How often images of one class were taken for another, over all corruptions and severities.

    Args:
        true: The class of the images.
        predicted: The class that they were taken for.
        num_images: How many.
        share: `num_images` divided by the number of all corrupt images of the class.
        corruption: The corruption on which it happened most.
    """

    true: int
    predicted: int
    num_images: int
    share: float
    corruption: str


class ShownMistake(NamedTuple):
    """A mistake with names and pictures (`data:` addresses). `corrupted` is empty if the picture cannot be made."""

    row: int
    corruption: str
    severity: int
    true: str
    predicted: str
    confidence: str
    original: str
    corrupted: str


class Mistakes(NamedTuple):
    """The errors of a run that the page shows; or none, and a note that says why."""

    examples: tuple[ShownMistake, ...] = ()
    confusions: tuple[tuple[str, str, str, str, str], ...] = ()
    note: str = ""


def mistakes(run: FinishedRun, images_of: ImagesOf) -> Mistakes:
    """The run's most confident errors on corrupt images, and its most frequent confusions."""
    folder = run.logits
    if not os.path.isdir(folder):
        note = f"no stored logits. {measuring_command(run, '--save_logits')} stores them"
        if run.weights:
            return Mistakes(note=f"The worst errors are not shown: the evaluation has {note}.")
        training = "as does training with --eval.save_logits true"
        return Mistakes(note=f"The worst errors are not shown: the run has {note}, {training}.")
    try:
        labels, logits = read_logits(folder)
        predicted = predictions(logits)
        _check_same(run, labels, predicted)
        config = read_config(run)
        image_set = images_of(config.data)
        rows = _rows(run, image_set, labels, logits["clean"].shape[-1])
        names = image_set.class_names
        found = worst(labels, logits, NUM_MISTAKES, read_severities(folder, logits), predicted)
        shown = [_show(run, mistake, image_set, rows, config) for mistake in found]
        pairs = [
            (names[of.true], names[of.predicted], f"{of.num_images:,}", f"{100 * of.share:.1f}", of.corruption)
            for of in confusions(labels, logits, NUM_CONFUSIONS, predicted)
        ]
    except (InputError, OSError) as error:
        return Mistakes(note=f"The worst errors are not shown: {error}")
    return Mistakes(tuple(shown), tuple(pairs))


def predictions(logits: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The predicted classes, int64 [S, M], of each corruption's logits [S, M, K]; `clean` is ignored."""
    return {name: cells.argmax(axis=-1) for name, cells in logits.items() if name != "clean"}


def worst(
    labels: np.ndarray,
    logits: dict[str, np.ndarray],
    number: int,
    severities: Mapping[str, tuple[int, ...]] | None = None,
    predicted: Mapping[str, np.ndarray] | None = None,
) -> list[Mistake]:
    """The most confident wrong predictions on corrupt images, worst first.

    An image comes once, a corruption at most MOST_OF_ONE times. They are ordered by the logarithm of the probability of
    all other classes, which still differs between predictions whose confidence rounds to 1.

    Args:
        labels: int64 [M].
        logits: corruption -> float32 [S, M, K]; `clean` is ignored.
        number: The largest number of predictions.
        severities: The severities of each corruption; None means 1 to 5.
        predicted: What `predictions` returns; None calls it.
    """
    predicted = predictions(logits) if predicted is None else predicted
    candidates = []
    for name, classes_of in predicted.items():
        known = SEVERITIES if severities is None else severities[name]
        for severity, cell, found in zip(known, logits[name], classes_of, strict=True):
            wrong = np.flatnonzero(found != labels)
            most = number + MOST_OF_ONE  # no later one could be chosen
            wrong = wrong[_may_be_first(cell[wrong], most)]
            doubts = log_doubt(np.asarray(cell[wrong], np.float64))
            for i in np.argsort(doubts, kind="stable")[:most]:
                row, doubt = int(wrong[i]), float(doubts[i])
                classes = int(labels[row]), int(found[row])
                candidates.append(Mistake(row, name, severity, *classes, -float(np.expm1(doubt)), doubt))
    chosen: list[Mistake] = []
    for mistake in sorted(candidates, key=lambda mistake: mistake.log_doubt):
        of_corruption = sum(mistake.corruption == other.corruption for other in chosen)
        is_new = all(mistake.row != other.row for other in chosen)
        if is_new and of_corruption < MOST_OF_ONE and len(chosen) < number:
            chosen.append(mistake)
    return chosen


def log_doubt(logits: np.ndarray) -> np.ndarray:
    """log(1 - p) of the most probable class, float64 [N], from logits float64 [N, K], without cancellation."""
    ordered = np.sort(logits, axis=1)
    others = np.logaddexp.reduce(ordered[:, :-1], axis=1)
    return others - np.logaddexp(others, ordered[:, -1])


def _may_be_first(logits: np.ndarray, number: int) -> np.ndarray:
    """Which rows may be among the `number` with the least `log_doubt`, bool [N], from [N, K], which is overwritten.

    The doubts are estimated without a sort, within _SLACK, so that few rows are left for `log_doubt`.
    """
    if len(logits) <= number:
        return np.ones(len(logits), bool)
    rows, first = np.arange(len(logits)), logits.argmax(axis=1)
    top = logits[rows, first].astype(np.float64)
    logits[rows, first] = -np.inf
    second = logits.max(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):  # logits that are not finite
        logits -= np.where(np.isfinite(second), second, 0)[:, None]
        others = second + np.log(np.exp(logits, out=logits).sum(axis=1), dtype=np.float64)
        doubts = others - np.logaddexp(others, top)
        slack = _SLACK * (1 + np.abs(top) + np.abs(second))
        bound = np.partition(doubts + slack, number - 1)[number - 1]
        return ~(doubts - slack > bound)  # also true for NaN


def confusions(
    labels: np.ndarray,
    logits: dict[str, np.ndarray],
    number: int,
    predicted: Mapping[str, np.ndarray] | None = None,
) -> list[Confusion]:
    """The most frequent pairs of a class and the class that it is taken for on corrupt images, most frequent first.

    Args:
        labels: int64 [M].
        logits: corruption -> float32 [S, M, K], S severities of it.
        number: The largest number of pairs.
        predicted: What `predictions` returns; None calls it.
    """
    predicted = predictions(logits) if predicted is None else predicted
    num_classes, num_cells = logits["clean"].shape[-1], sum(map(len, predicted.values()))
    tables = {
        name: np.bincount((labels * num_classes + classes).ravel(), minlength=num_classes**2)
        for name, classes in predicted.items()
    }
    total = np.sum(list(tables.values()), axis=0)
    total[:: num_classes + 1] = 0  # correct predictions
    found = []
    for pair in np.argsort(-total, kind="stable")[:number]:
        if total[pair] == 0:
            break
        true, taken_for = divmod(int(pair), num_classes)
        of_class = num_cells * np.count_nonzero(labels == true)
        counts = {name: table[pair] for name, table in tables.items()}
        most = max(counts, key=counts.__getitem__)
        found.append(Confusion(true, taken_for, int(total[pair]), total[pair] / of_class, corruption_title(most)))
    return found


def _check_same(run: FinishedRun, labels: np.ndarray, predicted: Mapping[str, np.ndarray]) -> None:
    """Raise InputError if the logits are not those of the results: their accuracies differ."""
    for name, accuracies in run.corruption_accuracy.items():
        same = name in predicted and len(labels) == run.num_images
        if same:
            measured = [np.mean(classes == labels) for classes in predicted[name]]
            known = [value for value in accuracies if value is not None]
            same = len(known) == len(measured) and bool(np.allclose(measured, known, rtol=0, atol=_AGREEMENT))
        if not same:
            raise InputError(
                f"{run.logits}: comes from another evaluation than these results ({name} differs)."
                f" {measuring_command(run, '--save_logits')} stores the logits again."
            )


def _rows(run: FinishedRun, image_set: ImageSet, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The rows of the test images that the logits are of, int64 [M].

    Raises:
        InputError: The logits are of other classes, or of other images.
    """
    folder, test_labels = run.logits, image_set.test_labels
    if num_classes != image_set.num_classes:
        of = f"the {len(test_labels)} test images in {image_set.name}"
        raise InputError(f"{folder}: has logits of {counted(num_classes, 'class')}; {of} have {image_set.num_classes}.")
    if len(labels) > len(test_labels):
        raise InputError(
            f"{folder}: has logits of {counted(len(labels), 'image')}; there are {len(test_labels)} test images."
        )
    rows = np.arange(len(test_labels))[run.subset.rows(test_labels, len(labels))]
    if not np.array_equal(labels, test_labels[rows]):
        raise InputError(f"{folder}: its labels do not belong to the test images of {run.data}.")
    return rows


def _show(run: FinishedRun, mistake: Mistake, image_set: ImageSet, rows: np.ndarray, config: Config) -> ShownMistake:
    row = rows[mistake.row]
    names, original = image_set.class_names, np.asarray(image_set.test_images_u8[np.array([row])])[0]
    try:
        corrupted = png_address(_corrupted(run, mistake, image_set, rows, config))
    except (InputError, OSError):  # frost's pictures or a -C set are gone, or an older version measured
        corrupted = ""  # the picture is missing
    percent = 100 * mistake.confidence
    return ShownMistake(
        row=int(row),
        corruption=corruption_title(mistake.corruption),
        severity=mistake.severity,
        true=names[mistake.true],
        predicted=names[mistake.predicted],
        confidence=f"{percent:.2f}" if percent < 99.995 else "> 99.99",
        original=png_address(original),
        corrupted=corrupted,
    )


def _corrupted(run: FinishedRun, mistake: Mistake, image_set: ImageSet, rows: np.ndarray, config: Config) -> np.ndarray:
    """The image as the model was given it, uint8 [H, W, 3]. `rows` are those of the measured images."""
    images_u8, labels = image_set.test_images_u8, image_set.test_labels
    name, severity, row, chosen = mistake.corruption, mistake.severity, rows[[mistake.row]], config.eval
    if chosen.corrupted_dir is not None:
        held = _held(Path(chosen.corrupted_dir), labels)
        place = int(np.searchsorted(held, row[0]))
        if place == len(held) or held[place] != row[0]:
            raise InputError(f"{chosen.corrupted_dir}: does not hold test image {row[0]}.")
        known = labels[held[: place + 1]]
        stored = open_corrupted(Path(chosen.corrupted_dir), name, known, images_u8.shape[1:], len(held))
        return np.array(stored[severity - 1][place])
    version, jpeg_quality = run.corruptions
    if version != size_class(images_u8.shape).version:
        raise InputError(f"{run.path}: measured by version {version} of the corruptions, which is gone.")
    keys = {"seed": chosen.corruption_seed, "indices": row}
    return corrupt(np.asarray(images_u8[row]), name, severity, **keys, jpeg=jpeg_quality > 0)[0]


def _held(folder: Path, test_labels: np.ndarray) -> np.ndarray:
    """The rows of the test images that a -C set of .npy files was made of, ascending; all, if it does not say."""
    rows = np.arange(len(test_labels))
    return rows[rows_of(read_manifest(folder), test_labels)] if (folder / MANIFEST).exists() else rows
