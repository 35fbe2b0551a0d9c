"""The published models: by name, with the accuracies that their files and the documentation say.

What `python -m benchmarks.publish` writes is tested on a double, a short run on the digits; the models themselves are
measured on CIFAR-10.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import fastmagn
from benchmarks import publish, records
from fastmagn.data import load_images
from fastmagn.data.image_set import ImageSet
from fastmagn.errors import InputError
from fastmagn.models import build_model, published
from fastmagn.models.pretrained import load_pretrained
from fastmagn.runs.reading import read_results
from tests.helpers.commands import call

NAMES = fastmagn.list_models()
DOUBLE, RECORD, RUN = "digits-double", "2026-01-31-double", "compared/magn_augmix/seed0"
CELLS = (("gaussian_noise", 3), ("fog", 3), ("jpeg_compression", 5))
# Both sides compute in float32. Another CPU, or another batch size, sums in another order, which may change the class
# of an image whose two best are equal to six digits.
MAX_OTHER_IMAGES = 2


@pytest.fixture(scope="module")
def published_once(undisturbed_default, tmp_path_factory) -> Path:
    """A folder in which a short run on the digits, RUN, was kept as a record and published."""
    folder = tmp_path_factory.mktemp("double")
    run_dir = shutil.copytree(undisturbed_default, folder / RUN)
    kept = folder / "records" / RECORD / "magn_augmix" / "seed0"
    kept.mkdir(parents=True)
    shutil.copy(run_dir / "results.json", kept)
    (folder / "page.md").write_text(f"Before.\n\n{publish.HEADER}| `gone` | `at` |\n\nAfter.\n")
    with pytest.MonkeyPatch.context() as monkeypatch:
        work_in(folder, monkeypatch)
        assert publish.main([DOUBLE, "--run", str(run_dir), "--record", RECORD]) == 0
    return folder


def work_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published models, records and the page are those of the folder."""
    monkeypatch.setattr(published, "PUBLISHED", folder / "published")
    monkeypatch.setattr(records, "RECORDS", folder / "records")
    monkeypatch.setattr(publish, "PAGE", folder / "page.md")
    monkeypatch.setattr(publish, "FIRST_IMAGES", 40)


@pytest.fixture
def double(published_once, tmp_path, monkeypatch) -> Path:
    """The current folder, a copy of that one, in which the double is the only published model."""
    folder = shutil.copytree(published_once, tmp_path / "double")
    work_in(folder, monkeypatch)
    monkeypatch.chdir(folder)
    return folder


def check_accuracies(name: str, image_set: ImageSet) -> None:
    """Those of NAME.json, which the run's evaluation measured, are those of the loaded file on the same images."""
    said = publish.about(name)["first_images"]
    count = said["num_images"]
    images_u8, labels = np.asarray(image_set.test_images_u8[:count]), image_set.test_labels[:count]
    classifier = fastmagn.load(name, "cpu")
    wanted = {("clean", 0): said["clean_accuracy"]}
    wanted |= {(name, severity): said["corruption_accuracy"][name][severity - 1] for name, severity in CELLS}
    for (corruption, severity), accuracy in wanted.items():
        shown = fastmagn.corrupt(images_u8, corruption, severity) if severity else images_u8
        correct = np.count_nonzero(classifier.predict(shown).labels == labels)
        assert abs(correct - count * accuracy) <= MAX_OTHER_IMAGES + 1e-6, (corruption, severity)


def check_record(name: str) -> None:
    """The numbers in the file's header are those of the record's results."""
    results = read_results(records.RECORDS / publish.about(name)["record"] / "results.json")
    said = fastmagn.load(name, "cpu").info
    assert said.results
    assert all(results[field] == value for field, value in said.results.items())
    assert (said.method, said.network) == (results["config"]["method"], results["config"]["model"]["name"])


@pytest.mark.data
@pytest.mark.parametrize("name", NAMES)
def test_a_published_model_is_as_accurate_as_its_files_say(name, data_dir):
    check_accuracies(name, load_images("cifar10", data_dir))


@pytest.mark.parametrize("name", NAMES)
def test_a_published_model_is_that_of_its_record(name):
    check_record(name)
    file = published.published_file(name)
    assert file is not None
    assert file.stat().st_size < 2e6, "the wheel holds it"
    card = file.with_name(f"{file.name}.md").read_text()
    assert card.startswith(f"# {name}\n")
    assert "Fill in" not in card


def test_the_models_that_readme_and_the_records_name_are_published():
    assert {"cifar10-small-standard", "cifar10-small-magn", "cifar10-small-magn_augmix"} <= set(NAMES)


def test_the_documentation_has_the_published_models_and_their_numbers():
    page = publish.PAGE.read_text()
    assert publish.HEADER in page
    assert publish.with_table(page) == page


def test_a_run_is_published_by_one_command(double, published_once):
    assert fastmagn.list_models() == [DOUBLE]
    files = {f"{DOUBLE}.safetensors", f"{DOUBLE}.safetensors.md", f"{DOUBLE}.json"}
    assert {path.name for path in (double / "published").iterdir()} == files
    check_accuracies(DOUBLE, load_images("digits", "data"))
    check_record(DOUBLE)
    card = (double / "published" / f"{DOUBLE}.safetensors.md").read_text()
    for wanted in (
        f"# {DOUBLE}\n",
        f'fastmagn.load("{DOUBLE}").predict(images)',
        f"metrics: `benchmarks/records/{RECORD}/magn_augmix/seed0`.",
        "## Licence of the weights\n\nApache-2.0, like fastmagn.\n",
    ):
        assert wanted in card, wanted
    assert "Fill in" not in card
    assert str(published_once) not in card
    results = json.loads((double / RUN / "results.json").read_text())
    clean, c15 = (f"{100 * value:.1f}" for value in (results["clean_accuracy"], results["mca"]["c15"]))
    page = (double / "page.md").read_text()
    assert page.startswith("Before.\n\n| name |")
    assert page.endswith("|\n\nAfter.\n")
    assert f"\n| `{DOUBLE}` | `magn_augmix` | 2 | {clean} | {c15} | - | - | " in page
    assert "gone" not in page


def test_what_cannot_be_published_is_one_line(double):
    before = {path: path.read_bytes() for path in (double / "published").iterdir()}
    arguments = [DOUBLE, "--run", RUN, "--record"]
    with pytest.raises(InputError, match=r"^name: got '\.\./x'; expected lower-case letters, digits, - and _"):
        publish.main(["../x", *arguments[1:], RECORD])
    with pytest.raises(InputError, match=r"seed0: has no results\.json; python -m benchmarks\.records other --add DIR"):
        publish.main([*arguments, "other"])
    results = json.loads((double / RUN / "results.json").read_text())
    (double / RUN / "results.json").write_text(json.dumps(results | {"clean_accuracy": 0.0}))
    with pytest.raises(InputError, match=r"seed0: is not the run of .*: their results differ\.$"):
        publish.main([*arguments, RECORD])
    assert {path: path.read_bytes() for path in (double / "published").iterdir()} == before


def test_a_name_is_loaded_measured_and_trained_on(double, capsys):
    digits = load_images("digits", "data")
    images_u8, labels = np.asarray(digits.test_images_u8[:8]), digits.test_labels[:8]
    by_name, of_run = fastmagn.load(DOUBLE, "cpu"), fastmagn.load(RUN, "cpu")
    np.testing.assert_array_equal(by_name.predict(images_u8).probabilities, of_run.predict(images_u8).probabilities)
    short = ["--device", "cpu", "--eval.num_images", "8", "--eval.corruption_set", "c15"]
    measured = call(["fastmagn.evaluate", "--weights", DOUBLE, "--data.name", "digits", *short], capsys).stdout
    assert f"weights from {DOUBLE}: 47 of 47 tensors" in measured
    by_command = read_results(double / f"{DOUBLE}.evaluation.json")
    by_function = fastmagn.evaluate_robustness(by_name, images_u8, labels, progress=False)
    for field in ("clean_accuracy", "corruption_accuracy"):
        assert by_function[field] == by_command[field]
    network = build_model("resnet_small", num_classes=3, mean=(0.0,) * 3, std=(1.0,) * 3).network
    assert "new for 3 classes: head.weight, head.bias" in load_pretrained(network, Path(DOUBLE), 3)


def test_logits_are_those_of_the_model_on_the_images_device(double):
    classifier = fastmagn.load(DOUBLE, "cpu")
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0), requires_grad=True)
    logits = classifier(images)
    assert (logits.shape, logits.dtype, logits.device, logits.requires_grad) == (
        (3, 10),
        torch.float32,
        images.device,
        False,
    )
    np.testing.assert_array_equal(logits.softmax(dim=1).numpy(), classifier.predict(images).probabilities)
    with pytest.raises(InputError, match=r"^images: got floats in .*; expected \[0, 1\]"):
        classifier(images + 1)


def test_names_are_listed_sorted_by_pattern(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "PUBLISHED", tmp_path / "published")
    assert fastmagn.list_models() == []
    (tmp_path / "published").mkdir()
    for name in ("b-magn", "a-magn_augmix", "c-standard"):
        for suffix in (".safetensors", ".safetensors.md", ".json"):
            (tmp_path / "published" / f"{name}{suffix}").touch()
    assert fastmagn.list_models() == ["a-magn_augmix", "b-magn", "c-standard"]
    assert fastmagn.list_models("*magn*") == ["a-magn_augmix", "b-magn"]
    assert fastmagn.list_models("?-[sx]*") == ["c-standard"]
    assert fastmagn.list_models("MAGN") == []


def test_what_is_there_is_loaded_before_a_published_model(double):
    (double / DOUBLE).mkdir()
    with pytest.raises(InputError, match=rf"^{DOUBLE}: is not a run folder"):
        fastmagn.load(DOUBLE)
    (double / DOUBLE).rmdir()
    assert fastmagn.load(DOUBLE).info.data == "digits"


def test_an_unknown_name_is_one_line_with_the_names(double):
    published_names = f"a published model ({DOUBLE})."
    for unknown, hint in (("digits-duoble", f" Did you mean '{DOUBLE}'?"), ("runs/no", "")):
        with pytest.raises(InputError) as error:
            fastmagn.load(unknown)
        expected = "no such folder; expected the folder of a run, a file, or"
        assert str(error.value) == f"{unknown}: {expected} {published_names}{hint}"
    network = build_model("resnet_small", num_classes=3, mean=(0.0,) * 3, std=(1.0,) * 3).network
    with pytest.raises(InputError) as error:
        load_pretrained(network, Path("digits-duoble"), 3)
    assert str(error.value).endswith(f"*.tar, or {published_names} Did you mean '{DOUBLE}'?")
    shutil.rmtree(published.PUBLISHED)
    with pytest.raises(InputError, match=r"a published model \(none is there\)\.$"):
        fastmagn.load(DOUBLE)
