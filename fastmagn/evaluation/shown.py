"""Results as a terminal shows them."""

from typing import Any

from rich.table import Table

from fastmagn.machine.console import console


def print_results(results: dict[str, Any], title: str) -> None:
    """The corruption table and the summary of a results.json, in per cent."""
    table = Table(title=title, caption="accuracy in %, severity 1 to 5")
    table.add_column("corruption")
    for severity in range(1, 6):
        table.add_column(str(severity), justify="right")
    table.add_column("mean", justify="right")
    for name, accuracies in results["corruption_accuracy"].items():
        mean = sum(accuracies) / len(accuracies)
        table.add_row(name, *(f"{100 * accuracy:.1f}" for accuracy in (*accuracies, mean)))
    console.print(table)
    rms = results["rms_calibration_error"]
    mca = "  ".join(f"{name} {100 * value:.2f}" for name, value in results["mca"].items() if value is not None)
    console.print(f"clean accuracy {100 * results['clean_accuracy']:.2f} %")
    console.print(f"mCA {mca} %")
    if results.get("mce_alexnet") is not None:
        console.print(f"mCE normalised by AlexNet's {100 * results['mce_alexnet']:.2f} %")
    console.print(
        f"RMS calibration error: clean {100 * rms['clean']:.2f} %, corrupt ({rms['corruption_set']}) "
        f"{100 * rms['corrupt']:.2f} %"
    )
