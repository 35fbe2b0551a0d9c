"""Hand-made run folders for the report's tests: results whose every number the test knows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fastmagn.config.schema import Config
from fastmagn.config.text import plain
from fastmagn.corruptions import PERTURBATIONS
from fastmagn.data import load_images
from fastmagn.evaluation.logits import write_logits as logits_writer

C19 = [
    *(
        "gaussian_noise",
        "shot_noise",
        "impulse_noise",
        "defocus_blur",
        "glass_blur",
        "motion_blur",
        "zoom_blur",
        "snow",
    ),
    *("frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression", "speckle_noise"),
    *("gaussian_blur", "spatter", "saturate"),
]
# Accuracy at severity s is the mean plus these: their mean is 0.
SLOPE = (0.04, 0.02, 0.0, -0.02, -0.04)


def write_run(
    folder: Path,
    means: dict[str, float] | float = 0.8,
    *,
    method: str = "standard",
    data: str = "cifar10",
    network: str = "resnet18",
    seed: int = 0,
    clean: float = 0.9,
    rms: tuple[float, float] = (0.05, 0.1),
    fields: dict[str, Any] | None = None,
    epochs: int = 3,
) -> Path:
    """A finished run whose mean accuracy under a corruption is `means` (one number: the same under all 19).

    `fields` sets config fields by their dotted names.
    """
    means = means if isinstance(means, dict) else dict.fromkeys(C19, means)
    config = plain(Config())
    named = {"method": method, "run_dir": str(folder), "data.name": data, "model.name": network, "train.seed": seed}
    for field, value in (named | (fields or {})).items():
        *sections, last = field.split(".")
        section = config
        for part in sections:
            section = section[part]
        section[last] = value
    table = {name: [mean + step for step in SLOPE] for name, mean in means.items()}
    sets = {"c15": C19[:15], "c18": C19[1:], "c19": C19}
    mca = {
        name: sum(sum(table[member]) for member in members) / (5 * len(members))
        for name, members in sets.items()
        if set(members) <= set(table)
    }
    results = {
        "num_images": 10_000,
        "clean_accuracy": clean,
        "mca": dict.fromkeys(sets) | mca,
        "corruption_accuracy": table,
        "rms_calibration_error": {
            "clean": rms[0],
            "corrupt": rms[1],
            "corruption_set": "c18" if set(C19[1:]) <= set(table) else "+".join(table),
            "num_bins": 4,
            "binning": "width",
            "pooling": "pooled",
        },
        "reliability": {
            "clean": {"count": [0, 1, 2, 7], "accuracy": [None, 0, 0.5, 1], "confidence": [None, 0.375, 0.625, 0.875]},
            "corrupt": {"count": [5, 5, 5, 5], "accuracy": [0.2, 0.4, 0.6, 0.8], "confidence": [0.1, 0.4, 0.7, 0.9]},
        },
        "steps": 30,
        "images_per_s": 1234.5,
        "environment": {"fastmagn": "0.1.0", "commit": "0123456789ab", "torch": "2.14.1", "device": "cpu"},
        "config": config,
    }
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "config.yaml").write_text(f"method: {method}\n")
    rows = [{"epoch": i, "step": 10 + i, "loss": 2 - 0.5 * i, "train_accuracy": 0.3 + 0.2 * i} for i in range(epochs)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def rewrite(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a run's results.json in place."""
    file = folder / "results.json"
    results = json.loads(file.read_text())
    change(results)
    file.write_text(json.dumps(results))


def of_classes(**changed: Any) -> dict[str, Any]:
    """What results have of the accuracy of two classes, of 95 and 5 images; some of it `changed`."""
    return {
        **{"class_names": ["whole", "defect"], "num_images": [95, 5], "clean": [0.9, 0.6], "corrupt": [0.8, None]},
        **{"balanced_accuracy": {"clean": 0.75, "corrupt": None}, "corruption_set": "c18"},
        **changed,
    }


def with_few(folder: Path, severities: dict[str, list[int]]) -> Path:
    """Leave a run's results only these severities of these corruptions, as of a stored set that has no others."""

    def change(results: dict[str, Any]) -> None:
        table = results["corruption_accuracy"]
        for name, kept in severities.items():
            table[name] = [value if s in kept else None for s, value in enumerate(table[name], start=1)]
        results["severities"] = severities
        for name, members in {"c15": C19[:15], "c18": C19[1:], "c19": C19}.items():
            if set(members) & set(severities):
                results["mca"][name] = None

    rewrite(folder, change)
    return folder


def write_logits(
    folder: Path,
    num_images: int = 60,
    skill: float = 4.0,
    draw: int = 0,
    num_classes: int = 10,
    rows: np.ndarray | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Logits of the first digits beside a run's results, and the accuracies that they give in these; returns both.

    `skill` is added to the right class's standard normal logit; it falls to nothing at severity 5 of fog. `rows` are
    other digits than the first; beyond the last digit, the labels begin anew.
    """
    digits = load_images("digits", Path()).test_labels
    labels = np.resize(digits, num_images) if rows is None else digits[rows]
    num_images = len(labels)
    random = np.random.default_rng(draw)
    logits = {}
    for name in ("clean", *C19):
        cells = random.normal(size=(1 if name == "clean" else 5, num_images, num_classes)).astype(np.float32)
        for severity, cell in enumerate(cells):
            cell[np.arange(num_images), labels] += skill * (1 - severity / 4 if name == "fog" else 1)
        logits[name] = cells
    with logits_writer(folder / "logits", labels) as writer:
        for name, cells in logits.items():
            for number, cell in enumerate(cells):
                writer.write(name, 0 if name == "clean" else number + 1, cell)

    def change(results: dict[str, Any]) -> None:
        accuracy = {name: [float(np.mean(cell.argmax(1) == labels)) for cell in logits[name]] for name in C19}
        results |= {"num_images": num_images, "corruption_accuracy": accuracy}
        sets = {"c15": C19[:15], "c18": C19[1:], "c19": C19}
        results["mca"] = {title: float(np.mean([accuracy[name] for name in names])) for title, names in sets.items()}

    rewrite(folder, change)
    return labels, logits


def with_protocols(
    folder: Path, flip: float = 0.1, error: float = 0.4, adapted: float = 0.7, norm: float = 4.0
) -> Path:
    """Add what is measured beside accuracy and calibration to a run's results; returns the folder.

    Every sequence flips with `flip` at its first half of frames and not after; the map has `error`, and twice that at
    (down 1, across 2) and its opposite.
    """
    frames = {name: {"motion_blur": 20, "translate": 15}.get(name, 30) for name in PERTURBATIONS}
    curves = {name: [flip] * (number // 2) + [0.0] * (number - number // 2) for name, number in frames.items()}
    probability = {name: sum(curve) / len(curve) for name, curve in curves.items()}
    rows = [[error] * 32 for _ in range(32)]
    rows[17][18] = rows[15][14] = 2 * error

    def change(results: dict[str, Any]) -> None:
        results["perturbations"] = {
            "num_images": 100,
            "flip_probability": probability,
            "mean_flip_probability": sum(probability.values()) / 10,
            "flips_by_frame": curves,
            "source": {"seed": 0},
        }
        results["fourier"] = {
            "error": rows,
            "frequencies": list(range(-16, 16)),
            "mean_error": sum(map(sum, rows)) / 1024,
            "clean_error": 0.05,
            "num_images": 500,
            "norm": norm,
            "seed": 0,
        }
        table = {name: [adapted] * 5 for name in results["corruption_accuracy"]}
        results["adapted_batch_norm"] = {
            "batch_size": 50,
            "clean_accuracy": adapted + 0.1,
            "corruption_accuracy": table,
        }

    rewrite(folder, change)
    return folder
