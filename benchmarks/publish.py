"""python -m benchmarks.publish: put the model of a record's run into the package, as `fastmagn.load(NAME)` takes it.

    python -m benchmarks.publish NAME --run DIR/RECIPE/seedN --record DATE-NAME

The run is one of those that `python -m benchmarks.records DATE-NAME --add DIR` has kept. fastmagn/published gets its
weights, NAME.safetensors, their card, NAME.safetensors.md, and NAME.json: the run's folder in the record, and the run's
accuracies on the first 1,000 test images, which are measured here, in float32. The table of published models in
docs/export.md is written anew. A model of this name is replaced.
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

import fastmagn
from benchmarks import records
from benchmarks.equal_time import numbers_of
from benchmarks.measure import console
from fastmagn.config.command_line import OwnOptions
from fastmagn.config.eval_schema import EvalConfig
from fastmagn.config.schema import Config
from fastmagn.errors import InputError, check
from fastmagn.evaluation.run import evaluate_run
from fastmagn.evaluation.shown import percent
from fastmagn.evaluation.trained import MEASURES
from fastmagn.exporting.config import ExportConfig
from fastmagn.exporting.export import export
from fastmagn.machine.command import run_command
from fastmagn.machine.files import write_json, write_text
from fastmagn.models import published
from fastmagn.runs.paths import RESULTS
from fastmagn.runs.reading import read_config, read_results

PAGE = Path(__file__).parent.parent / "docs" / "export.md"
LICENCE = "Apache-2.0, like fastmagn"
FIRST_IMAGES = 1000
KEPT = ("num_images", "clean_accuracy", "corruption_accuracy", "corrupted_as")
# heading -> key of the numbers of a run, see `equal_time.numbers_of`
COLUMNS = {
    "clean": "clean_accuracy",
    "c15": "mca_c15",
    "c18": "mca_c18",
    "C-bar": "mca_cbar",
    "RMS calibration error, clean": "rms_clean",
    "corrupt": "rms_corrupt",
}
HEADER = f"| name | method | epochs | {' | '.join(COLUMNS)} |\n" + "| --- " * (3 + len(COLUMNS)) + "|\n"


def main(arguments: list[str]) -> int:
    """Publish the run's model, and write the table anew."""
    parser = OwnOptions("python -m benchmarks.publish", __doc__.splitlines()[0])
    parser.add_argument("name", help="the model's name, such as cifar10-small-magn_augmix")
    parser.add_argument("--run", type=Path, required=True, help="the run's folder, DIR/RECIPE/seedN")
    parser.add_argument("--record", required=True, help="the record in benchmarks/records that has this run")
    options = parser.parse_args(arguments)
    named = bool(re.fullmatch(r"[a-z0-9_-]+", options.name))
    check(named, "name", options.name, "lower-case letters, digits, - and _, such as cifar10-small-magn_augmix")
    publish(options.name, options.run.resolve(), options.record)
    write_text(PAGE, with_table(PAGE.read_text()))
    console.print(f"written: {PAGE}", soft_wrap=True)
    return 0


def publish(name: str, run: Path, record: str) -> None:
    """Measure the run on its first test images, and write its files to fastmagn/published.

    Raises:
        InputError: The run is not in the record, or cannot be measured or exported.
    """
    kept = records.RECORDS / record / run.parent.name / run.name
    config = read_config(run)
    if not (kept / RESULTS).is_file():
        raise InputError(
            f"{kept}: has no {RESULTS}; python -m benchmarks.records {record} --add DIR keeps a comparison."
        )
    theirs, ours = read_results(kept / RESULTS), read_results(run / RESULTS)
    if any(theirs[field] != ours[field] for field in MEASURES):
        raise InputError(f"{run}: is not the run of {kept}: their results differ.")
    measured = evaluate_run(run, on_first_images(config))
    out = published.PUBLISHED / f"{name}{published.SUFFIX}"
    place = str(kept.relative_to(records.RECORDS))
    write_json(out.with_suffix(".json"), {"record": place, "first_images": {field: measured[field] for field in KEPT}})
    export(ExportConfig(run=run, format="safetensors", out=out, licence=LICENCE, record=f"benchmarks/records/{place}"))


def on_first_images(config: Config) -> Config:
    """The run's configuration, to measure c15 of its first test images, corrupted here, in float32."""
    of_weights = {name: getattr(config.eval, name) for name in ("weights", "test_time_flip", "rse_draws")}
    section = EvalConfig(corruption_set="c15", num_images=FIRST_IMAGES, **of_weights)
    return dataclasses.replace(config, eval=section, train=dataclasses.replace(config.train, amp="float32"))


def with_table(page: str) -> str:
    """The page with the table of all published models, in %, in place of its own."""
    rows = "".join(_row(name) for name in fastmagn.list_models())
    return re.sub(rf"{re.escape(HEADER)}(\|.*\n)*", lambda _: HEADER + rows, page)


def _row(name: str) -> str:
    results = read_results(records.RECORDS / about(name)["record"] / RESULTS)
    numbers = numbers_of(results)
    cells = [f"`{results['config']['method']}`", str(numbers["epochs"])]
    cells += [percent(numbers[key], 1) for key in COLUMNS.values()]
    return f"| `{name}` | {' | '.join(cells)} |\n"


def about(name: str) -> dict[str, Any]:
    """NAME.json: `record`, the run's folder in benchmarks/records; and `first_images`, a part of a results.json."""
    return read_results(published.PUBLISHED / f"{name}.json")


if __name__ == "__main__":
    run_command(main)
