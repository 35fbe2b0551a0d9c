"""Reads -C sets in the published layout of CIFAR-10-C (Hendrycks and Dietterich, ICLR 2019), made or downloaded."""

from pathlib import Path

import numpy as np

from fastmagn.errors import InputError

NUM_SEVERITIES = 5


def open_corrupted(folder: Path, name: str, test_labels: np.ndarray, image_shape: tuple[int, int, int]) -> np.ndarray:
    """One corruption's images, mapped from `<name>.npy` (nothing is read before it is used) and checked against labels.

    The file holds uint8 [5*N, H, W, C]: rows (s-1)*N..s*N-1 are severity s, in the test set's order. `labels.npy`
    holds the N labels, or the same N five times over, as the published sets do. N may exceed the images asked for.

    Args:
        folder: The folder of the -C set.
        name: The corruption, such as fog.
        test_labels: int64 [M], labels of the first M test images: those that are to be measured.
        image_shape: (H, W, C) of the test images.

    Returns:
        uint8 [5, M, H, W, C], read-only; element s - 1 is severity s.

    Raises:
        InputError: A file is missing, truncated, of another kind, shape or order; or the labels differ.
    """
    path = Path(folder) / f"{name}.npy"
    images_u8 = _open_array(path)
    if images_u8.dtype != np.uint8 or images_u8.shape[1:] != image_shape or not images_u8.flags.c_contiguous:
        wanted = ", ".join(str(side) for side in image_shape)
        raise InputError(
            f"{path}: got {images_u8.dtype} {list(images_u8.shape)}; expected uint8 [5*N, {wanted}] in C order, rows"
            " (s-1)*N..s*N-1 severity s."
        )
    num_images, left_over = divmod(len(images_u8), NUM_SEVERITIES)
    if left_over or num_images < len(test_labels):
        raise InputError(
            f"{path}: holds {len(images_u8)} images; expected 5 severities of {len(test_labels)} or more. Measure a set"
            " made of fewer with --eval.num_images."
        )
    _check_labels(Path(folder) / "labels.npy", num_images, test_labels)
    return images_u8.reshape(NUM_SEVERITIES, num_images, *image_shape)[:, : len(test_labels)]


def _check_labels(path: Path, num_images: int, test_labels: np.ndarray) -> None:
    labels = _open_array(path)
    if (
        labels.ndim != 1
        or labels.dtype.kind not in "iu"
        or len(labels) not in (num_images, NUM_SEVERITIES * num_images)
    ):
        raise InputError(
            f"{path}: got {labels.dtype} {list(labels.shape)}; expected integers [{num_images}] or"
            f" [{NUM_SEVERITIES * num_images}]."
        )
    wrong = np.flatnonzero(labels.reshape(-1, num_images)[:, : len(test_labels)] != test_labels)
    if len(wrong):
        raise InputError(
            f"{path}: {len(wrong)} labels differ from the test set's, so these are images of another set or in another"
            " order. Make this set again with python -m fastmagn.corrupt, or give the test set it was made of."
        )


def _open_array(path: Path) -> np.ndarray:
    if not path.is_file():
        raise InputError(f"{path}: no such file; a -C set holds <corruption>.npy for each corruption, and labels.npy.")
    try:
        # Unlike np.load, open_memmap takes neither archives nor pickles; it refuses arrays of objects.
        return np.lib.format.open_memmap(path, mode="r")
    except (ValueError, OSError, EOFError, SyntaxError, TypeError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: not a whole .npy array of plain numbers ({reason}). Make or download it again."
        ) from error
