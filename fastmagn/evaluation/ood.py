"""Out-of-distribution images: how well the model tells images of other classes from the test images.

Shape letters: M test images, N other images, H W image.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from fastmagn.config.paths import user_path
from fastmagn.config.schema import Config, DataConfig
from fastmagn.data import DATASETS, ENCODED, OWN, ImageSet, load_test
from fastmagn.data.cifar import NO_FILES_NEEDED
from fastmagn.data.files.decoding import resize_px
from fastmagn.data.files.listing import image_names
from fastmagn.data.files.on_demand import FolderImages, LazyImages
from fastmagn.data.image_set import Images
from fastmagn.data.padding import padded_from
from fastmagn.data.subset import even_subset
from fastmagn.errors import InputError, check, nearest
from fastmagn.evaluation.forward import Forward, logits_of
from fastmagn.evaluation.metrics.detection import detect, familiarity_scores
from fastmagn.evaluation.subset import subset_of
from fastmagn.machine.console import warn
from fastmagn.registry import resolve
from fastmagn.runs.reading import SCORES

FIELD = "eval.ood"


def find_other_sets(config: Config, image_set: ImageSet) -> dict[str, Images | LazyImages]:
    """The images that `eval.ood` names, by the names that were given; at most `eval.num_images` of each if that is set.

    A data set has its test images, from `data.dir`; of a folder all images below it count, whatever its subfolders are.
    If fewer than all count, they are those that an evaluation of the data set would measure, or drawn evenly over the
    subfolders of a folder.

    Args:
        config: Which images.
        image_set: The images that the model is tested on.

    Raises:
        InputError: A name is neither a data set nor a folder, or it is the model's own set; a folder holds no image;
            the sizes differ.
    """
    names = [name.strip() for name in (config.eval.ood or "").split(",") if name.strip()]
    return {name: _find(name, config, image_set) for name in names}


def _find(name: str, config: Config, image_set: ImageSet) -> Images | LazyImages:
    size, wanted = image_set.test_images_u8.shape[1], config.eval.num_images
    padding = padded_from(image_set.test_images_u8)
    known = [name for name in DATASETS if name not in OWN]
    if name in known:
        check(name != config.data.name, FIELD, name, "images of other classes than the model's own data set")
        try:
            images_u8, labels = _published(name, config.data, size)
        except InputError as error:
            why = str(error).replace(NO_FILES_NEEDED, "")
            raise InputError(f"{FIELD}: got {name}, whose images are expected in data.dir. {why}") from error
        own = images_u8.shape[1]
        if own != size:
            raise InputError(
                f"{FIELD}: got {name}, whose images have {own} px; the model is tested on images of {size} px. Give a"
                " folder of images, which are resized."
            )
        chosen = images_u8[subset_of(name, config.eval.corruption_seed).rows(labels, min(wanted, len(labels)))]
        if padding is None or not isinstance(chosen, FolderImages):
            return chosen
        return LazyImages([chosen.files.item(row) for row in range(len(chosen))], size, size, padding)
    folder = user_path(name, FIELD)
    if not folder.is_dir():
        hint = nearest(name, known)
        raise InputError(f"{FIELD}: got {name!r}; expected one of {', '.join(known)}, or a folder of images.{hint}")
    files = image_names(folder)
    check(len(files) > 0, FIELD, str(folder), "a folder with images in it or in its subfolders")
    shorter_side = resize_px(config.data) if config.data.name in ENCODED else size
    if 0 < wanted < len(files):
        _, subfolders = np.unique([str(Path(file).parent) for file in files], return_inverse=True)
        files = [files[row] for row in even_subset(subfolders, wanted, config.eval.corruption_seed)]
    return LazyImages([folder / file for file in files], size, shorter_side, padding)


def _published(name: str, data: DataConfig, size: int) -> tuple[Images, np.ndarray]:
    """The test images of a published set and their labels; images of any size are cut to `size` px."""
    if name not in ENCODED:
        image_set = load_test(DataConfig(name=name, dir=Path(data.dir), download=data.download))
        return image_set.test_images_u8, image_set.test_labels
    shorter_side = resize_px(data) if data.name in ENCODED else size
    config = DataConfig(name=name, dir=data.dir, image_size=size, eval_resize_px=shorter_side)
    images_u8, _ = resolve(ENCODED, name, FIELD)(config)
    return images_u8, images_u8.files.labels


def measure_other_sets(
    model: nn.Module,
    test_images_u8: Images,
    others: Mapping[str, Images | LazyImages],
    forward: Forward,
    field: str = FIELD,
) -> dict[str, Any]:
    """Measure the detection of each set of other images: one forward pass over the test images and over each set.

    Args:
        model: Takes float images [B, 3, H, W] in [0, 1].
        test_images_u8: The clean test images that are measured, uint8 [M, H, W, 3].
        others: Name -> uint8 [N, H, W, 3].
        forward: How the model is run.
        field: The option that names the other images, for messages.

    Returns:
        Name -> `num_test_images` M, `num_other_images` N, and under `max_softmax`, `energy` and `max_logit` what
        `metrics.detection.detection_measures` returns; None for a score that `metrics.detection.detect` leaves out.
    """
    of_tests = familiarity_scores(logits_of(model, test_images_u8, forward, field)[0])
    measured = {}
    for name, images_u8 in others.items():
        logits, readable = logits_of(model, images_u8, forward, f"{field} {name}")
        of_others = {score: values[readable] for score, values in familiarity_scores(logits).items()}
        counts = {"num_test_images": len(test_images_u8), "num_other_images": int(readable.sum())}
        measures = detect(of_tests, of_others)
        left_out = [score for score in SCORES if measures[score] is None]
        if left_out:
            warn(f"{field} {name}: {', '.join(left_out)} left out: not finite, or the model returns log-probabilities.")
        measured[name] = counts | measures
    return measured
