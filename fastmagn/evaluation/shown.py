"""Print the results of an evaluation, in per cent."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from fastmagn.corruptions import SEVERITIES
from fastmagn.corruptions.sets import MEASURED, set_name, with_severities
from fastmagn.errors import counted
from fastmagn.evaluation.metrics.accuracy import measured_mean
from fastmagn.machine.console import console, warn
from fastmagn.runs.reading import SCORES

_MOST_NAMED = 3  # corruptions; of more only the number
NUM_LOWEST = 3  # classes in the line of the lowest accuracies
FEW_IMAGES = 100  # of fewer, an accuracy has a standard error of up to 5 points or more
UNEVEN = 1.1  # the largest class has this many times the images of the smallest


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
    if (classes := results.get("class_accuracy")) is not None:  # else the results are of an earlier version
        _print_classes(classes, {"clean": "clean", "corrupt": f"corrupt ({classes['corruption_set']})"})
    rms = results["rms_calibration_error"]
    console.print(f"clean accuracy {percent(results['clean_accuracy'])} %")
    console.print(_mca_text(results), soft_wrap=True)
    if results.get("mce_alexnet") is not None:
        console.print(f"mCE normalised by AlexNet's {100 * results['mce_alexnet']:.2f} %")
    console.print(
        f"RMS calibration error: clean {percent(rms['clean'])} %, corrupt ({rms['corruption_set']}) "
        f"{percent(rms['corrupt'])} %",
        soft_wrap=True,
    )
    _print_selective(results.get("selective_prediction"))
    _print_temperature(results.get("temperature_scaling"))
    for name, entry in results.get("ood", {}).items():
        _print_ood(name, entry)
    _print_protocols(results)


def _mca_text(results: Mapping[str, Any]) -> str:
    """The means that there are."""
    means = [
        f"{mca_title(name, results)} {percent(value)}" for name, value in results["mca"].items() if value is not None
    ]
    return f"mCA {'  '.join(means)} %" if means else "mCA -"


def mca_title(name: str, results: Mapping[str, Any]) -> str:
    """The name of a mean in the results' `mca`; of the one over all that was measured also what that is."""
    if name != MEASURED:
        return name
    names, few = results["corruption_accuracy"], results.get("severities", {})
    title = set_name(names)
    if title.count("+") >= _MOST_NAMED:
        title = counted(len(names), "corruption")
    return f"{name} ({with_severities(title, {one: few.get(one, SEVERITIES) for one in names})})"


def _print_selective(selective: Mapping[str, Any] | None) -> None:
    if selective is None:  # the results are of an earlier version
        return
    measures = {"aurc": "area under the risk-coverage curve", "risk_at_80_coverage": "risk at 80 % coverage"}
    for name, title in measures.items():
        console.print(
            f"{title}: clean {percent(selective['clean'][name])} %, corrupt "
            f"({selective['corruption_set']}) {percent(selective['corrupt'][name])} %",
            soft_wrap=True,
        )


def _print_temperature(scaling: Mapping[str, Any] | None) -> None:
    if scaling is None:
        return
    rms = scaling["rms_calibration_error"]
    console.print(
        f"with temperature {scaling['temperature']:.3f}, fitted on {counted(scaling['num_images'], 'held-out image')} "
        f"({scaling['images']}):\nRMS calibration error: clean {percent(rms['clean'])} %, corrupt "
        f"({rms['corruption_set']}) {percent(rms['corrupt'])} %",
        soft_wrap=True,
    )


def _print_classes(classes: Mapping[str, Any], parts: Mapping[str, str]) -> None:
    """The classes of the lowest accuracy, and the balanced accuracy where it differs from the accuracy.

    Args:
        classes: What `class_accuracy` of the results has.
        parts: The titles of its parts.
    """
    counts = [count for count in classes["num_images"] if count]
    lowest = "lowest " if len(counts) > NUM_LOWEST else ""
    for part, title in parts.items():
        console.print(f"{lowest}accuracy by class, {title}: {_lowest(classes, part)}")
    if counts and max(counts) > UNEVEN * min(counts):
        balanced = classes["balanced_accuracy"]
        shown = [f"{title} {percent(balanced[part])} %" for part, title in parts.items()]
        console.print(f"balanced accuracy: {', '.join(shown)}")


def _lowest(classes: Mapping[str, Any], part: str) -> str:
    """The classes of the lowest accuracy in a part of the results, and the number of their images if it is small."""
    names = classes.get("class_names") or [f"class {label}" for label in range(len(classes["num_images"]))]
    rows = zip(names, classes[part], classes["num_images"], strict=True)
    known = sorted((row for row in rows if row[1] is not None), key=lambda row: row[1])
    shown = []
    for name, accuracy, count in known[:NUM_LOWEST]:
        of_few = f" of {counted(count, 'image')}" if count < FEW_IMAGES else ""
        shown.append(f"{name} ({percent(accuracy)} %{of_few})")
    return ", ".join(shown) or "-"


def _print_ood(name: str, entry: Mapping[str, Any]) -> None:
    scores = [f"{score} {percent(entry[score]['auroc'])}" for score in SCORES if entry[score] is not None]
    rates = [f"{score} {percent(entry[score]['fpr_at_95_tpr'])}" for score in SCORES if entry[score] is not None]
    console.print(
        f"out of distribution, {name}, {counted(entry['num_other_images'], 'image')}: AUROC"
        f" {', '.join(scores) or '-'} %; FPR at "
        f"95 % TPR {', '.join(rates) or '-'} %",
        soft_wrap=True,
    )


def _print_protocols(results: dict[str, Any]) -> None:
    """A line for each of the results' `perturbations`, `fourier` and `adapted_batch_norm`."""
    if "perturbations" in results:
        entry = results["perturbations"]
        each = ", ".join(f"{name} {percent(value)}" for name, value in entry["flip_probability"].items())
        console.print(f"flip probability {percent(entry['mean_flip_probability'])} % ({each})", soft_wrap=True)
    if "fourier" in results:
        entry = results["fourier"]
        console.print(
            f"Fourier heat map, l2 norm {entry['norm']:g}, {counted(entry['num_images'], 'image')}: mean error "
            f"{percent(entry['mean_error'])} %, clean {percent(entry['clean_error'])} %",
            soft_wrap=True,
        )
    if "adapted_batch_norm" in results:
        entry = results["adapted_batch_norm"]
        console.print(
            f"with batch normalisation by batches of {entry['batch_size']}: clean accuracy "
            f"{percent(entry['clean_accuracy'])} %, {_mca_text(entry)}",
            soft_wrap=True,
        )


def percent(fraction: float | None, digits: int = 2) -> str:
    """A fraction in per cent; `-` for None, which stands where logits were not finite."""
    return "-" if fraction is None else f"{100 * fraction:.{digits}f}"


def print_images(folder: str, entry: Mapping[str, Any], num_all_classes: int) -> None:
    """A folder's entry of `image_folders`, see `other_images.summarise_images`."""
    if entry["num_unreadable"]:
        warn(
            f"{counted(entry['num_unreadable'], 'image file')} cannot be read;"
            f" {'it is' if entry['num_unreadable'] == 1 else 'they are'} left out."
        )
    console.print(
        f"{folder}: {counted(entry['num_images'], 'image')} of {counted(entry['num_classes'], 'class')}", soft_wrap=True
    )
    for name, which in (
        (
            "own_classes",
            f"among {'this' if entry['num_classes'] == 1 else 'these'} {counted(entry['num_classes'], 'class')} (as"
            " ImageNet-A and -R are published)",
        ),
        ("all_classes", f"among all {counted(num_all_classes, 'class')}"),
    ):
        accuracy, rms = entry[name]["accuracy"], entry[name]["rms_calibration_error"]
        console.print(f"accuracy {which} {percent(accuracy)} %, RMS calibration error {percent(rms)} %", soft_wrap=True)
    _print_classes(entry["class_accuracy"], {"own_classes": "among these", "all_classes": "among all"})
