"""RobustBench's shape: the keys and texts of its files, its order, and what cannot be an entry."""

import csv
import json

import pytest

from fastmagn import report
from fastmagn.errors import InputError
from tests.helpers.report_folders import C19, rewrite, with_few, write_run

# The keys of the files of its model_info folder, and those that only some of them have.
ALWAYS = {
    *("link", "name", "authors", "additional_data", "number_forward_passes", "dataset", "venue", "architecture"),
    *("eps", "clean_acc", "reported", "corruptions_acc"),
}
SOMETIMES = {"corruptions_mce", "footnote"}


def entries(out, data: str = "cifar10") -> dict[str, dict]:
    folder = out / "model_info" / data / "corruptions"
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def test_entries_table_and_cells(tmp_path, capsys):
    means = {name: 0.5 if "noise" in name else 0.8 for name in C19}
    published = {"eval.corrupted_dir": "CIFAR-10-C"}
    good = write_run(tmp_path / "good", means, method="rse", clean=0.91239, fields=published)
    flipped = {"eval.test_time_flip": True, "model.weights": "dir/start.pt"}
    weak = write_run(tmp_path / "weak", 0.6, fields=flipped)
    rewrite(weak, lambda results: results.update(num_images=1000))
    out = tmp_path / "bench"
    assert report.main([str(weak), str(good), "--out", str(out), "--format", "robustbench"]) == 0
    found = entries(out)
    assert list(found) == ["rse_resnet18_seed0", "standard_resnet18_seed0"]
    for info in found.values():
        assert info.keys() >= ALWAYS
        assert info.keys() <= ALWAYS | SOMETIMES
    first, second = found.values()
    assert (first["clean_acc"], first["corruptions_acc"]) == ("91.24", "74.0")  # 12 of 0.8 and 3 of 0.5
    assert (first["number_forward_passes"], first["additional_data"], first["dataset"]) == (10, False, "cifar10")
    assert "footnote" not in first
    assert (second["number_forward_passes"], second["additional_data"]) == (2, None)
    assert second["footnote"] == (
        "Measured on 1,000 of 10,000 test images. The corruptions were made by fastmagn, with the published parameters."
        " Training started from the weights start.pt."
    )
    table = (out / "leaderboard.md").read_text()
    assert "| 1 | rse_resnet18_seed0 | RSE | 91.24% | 74.0% | ResNet-18 | Unpublished |" in table
    assert "| 2 | standard_resnet18_seed0 |" in table
    names, severities, *rows = csv.reader(
        (out / "model_info" / "cifar10" / "corruptions" / "unaggregated_results.csv").read_text().splitlines()
    )
    accuracy = json.loads((good / "results.json").read_text())["corruption_accuracy"]
    for name, severity, value in zip(names[1:], severities[1:], rows[0][1:], strict=True):
        assert float(value) == accuracy[name][int(severity) - 1]
    assert len(names) == 76
    assert "fill in link, name, authors, venue" in " ".join(capsys.readouterr().out.split())


def test_imagenet_c_is_known_by_its_mce(tmp_path):
    run = write_run(tmp_path / "run", 0.4, data="folder", network="resnet50", fields={"eval.corrupted_dir": "IN-C"})
    rewrite(run, lambda results: results.update(mce_alexnet=0.76512, num_images=5000))
    assert report.main([str(run), "--out", str(tmp_path / "bench"), "--format", "robustbench"]) == 0
    (info,) = entries(tmp_path / "bench", "imagenet").values()
    assert (info["dataset"], info["corruptions_mce"], info["corruptions_acc"]) == ("imagenet", "76.51", "40.0")
    assert info["footnote"] == "Measured on 5,000 of 50,000 test images."


@pytest.mark.parametrize("made_as", [None, {"published": "CIFAR-10-C", "version": 1, "jpeg_quality": None}], ids=bool)
def test_the_footnote_tells_a_made_folder_from_a_published_one(tmp_path, made_as):
    run = write_run(tmp_path / "run", fields={"eval.corrupted_dir": "SOME-C"})
    rewrite(run, lambda results: results.update(corrupted_as=made_as))
    report.main([str(run), "--out", str(tmp_path / "bench"), "--format", "robustbench"])
    (info,) = entries(tmp_path / "bench").values()
    expected = "The corruptions were made by fastmagn, with the published parameters."
    assert info.get("footnote") == (expected if made_as else None)


def test_what_cannot_be_an_entry_is_named(tmp_path, capsys):
    digits = write_run(tmp_path / "digits", data="digits")
    few = write_run(tmp_path / "few", {"fog": 0.7})
    three = write_run(tmp_path / "three", fields={"eval.severities": "1,3,5"})
    with_few(three, {name: [1, 3, 5] for name in C19})
    whole = [write_run(tmp_path / f"seed{i}", 0.7, fields={"optim.lr": 0.1 + i}) for i in range(2)]
    out = tmp_path / "bench"
    report.main([*map(str, (digits, few, three, *whole)), "--out", str(out), "--format", "robustbench"])
    said = capsys.readouterr().err
    assert f"{digits}: digits is not a data set of RobustBench (cifar10, cifar100, imagenet). Left out." in said
    remedy = "lacks a corruption or a severity of c15. Measure it with --eval.corruption_set c15"
    assert f"{few}: {remedy}. Left out." in said
    assert f"{three}: {remedy} --eval.severities 1,2,3,4,5. Left out." in said
    assert list(entries(out)) == ["standard_resnet18_seed0", "standard_resnet18_seed0__2"]
    report.main([str(whole[0]), "--out", str(out), "--format", "robustbench"])  # an older one is replaced
    assert list(entries(out)) == ["standard_resnet18_seed0"]
    with pytest.raises(InputError, match="no run can be an entry of RobustBench"):
        report.main([str(digits), "--out", str(tmp_path / "none"), "--format", "robustbench"])
    (out / "mine.txt").write_text("x")
    with pytest.raises(InputError, match=r"holds mine\.txt, which does not belong to the report there"):
        report.main([str(whole[0]), "--out", str(out), "--format", "robustbench"])


def test_another_format_is_refused(tmp_path):
    with pytest.raises(InputError, match="format: got 'table'; expected"):
        report.main([str(tmp_path), "--out", str(tmp_path / "out"), "--format", "table"])
