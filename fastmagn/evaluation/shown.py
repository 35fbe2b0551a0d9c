"""Print the results of an evaluation, in per cent."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from fastmagn.corruptions import SEVERITIES
from fastmagn.evaluation.metrics.accuracy import measured_mean
from fastmagn.machine.console import console, warn


def print_results(results: dict[str, Any], title: str) -> None:
    """The corruption table and the summary of a results.json."""
    table = Table(title=title, caption="accuracy in %, severity 1 to 5")
    table.add_column("corruption")
    some_accuracies = next(iter(results["corruption_accuracy"].values()))
    for severity in range(1, len(some_accuracies) + 1):
        table.add_column(str(severity), justify="right")
    table.add_column("mean", justify="right")
    for name, accuracies in results["corruption_accuracy"].items():
        mean = measured_mean(accuracies, results.get("severities", {}).get(name, SEVERITIES))
        table.add_row(name, *(percent(accuracy, 1) for accuracy in (*accuracies, mean)))
    console.print(table)
    rms = results["rms_calibration_error"]
    mca = "  ".join(f"{name} {100 * value:.2f}" for name, value in results["mca"].items() if value is not None)
    console.print(f"clean accuracy {percent(results['clean_accuracy'])} %")
    console.print(f"mCA {mca} %" if mca else "mCA -")
    if results.get("mce_alexnet") is not None:
        console.print(f"mCE normalised by AlexNet's {100 * results['mce_alexnet']:.2f} %")
    console.print(
        f"RMS calibration error: clean {percent(rms['clean'])} %, corrupt ({rms['corruption_set']}) "
        f"{percent(rms['corrupt'])} %"
    )


def percent(fraction: float | None, digits: int = 2) -> str:
    """A fraction in per cent; `-` for None, which stands where logits were not finite."""
    return "-" if fraction is None else f"{100 * fraction:.{digits}f}"


def print_images(folder: str, entry: Mapping[str, Any], num_all_classes: int) -> None:
    """A folder's entry of `image_folders`, see `other_images.summarise_images`."""
    if entry["num_unreadable"]:
        warn(f"{entry['num_unreadable']} image files cannot be read; they are left out.")
    console.print(f"{folder}: {entry['num_images']} images of {entry['num_classes']} classes", soft_wrap=True)
    for name, which in (
        ("own_classes", f"among these {entry['num_classes']} classes (as ImageNet-A and -R are published)"),
        ("all_classes", f"among all {num_all_classes} classes"),
    ):
        accuracy, rms = entry[name]["accuracy"], entry[name]["rms_calibration_error"]
        console.print(
            f"accuracy {which} {100 * accuracy:.2f} %, RMS calibration error {100 * rms:.2f} %", soft_wrap=True
        )
