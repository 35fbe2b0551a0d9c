"""Parquet and Arrow files: the same images and batches as those of the folder they were made of; damaged ones."""

import json
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from fastmagn.config.schema import DataConfig
from fastmagn.data import load_data, make_source, split_validation
from fastmagn.data.files import arrow_rows, content
from fastmagn.data.files.shards import TRAIN, find_shards
from fastmagn.errors import InputError
from fastmagn.evaluation.corrupt_config import CorruptConfig
from fastmagn.evaluation.corrupted_set import load_source_images
from tests.helpers.photo_folders import CLASSES, make_photo_folder

pa = pytest.importorskip("pyarrow", reason="needs the extra hf")
import pyarrow.parquet as pq  # noqa: E402

from tests.helpers.tables import FEATURES, make_tables, table, write  # noqa: E402

SIDE = 32
LAYOUTS = ["parquet", "disk", "file", "compressed"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(content, "_SETTLED_S", -3600.0)
    return tmp_path / "cache" / "fastmagn"


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return make_photo_folder(tmp_path_factory.mktemp("photos"), 32, 9)


def config(folder: Path | str, name: str = "hf", **fields) -> DataConfig:
    return DataConfig(name=name, dir=Path(folder), image_size=SIDE, num_workers=2, **fields)


def batches(data: DataConfig, share: slice) -> list[torch.Tensor]:
    part, _ = split_validation(load_data(data), 0, 0)
    source = make_source(part, batch_size=8, seed=5, device=torch.device("cpu"), share=share)
    return [batch.images for batch in source.batches(1)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_is_the_folders_set(photos, tmp_path, layout, cache):
    tables = make_tables(tmp_path / "t", photos, layout)
    ours, theirs = load_data(config(tables)), load_data(config(photos, "folder"))
    assert ours.class_names == theirs.class_names == CLASSES
    np.testing.assert_array_equal(ours.train_labels, theirs.train_labels)
    np.testing.assert_array_equal(ours.test_labels, theirs.test_labels)
    np.testing.assert_array_equal(np.asarray(ours.test_images_u8), np.asarray(theirs.test_images_u8))
    expected = batches(config(photos, "folder"), slice(0, 8))
    halves = [batches(config(tables), share) for share in (slice(0, 4), slice(4, 8))]
    for true, *parts in zip(expected, *halves, strict=True):
        assert torch.equal(torch.cat(parts), true)
    converted = list((cache / "tables").glob("*.arrow")) if (cache / "tables").exists() else []
    assert len(converted) == (4 if layout in ("parquet", "compressed") else 0)
    times = [file.stat().st_mtime_ns for file in converted]
    assert load_data(config(tables)).fingerprint == ours.fingerprint
    assert [file.stat().st_mtime_ns for file in converted] == times


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_relative_folder_is_the_same_set(photos, tmp_path, layout, monkeypatch):
    expected = load_data(config(make_tables(tmp_path / "t", photos, layout)))
    monkeypatch.chdir(tmp_path)
    found = load_data(config("t"))
    assert found.fingerprint == expected.fingerprint
    np.testing.assert_array_equal(np.asarray(found.test_images_u8), np.asarray(expected.test_images_u8))


def test_a_changed_parquet_is_converted_anew(photos, tmp_path):
    tables = make_tables(tmp_path / "t", photos, "parquet")
    before = load_data(config(tables)).fingerprint
    images = [path.read_bytes() for path in sorted((photos / "val").rglob("*.jpg"))]
    write(tables / "data" / "train-00001-of-00002.parquet", table(images, [2] * len(images)))
    after = load_data(config(tables))
    assert after.train_labels[16:].tolist() == [2] * 9
    assert after.fingerprint != before


def both(root: Path, content: pa.Table, suffix: str = ".arrow") -> Path:
    for split in ("train", "test"):
        write(root / f"{split}{suffix}", content)
    return root


@pytest.mark.parametrize("suffix", [".arrow", ".parquet"])
def test_columns_are_found_or_named_and_names_are_classes(photos, tmp_path, suffix):
    images = [path.read_bytes() for path in sorted((photos / "val").rglob("*.jpg"))][:4]
    plain = pa.table({"jpg": images, "kind": ["owl", "ape", "owl", "bat"], "id": [1, 2, 3, 4]})
    both(tmp_path, plain, suffix)
    with pytest.raises(
        InputError, match=rf"label_column: .*{suffix}: no column is named label or labels; .*: jpg, kind, id"
    ):
        load_data(config(tmp_path))
    images = load_data(config(tmp_path, label_column="kind"))
    assert images.class_names == ("ape", "bat", "owl")
    assert images.train_labels.tolist() == [2, 0, 2, 1]
    with pytest.raises(InputError, match=r"data\.image_column: got 'png'; expected a column of .*: jpg, kind, id"):
        load_data(config(tmp_path, label_column="kind", image_column="png"))


def test_labels_are_names_in_both_splits(photos, tmp_path):
    """The test split has only names that are numbers too."""
    image = next((photos / "val" / "ape").iterdir()).read_bytes()
    write(tmp_path / "train.parquet", table([image] * 4, ["01", "2", "7", "A"], None))
    write(tmp_path / "test.parquet", table([image] * 3, ["7", "01", "2"], None))
    images = load_data(config(tmp_path))
    assert images.class_names == ("01", "2", "7", "A")
    assert images.train_labels.tolist() == [0, 1, 2, 3]
    assert images.test_labels.tolist() == [2, 0, 1]


def classes(*names: str) -> dict:
    return FEATURES | {"label": {"names": list(names), "_type": "ClassLabel"}}


NAMED = classes("bird", "cat", "dog")
SPLITS = {  # train's labels and features, test's; the classes, train's labels, test's
    "fewer": ([0, 1, 2], NAMED, [0, 1], classes("cat", "dog"), ["bird", "cat", "dog"], [0, 1, 2], [1, 2]),
    "names like numbers": ([0, 1], classes("1", "0"), [0, 1], classes("0", "1"), ["1", "0"], [0, 1], [1, 0]),
    "texts in train": (["dog", "cat"], None, [0, 1, 0], classes("dog", "cat"), ["cat", "dog"], [1, 0], [1, 0, 1]),
    "more names, not used": ([0, 1], classes("a", "b"), [2, 1], classes("0", "a", "b"), ["a", "b"], [0, 1], [1, 0]),
    "no names in train": ([0, 1, 2], None, [2, 0], classes("cat", "dog", "owl"), ["0", "1", "2"], [0, 1, 2], [2, 0]),
}


@pytest.mark.parametrize("case", SPLITS)
def test_test_images_keep_the_classes_that_their_own_features_name(photos, tmp_path, case):
    train, of_train, test, of_test, names, train_labels, test_labels = SPLITS[case]
    image = next((photos / "val" / "ape").iterdir()).read_bytes()
    write(tmp_path / "train.parquet", table([image] * len(train), train, of_train))
    write(tmp_path / "test.parquet", table([image] * len(test), test, of_test))
    images = load_data(config(tmp_path))
    assert images.class_names == tuple(names)
    assert images.train_labels.tolist() == train_labels
    assert images.test_labels.tolist() == test_labels


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            [0, 1, 2],
            r"test\.parquet/row 2: its label is 'owl'; expected a class of .*: bird, cat, dog\.",
        ),
        ([0, -1], r"test\.parquet/row 1: its label is '-1'; expected 0\.\.2\."),
    ],
)
def test_a_test_image_of_a_class_that_train_lacks_is_refused(photos, tmp_path, labels, message):
    image = next((photos / "val" / "ape").iterdir()).read_bytes()
    write(tmp_path / "train.parquet", table([image] * 3, [0, 1, 2], NAMED))
    write(tmp_path / "test.parquet", table([image] * len(labels), labels, classes("cat", "dog", "owl")))
    with pytest.raises(InputError, match=message):
        load_data(config(tmp_path))


def test_the_test_images_classes_are_found_in_classes_txt(photos, tmp_path):
    image = next((photos / "val" / "ape").iterdir()).read_bytes()
    (tmp_path / "classes.txt").write_text("bird\ncat\ndog\n")
    write(tmp_path / "train.parquet", table([image] * 3, [0, 1, 2], None))
    write(tmp_path / "test.parquet", table([image] * 2, [0, 1], classes("cat", "dog")))
    assert load_data(config(tmp_path)).test_labels.tolist() == [1, 2]


def test_broken_rows_are_counted(photos, tmp_path):
    image = next((photos / "val" / "ape").iterdir()).read_bytes()
    both(tmp_path, table([image, None, b"no image", image], [0, 1, 2, 1]))
    with pytest.warns(
        UserWarning, match=r"2 of 4 image files cannot be read: .*train\.arrow/row 1 \(cannot identify"
    ) as told:
        images = load_data(config(tmp_path))
    assert images.train_labels.tolist() == [0, 1]
    assert any("classes have no training image: cat" in str(each.message) for each in told) or len(told) >= 2


def with_column_twice(content: pa.Table, name: str) -> pa.Table:
    return content.append_column(content.schema.field(name), content.column(name))


CASES = {
    "float labels": (
        lambda image: table([image], [0.5]),
        r"column 'label' \(data\.label_column\) is double; expected int",
    ),
    "pixels": (
        lambda image: pa.table({"image": [[1, 2]], "label": [1]}).replace_schema_metadata(
            table([], []).schema.metadata
        ),
        r"the column 'image' \(data\.image_column\) is list<.*; expected encoded images",
    ),
    "no label": (
        lambda image: table([image, image], [0, None]),
        r"row 1 has no label; expected one in the column 'label'",
    ),
    "range": (lambda image: table([image], [3]), r"train\.\w+/row 0: its label is '3'; expected 0\.\.2"),
    "unnamed": (
        lambda image: table([image], [0], {**FEATURES, "other": FEATURES["label"]}),
        r"data\.label_column: .*: columns label, other may be meant; expected one",
    ),
    "texts": (
        lambda image: pa.table({"image": ["a.jpg"], "label": [0]}),
        r"data\.image_column: .*: no column holds encoded images \(binary, or a struct with a field bytes\)",
    ),
    "twice": (
        lambda image: table([image], [0], FEATURES | {"label": {"names": ["a", "b", "a"], "_type": "ClassLabel"}}),
        r"the features of 'label' name classes twice: a; expected each once",
    ),
    "two columns of images": (
        lambda image: with_column_twice(table([image], [0]), "image"),
        r"data\.image_column: got 'image'; expected a name that one column of .* has, not 2: image, label, image\.",
    ),
    "two columns of labels": (
        lambda image: with_column_twice(table([image], [0]), "label"),
        r"data\.label_column: got 'label'; expected a name that one column of .* has, not 2: image, label, label\.",
    ),
    "no rows": (lambda image: table([], pa.array([], pa.int64())), r"has no rows; expected images"),
}


@pytest.mark.parametrize("suffix", [".arrow", ".parquet"])
@pytest.mark.parametrize("case", CASES)
def test_a_wrong_table_is_one_line(photos, tmp_path, case, suffix):
    make, message = CASES[case]
    both(tmp_path, make(next((photos / "val" / "ape").iterdir()).read_bytes()), suffix)
    with pytest.raises(InputError, match=message) as raised:
        load_data(config(tmp_path))
    assert "\n" not in str(raised.value)
    assert f"{tmp_path}/train{suffix}" in str(raised.value)  # not what it was converted to


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("damage", ["truncated", "zeros", "noise"])
def test_a_damaged_file_is_one_line(photos, tmp_path, layout, damage):
    """Or, if only pixels are hit, images that are counted as broken."""
    tables = make_tables(tmp_path / "t", photos, layout)
    file = sorted(tables.rglob("*train*/*.arrow" if layout != "parquet" else "*train*.parquet"))[0]
    whole = file.read_bytes()
    spoilt = {
        "truncated": whole[: len(whole) // 3],
        "zeros": whole[:8] + bytes(2000) + whole[2008:],
        "noise": whole[:-600] + np.random.default_rng(0).bytes(600),
    }[damage]
    file.write_bytes(spoilt)
    said = ""
    try:
        np.asarray(load_data(config(tables)).train_images_u8)
    except InputError as error:
        said = str(error)
    assert re.fullmatch(r"|.* cannot be read as parquet or Arrow .*|.* cannot be converted .*|.*: 16 of 16 .*", said)
    assert said or damage != "truncated"


@pytest.mark.parametrize("layout", ["parquet", "compressed"])
def test_a_bomb_does_not_fill_the_disk(tmp_path, layout, cache, monkeypatch):
    """Rows of zeros, which shrink to a thousandth; nothing of them is left in the cache."""
    monkeypatch.setattr("fastmagn.data.files.arrow_rows._SMALL_BYTES", 1 << 20)
    bomb = table([bytes(1 << 18)] * 64, [0] * 64)
    suffix = ".parquet" if layout == "parquet" else ".arrow"
    for split in ("train", "test"):
        path = tmp_path / f"{split}{suffix}"
        if layout == "parquet":
            pq.write_table(bomb, path, compression="zstd")
        else:
            write(path, bomb, "zstd")
        assert path.stat().st_size < 1 << 15
    with pytest.raises(InputError, match=r"train\.\w+: unpacks to more than [\d,]+ bytes; expected encoded images"):
        load_data(config(tmp_path))
    assert [file.name for file in (cache / "tables").iterdir()] == []


PARQUET = {  # the files that are there; which are used, or the refusal
    "two sizes": (
        ["00000-of-00001", "00000-of-00002", "00001-of-00002"],
        r"train-00000-of-00001\.parquet and train-00000-of-00002\.parquet are not of one set of files; .*train_shards",
    ),
    "beside a single file": (["", "00000-of-00001"], r"are not of one set of files"),
    "hashes": (["00000-of-00002-6b2a0c8ad9e3f112", "00001-of-00002-0c8ad9e3f1126b2a"], None),
    "one hash of three": (
        ["00000-of-00003-6b2a0c8ad9e3f112"],
        r"2 of 3 files missing: number 1, 2 beside train-00000-of-00003-6b2a0c8ad9e3f112\.parquet",
    ),
    "two hashes of one number": (
        ["00000-of-00002-6b2a0c8ad9e3f112", "00000-of-00002-aaaa0c8ad9e3f112", "00001-of-00002-6b2a0c8ad9e3f112"],
        r"are not of one set of files",
    ),
    "two languages": (["de-00000-of-00001", "en-00000-of-00002", "en-00001-of-00002"], None),
}


@pytest.mark.parametrize("case", PARQUET)
def test_files_that_say_of_how_many_they_are_are_one_whole_set(tmp_path, case):
    endings, message = PARQUET[case]
    names = [f"train-{ending}.parquet" if ending else "train.parquet" for ending in endings]
    for name in names:
        (tmp_path / name).touch()
    if message is None:
        assert find_shards(tmp_path, TRAIN, (".parquet",), None, "data.train_shards") == names
        return
    with pytest.raises(InputError, match=message):
        find_shards(tmp_path, TRAIN, (".parquet",), None, "data.train_shards")


def test_only_what_was_saved_last_is_read(tmp_path):
    """As `save_to_disk` leaves a folder that it has written twice: 1 file, then 2, which state.json names."""
    folder = tmp_path / "train"
    folder.mkdir()
    last = [f"data-{number:05}-of-00002.arrow" for number in range(2)]
    for name in ["data-00000-of-00001.arrow", *last]:
        (folder / name).touch()
    state = folder / "state.json"
    state.write_text(json.dumps({"_data_files": [{"filename": name} for name in last], "_split": "train"}))
    found = find_shards(tmp_path, TRAIN, (".parquet", ".arrow"), None, "data.train_shards")
    assert found == [f"train/{name}" for name in last]
    (folder / last[1]).unlink()
    with pytest.raises(InputError, match=r"state\.json: names 1 file that is not beside it: .*data-00001-of-00002"):
        find_shards(tmp_path, TRAIN, (".arrow",), None, "data.train_shards")
    (tmp_path / "other.arrow").touch()
    for text in ('{"_data_files": [{"filename": "../other.arrow"}]}', '{"_data_files": [1]}', "{}", "[", ""):
        state.write_text(text)
        with pytest.raises(InputError, match=r"state\.json: .*expected what save_to_disk writes"):
            find_shards(tmp_path, TRAIN, (".arrow",), None, "data.train_shards")


def test_a_name_on_the_hub_is_loaded_by_datasets(photos, tmp_path, monkeypatch, capsys):
    """A stand-in for `datasets`, which needs a network; the next tests run the library itself on a folder."""
    tables = make_tables(tmp_path / "t", photos, "disk")
    splits = {
        name: types.SimpleNamespace(
            builder_name="parquet", cache_files=[{"filename": str(file)} for file in sorted((tables / split).iterdir())]
        )
        for name, split in (("train", "train"), ("test", "train"), ("validation", "validation"))
    }
    fake = types.SimpleNamespace(load_dataset=lambda name: {"owner/name": splits}[name])
    monkeypatch.setitem(sys.modules, "datasets", fake)
    ours = load_data(config("owner/name", download=True))
    assert (ours.class_names, len(ours.test_labels)) == (CLASSES, 9)
    line = "owner/name: tested on validation; test is not used (--data.test_shards chooses others)\n"
    assert capsys.readouterr().out == line
    assert len(load_data(config("owner/name", download=True, test_shards="test")).test_labels) == 32
    with pytest.raises(InputError, match=r"owner/name: has no split tests; its splits are train, test, validation\."):
        load_data(config("owner/name", download=True, test_shards="tests"))
    asked = {"dataset": "hf", "data_dir": Path("owner/name"), "image_size": SIDE, "download": True}
    assert load_source_images(CorruptConfig(out=tmp_path / "c", **asked)).class_names == CLASSES
    with pytest.raises(InputError, match=r"owner/none: no such folder, and Hugging Face datasets cannot load it"):
        load_data(config("owner/none", download=True))
    with pytest.raises(InputError, match=r"owner/name: no such folder"):
        load_data(config("owner/name"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"a name on the hub needs 'fastmagn\[hf\]'"):
        load_data(config("owner/name", download=True))


def test_what_datasets_itself_writes_is_read(photos, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="needs the extra hf")
    from fastmagn.data.hf_set import hub_files

    theirs = datasets.load_dataset("imagefolder", data_dir=str(photos), cache_dir=str(tmp_path / "hub"))
    theirs.save_to_disk(str(tmp_path / "disk"))
    expected = load_data(config(photos, "folder"))
    ours = load_data(config(tmp_path / "disk"))
    assert ours.class_names == CLASSES
    assert sorted(ours.train_labels.tolist()) == sorted(expected.train_labels.tolist())
    saved = datasets.load_from_disk(str(tmp_path / "disk"))
    saved["train"].filter(lambda row: row["label"] == 1)  # which leaves a cache beside the saved files
    assert list((tmp_path / "disk" / "train").glob("cache-*.arrow"))
    assert load_data(config(tmp_path / "disk")).train_labels.tolist() == ours.train_labels.tolist()
    fewer = theirs["train"].select(range(0, 32, 2))
    fewer.save_to_disk(str(tmp_path / "disk" / "train"), num_shards=2)
    assert len(datasets.load_from_disk(str(tmp_path / "disk" / "train"))) == 16
    assert load_data(config(tmp_path / "disk")).train_labels.tolist() == list(fewer["label"])
    theirs["train"].to_parquet(str(tmp_path / "pq" / "train-00000-of-00001.parquet"))
    assert [Path(file).suffix for file in hub_files(str(tmp_path / "pq"), ("train",))] == [".arrow"]


def test_a_set_of_image_files_on_the_hub_is_read(photos, tmp_path, monkeypatch):
    """`datasets` keeps only the paths of its images; the library itself runs here, on a folder in place of the hub."""
    datasets = pytest.importorskip("datasets", reason="needs the extra hf")
    loaded = datasets.load_dataset("imagefolder", data_dir=str(photos), cache_dir=str(tmp_path / "hub"))
    kept = loaded["train"].cache_files[0]["filename"]
    monkeypatch.setattr(datasets, "load_dataset", {"owner/name": loaded}.__getitem__)
    ours, theirs = load_data(config("owner/name", download=True)), load_data(config(photos, "folder"))
    assert ours.class_names == CLASSES
    for images, labels, of_folder, true in (
        (ours.train_images_u8, ours.train_labels, theirs.train_images_u8, theirs.train_labels),
        (ours.test_images_u8, ours.test_labels, theirs.test_images_u8, theirs.test_labels),
    ):
        found = sorted((image.tobytes(), label) for image, label in zip(np.asarray(images), labels, strict=True))
        assert found == sorted(
            (image.tobytes(), label) for image, label in zip(np.asarray(of_folder), true, strict=True)
        )
    (tmp_path / "t").mkdir()
    for split in ("train", "test"):
        (tmp_path / "t" / f"{split}.arrow").symlink_to(kept)
    with pytest.raises(
        InputError, match=r"t/train\.arrow: its column 'image' holds paths of image files; expected their"
    ):
        load_data(config(tmp_path / "t"))


def test_a_file_that_is_replaced_at_once_is_converted_again(photos, tmp_path, monkeypatch):
    """Within the file system's clock tick the times of two states are equal, so neither state is trusted yet."""
    monkeypatch.setattr(content, "_SETTLED_S", 3600.0)
    others = make_photo_folder(tmp_path / "others", 40, 9)
    for folder in (photos, others):
        ours = load_data(config(make_tables(tmp_path / "t", folder, "parquet")))
        expected = np.asarray(load_data(config(folder, "folder")).test_images_u8)
        np.testing.assert_array_equal(np.asarray(ours.test_images_u8), expected)


@pytest.fixture
def three(photos, tmp_path) -> Path:
    """A training split of three parquet files, and a test split of one."""
    images = [path.read_bytes() for path in sorted((photos / "val").rglob("*.jpg"))]
    for name in ("test", *(f"train-{number}" for number in range(3))):
        write(tmp_path / f"t/{name}.parquet", table(images, [row % 3 for row in range(len(images))]))
    return tmp_path / "t"


def test_without_room_for_all_files_none_is_converted(three, cache, monkeypatch):
    size = (three / "train-0.parquet").stat().st_size
    free = [2 * size]
    monkeypatch.setattr("shutil.disk_usage", lambda folder: types.SimpleNamespace(free=free[0]))
    said = r"t/train-0\.parquet, .*t/train-1\.parquet, .*t/train-2\.parquet: cannot be converted to Arrow in .*tables"
    with pytest.raises(InputError, match=rf"{said} \(.*it needs .* MB, and the disk has .* MB.*\); make room there"):
        load_data(config(three))
    assert list((cache / "tables").iterdir()) == []
    free[0] = 3 * size
    load_data(config(three))
    assert len(list((cache / "tables").iterdir())) == 4
    (three / "train-1.parquet").touch()
    free[0] = size  # for the one that changed
    load_data(config(three))
    free[0] = 0
    load_data(config(three))


def test_what_another_process_converts_meanwhile_needs_no_room(three, cache, monkeypatch):
    """It holds the first file's lock until all are whole, and has filled the disk."""
    files = [str(three / f"train-{number}.parquet") for number in range(3)]
    columns, honest = arrow_rows.find_columns(files[0], None, None), arrow_rows.waiting_lock

    def lock(place):
        monkeypatch.setattr(arrow_rows, "waiting_lock", honest)
        arrow_rows.as_arrow(files, columns)
        monkeypatch.setattr("shutil.disk_usage", lambda folder: types.SimpleNamespace(free=0))
        return honest(place)

    monkeypatch.setattr(arrow_rows, "waiting_lock", lock)
    assert [Path(path).suffix for path in arrow_rows.as_arrow(files, columns)] == [".arrow"] * 3


def test_a_long_conversion_is_told_of_once(three, cache, monkeypatch, capsys):
    size = (three / "train-0.parquet").stat().st_size
    monkeypatch.setattr("fastmagn.data.files.arrow_rows.TOLD_FROM_BYTES", 3 * size)
    load_data(config(three))
    said = capsys.readouterr().out
    assert "converting 3 files, 0 GB, once: images are read from Arrow files in" in said
    assert said.count("converting") == 1  # the test split is small
    load_data(config(three))
    assert "converting" not in capsys.readouterr().out
