"""Tar shards: the same images, batches and crops as those of the folder they were made of; hostile and broken ones."""

import dataclasses
import io
import json
import os
import re
import tarfile
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastmagn.config.schema import DataConfig
from fastmagn.data import FolderSource, load_data, make_source, split_validation
from fastmagn.data.files import content, shard_index
from fastmagn.data.files.crops import has_dali
from fastmagn.data.files.shards import expand
from fastmagn.errors import InputError
from tests.helpers.photo_folders import CLASSES, make_photo_folder
from tests.helpers.shards import add, make_shards, sample, write_tar

SIDE = 32
DECODERS = ["pillow", pytest.param("dali", marks=pytest.mark.skipif(not has_dali(), reason="DALI is not installed"))]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(content, "_SETTLED_S", -3600.0)
    return tmp_path / "cache" / "fastmagn" / "shards"


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return make_photo_folder(tmp_path_factory.mktemp("photos"), 32, 9)


@pytest.fixture(scope="module")
def shards(photos, tmp_path_factory) -> Path:
    return make_shards(tmp_path_factory.mktemp("shards"), photos)


def config(folder: Path, name: str = "webdataset", **fields) -> DataConfig:
    return DataConfig(name=name, dir=folder, image_size=SIDE, num_workers=2, **fields)


def source(data: DataConfig, share: slice | None = None) -> FolderSource:
    part, _ = split_validation(load_data(data), 0, 0)
    return make_source(part, batch_size=8, seed=5, device=torch.device("cpu"), share=share or slice(0, 8))


def first_photo(photos: Path) -> Path:
    return next((photos / "train" / "ape").iterdir())


def test_a_relative_folder_is_the_same_set(shards, monkeypatch):
    expected = load_data(config(shards))
    monkeypatch.chdir(shards.parent)
    found = load_data(config(Path(shards.name)))
    assert found.fingerprint == expected.fingerprint
    np.testing.assert_array_equal(np.asarray(found.test_images_u8), np.asarray(expected.test_images_u8))


@pytest.mark.parametrize("decoder", DECODERS)
def test_batches_of_two_epochs_equal_those_of_the_folder(photos, shards, decoder):
    """One process, resumed at a step, and two processes' shares."""
    ours, theirs = source(config(shards, source=decoder)), source(config(photos, "folder", source=decoder))
    halves = [source(config(shards, source=decoder), share) for share in (slice(0, 4), slice(4, 8))]
    for epoch in (0, 3):
        expected = list(theirs.batches(epoch))
        assert len(expected) == 4
        joined = [
            tuple(torch.cat([getattr(half, name) for half in pair]) for name in ("images", "labels"))
            for pair in zip(*(half.batches(epoch) for half in halves), strict=True)
        ]
        for found, true, pair in zip(ours.batches(epoch), expected, joined, strict=True):
            np.testing.assert_array_equal(found.indices, true.indices)
            for images, labels in ((found.images, found.labels), pair):
                assert torch.equal(images, true.images)
                assert torch.equal(labels, true.labels)
        resumed = list(ours.batches(epoch, 2))
        assert all(torch.equal(a.images, b.images) for a, b in zip(resumed, expected[2:], strict=True))


@pytest.mark.parametrize("as_json", [False, True])
def test_it_is_the_folders_set(photos, tmp_path, as_json):
    shards = make_shards(tmp_path / "s", photos, num_shards=2, as_json=as_json, val="test")
    ours, theirs = load_data(config(shards)), load_data(config(photos, "folder"))
    assert ours.class_names == theirs.class_names == CLASSES
    np.testing.assert_array_equal(ours.train_labels, theirs.train_labels)
    np.testing.assert_array_equal(ours.test_labels, theirs.test_labels)
    np.testing.assert_array_equal(np.asarray(ours.test_images_u8), np.asarray(theirs.test_images_u8))
    assert re.fullmatch(r".*/s/train-000\.tar/000000\.jpg", str(ours.train_images_u8.files.item(0)))


def test_without_class_names_the_classes_are_numbers(photos, shards, tmp_path):
    for tar in shards.glob("*.tar"):
        (tmp_path / tar.name).symlink_to(tar)
    assert load_data(config(tmp_path)).class_names == ("0", "1", "2")


def labelled(photos: Path, labels: list[str]) -> dict[str, bytes]:
    image = first_photo(photos).read_bytes()
    members = {f"{row}.jpg": image for row in range(len(labels))}
    return members | {f"{row}.cls": label.encode() for row, label in enumerate(labels)}


@pytest.mark.filterwarnings("ignore:.*classes have no training image")
@pytest.mark.parametrize(
    ("train", "val", "classes", "expected"),
    [
        # A test label means what the same training label means, though the test split alone has numbers only.
        ("1 2 7 A B", "1 2 7", "", ("1 2 7 A B", [0, 1, 2, 3, 4], [0, 1, 2])),
        ("01 02 x", "x 02 01", "", ("01 02 x", [0, 1, 2], [2, 1, 0])),
        ("10 9 x", "9 10", "", ("10 9 x", [0, 1, 2], [1, 0])),
        ("1 2 7", "7 2 1", "1 2 7", ("1 2 7", [0, 1, 2], [2, 1, 0])),
        ("1 2 B", "2 1", "B 2 1", ("B 2 1", [2, 1, 0], [1, 2])),
        ("00 01 02", "2 01", "", ("0 1 2", [0, 1, 2], [2, 1])),
        ("01 02", "2 00", "ape bee cat", ("ape bee cat", [1, 2], [2, 0])),
        ("1 2 3", "3 0", "0 1 2 3", ("0 1 2 3", [1, 2, 3], [3, 0])),
    ],
)
def test_labels_are_numbers_or_names_in_both_splits(photos, tmp_path, train, val, classes, expected):
    write_tar(tmp_path / "train-0.tar", labelled(photos, train.split()))
    write_tar(tmp_path / "val-0.tar", labelled(photos, val.split()))
    if classes:
        (tmp_path / "classes.txt").write_text(classes.replace(" ", "\n"))
    images = load_data(config(tmp_path))
    found = " ".join(images.class_names), images.train_labels.tolist(), images.test_labels.tolist()
    assert found == expected


def test_a_byte_order_mark_is_part_of_no_name_and_no_label(photos, tmp_path):
    """Windows' editors begin files with it."""
    for name, label in (("train-0", "0"), ("val-0", "1")):
        members = {"a.jpg": first_photo(photos).read_bytes(), "a.cls": label.encode("utf-8-sig")}
        write_tar(tmp_path / f"{name}.tar", members)
    (tmp_path / "classes.txt").write_text("ape\nbee", "utf-8-sig")
    with pytest.warns(UserWarning, match="1 of 2 classes have no training image: bee"):
        images = load_data(config(tmp_path))
    found = images.class_names, images.train_labels.tolist(), images.test_labels.tolist()
    assert found == (("ape", "bee"), [0], [1])


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        ("A B", "0", r"val-0\.tar/0\.jpg: its label is '0'; expected the name of a class of the training images, as"),
        ("01 x", "1", r"val-0\.tar/0\.jpg: its label is '1'; expected the name of a class of the training images, as"),
        ("0 1", "1 A", r"val-0\.tar/1\.jpg: its label is 'A'; expected the name of a class of the training images, as"),
        ("0100000 1", "1", r"train-0\.tar/0\.jpg: its label is '0100000'; expected 0\.\.99999\."),
    ],
)
def test_a_label_of_no_class_is_one_line(photos, tmp_path, train, val, message):
    write_tar(tmp_path / "train-0.tar", labelled(photos, train.split()))
    write_tar(tmp_path / "val-0.tar", labelled(photos, val.split()))
    with pytest.raises(InputError, match=message):
        load_data(config(tmp_path))


def test_an_index_is_made_once_and_anew_for_a_changed_shard(photos, tmp_path, cache, monkeypatch):
    shards = make_shards(tmp_path / "s", photos)
    first = load_data(config(shards))
    read = []
    honest = shard_index._shard.__globals__["read_header"]
    monkeypatch.setattr(shard_index, "read_header", lambda item: read.append(str(item)) or honest(item))
    again = load_data(config(shards))
    assert not read
    assert again.fingerprint == first.fingerprint
    np.testing.assert_array_equal(again.train_images_u8.files.sizes, first.train_images_u8.files.sizes)
    path = first_photo(photos)
    write_tar(shards / "val-002.tar", sample("new", path))
    changed = load_data(config(shards))
    assert read == ["new.jpg"]
    assert len(changed.test_labels) == len(first.test_labels) - 2
    for file in cache.iterdir():
        file.write_bytes(file.read_bytes()[:-30])
    assert load_data(config(shards)).fingerprint == first.fingerprint


def test_a_cache_whose_parser_fails_is_made_anew(photos, tmp_path, cache, monkeypatch):
    shards = make_shards(tmp_path / "s", photos)
    first = load_data(config(shards))

    def fail(*arguments, **options):
        raise SystemError("AST constructor recursion depth mismatch")  # as NumPy's parser of headers, in threads

    monkeypatch.setattr(shard_index.np, "load", fail)
    assert load_data(config(shards)).fingerprint == first.fingerprint


def test_the_fingerprint_is_of_contents(photos, tmp_path):
    shards = make_shards(tmp_path / "s", photos)
    before = load_data(config(shards)).fingerprint
    os.utime(shards / "train-001.tar", (1, 1))
    assert load_data(config(shards)).fingerprint == before
    at = load_data(config(shards)).train_images_u8.files.item(20)
    with open(shards / "train-001.tar", "r+b") as file:
        file.seek(at.offset + at.num_bytes - 40)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    assert load_data(config(shards)).fingerprint != before


def test_broken_images_are_counted(photos, tmp_path):
    """One without a header is left out; mid-grey stands in for one whose data are broken."""
    good = sorted((photos / "train").rglob("*.jpg"))
    spoilt = good[0].read_bytes()
    broken = spoilt[:2] + b"\0" * 200 + spoilt[200:]
    members = {"a.jpg": broken, "a.cls": b"0"}
    for row, path in enumerate(good[1:9]):
        members |= sample(f"k{row}", path)
    write_tar(tmp_path / "train-0.tar", members)
    write_tar(tmp_path / "val-0.tar", sample("x", good[0]))
    for _ in range(2):  # from the shard, and from the cache
        with pytest.warns(UserWarning, match=r"1 of 9 image files cannot be read: .*/train-0\.tar/a\.jpg \(cannot id"):
            images = load_data(config(tmp_path))
        assert len(images.train_labels) == 8


def damaged(photos: Path, kind: str) -> tuple[bytes, str]:
    """A shard, and the message about it."""
    path = first_photo(photos)
    whole = sample("key", path) | sample("key2", path)
    image, tar = path.read_bytes(), io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name, data in whole.items():
            add(archive, name, data)
    cuts = {"truncated": len(image) // 2 + 512, "truncated_header": 512 * (2 + -(-len(image) // 512)) + 700}
    if kind in cuts:
        return tar.getvalue()[: cuts[kind]], r"train-0\.tar: is (damaged|truncated or damaged) after "
    if kind == "no_end":
        end = len(tar.getvalue().rstrip(b"\0"))
        return tar.getvalue()[: -(-end // 512) * 512], r"train-0\.tar: is truncated or damaged after key2\.cls"
    if kind == "zipped":
        return b"\x1f\x8b" + bytes(
            2000
        ), r"train-0\.tar: is damaged after its start .* a whole tar that is not compress"
    cases = {
        "no_label": ({"key.jpg": image}, r"train-0\.tar: key: has no label; expected KEY\.cls or KEY\.json"),
        "two_images": ({**whole, "key.png": image}, r"train-0\.tar: key: this key has two images"),
        "out_of_range": (
            {"key.jpg": image, "key.cls": b"7"},
            r"train-0\.tar/key\.jpg: its label is '7'; expected 0\.\.2",
        ),
        "negative": (
            {"key.jpg": image, "key.cls": b"-1"},
            r"train-0\.tar/key\.jpg: its label is '-1'; expected 0\.\.2",
        ),
        "no_field": ({"key.jpg": image, "key.json": b"{}"}, r"key: its \.json holds no label .*data\.label_column"),
        "deep_json": ({"key.jpg": image, "key.json": b"[" * 100_000}, r"key: its \.json holds no label"),
        "nothing": ({"key.txt": b"x"}, r"train-0\.tar: holds no image: 1 of another kind \(\.txt\); expected KEY\.jpg"),
    }
    members, message = cases[kind]
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name, data in members.items():
            add(archive, name, data)
    return tar.getvalue(), message


@pytest.mark.parametrize(
    "kind",
    [
        *("truncated", "truncated_header", "no_end", "zipped", "no_label", "two_images", "out_of_range", "negative"),
        *("no_field", "deep_json", "nothing"),
    ],
)
def test_a_damaged_shard_is_one_line(photos, tmp_path, kind):
    data, message = damaged(photos, kind)
    (tmp_path / "train-0.tar").write_bytes(data)
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    write_tar(tmp_path / "val-0.tar", sample("x", first_photo(photos)))
    with pytest.raises(InputError, match=message) as raised:
        load_data(config(tmp_path))
    assert "\n" not in str(raised.value)


def hostile(kind: str) -> list[tuple[tarfile.TarInfo, bytes]]:
    member, data = tarfile.TarInfo("evil.jpg"), b""
    if kind == "outside":
        member.name, data = "../../evil.jpg", b"x"
    elif kind == "absolute":
        member.name, data = "/etc/evil.jpg", b"x"
    elif kind in ("link", "hard_link"):
        member.type, member.linkname = (tarfile.SYMTYPE if kind == "link" else tarfile.LNKTYPE), "/etc/passwd"
    elif kind == "device":
        member.type = tarfile.BLKTYPE
    elif kind == "sparse":
        member.type = tarfile.GNUTYPE_SPARSE
    member.size = len(data)
    return [(member, data)]


@pytest.mark.parametrize("kind", ["outside", "absolute", "link", "hard_link", "device", "sparse"])
def test_a_hostile_member_is_counted_and_touches_nothing(photos, tmp_path, kind, cache):
    path = first_photo(photos)
    with tarfile.open(tmp_path / "train-0.tar", "w") as archive:
        for name, data in sample("key", path).items():
            add(archive, name, data)
        for member, data in hostile(kind):
            archive.addfile(member, io.BytesIO(data))
    write_tar(tmp_path / "val-0.tar", sample("x", path))
    before = {str(file) for file in tmp_path.rglob("*")}
    with pytest.warns(UserWarning, match=r"train-0\.tar: members that are not used: 1 (path|link|device|sparse)"):
        images = load_data(config(tmp_path))
    assert len(images.train_labels) == 1
    made = {str(file) for file in tmp_path.rglob("*")} - before
    assert all(Path(file).is_relative_to(cache.parent.parent) for file in made)


@pytest.mark.parametrize("claim", ["huge_image", "huge_pax", "loop"])
def test_a_member_that_claims_too_much_is_one_line(photos, tmp_path, claim):
    """8 EB of an image, a pax header of 8 GB, and one whose size leads backwards."""
    member = tarfile.TarInfo("evil.jpg")
    member.size = {"huge_image": 2**63 - 1, "huge_pax": 2**33, "loop": -1024}[claim]
    if claim == "huge_pax":
        member.type = tarfile.XHDTYPE
    head = member.tobuf(tarfile.GNU_FORMAT)
    good = write_tar(tmp_path / "val-0.tar", sample("x", first_photo(photos))).read_bytes()
    (tmp_path / "train-0.tar").write_bytes(head + good)
    with pytest.raises(InputError, match=r"train-0\.tar: is (truncated or )?damaged after"):
        load_data(config(tmp_path))


def test_a_bomb_is_left_out(photos, tmp_path):
    """A PNG of 32,000 x 32,000 px in some bytes."""
    head = b"IHDR" + (32_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    png = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + head + zlib.crc32(head).to_bytes(4, "big")
    png += (9).to_bytes(4, "big") + b"IDAT" + bytes(13)
    members = {"b.png": png, "b.cls": b"1"} | sample("key", first_photo(photos))
    write_tar(tmp_path / "train-0.tar", members)
    write_tar(tmp_path / "val-0.tar", sample("x", first_photo(photos)))
    (tmp_path / "classes.txt").write_text("ape\nbee")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert len(load_data(config(tmp_path)).train_labels) == 1
    assert any(re.search(r"b\.png \(Image size \(1024000000 pixels\) exceeds", str(each.message)) for each in told)


def test_long_names_and_pax_are_read(photos, tmp_path):
    path = first_photo(photos)
    for number, form in enumerate((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        with tarfile.open(tmp_path / f"train-{number}.tar", "w", format=form) as archive:
            for name, data in sample("./" + "long/" * 50 + "ключ", path).items():
                add(archive, name, data)
    write_tar(tmp_path / "val-0.tar", sample("x", path))
    files = load_data(config(tmp_path)).train_images_u8.files
    assert files.names.tolist() == [f"train-{number}.tar/{'long/' * 50}ключ.jpg" for number in (0, 1)]
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        assert files.sizes[0].tolist() == [image.height, image.width]


def test_shards_are_named_by_a_pattern_or_found(photos, shards, tmp_path):
    assert expand("a-{08..10}.{x,y}") == [f"a-{number}.{end}" for number in ("08", "09", "10") for end in "xy"]
    named = load_data(config(shards, train_shards="train-{000..001}.tar", test_shards="val-*.tar"))
    assert 0 < len(named.train_labels) < 32
    with pytest.raises(InputError, match=r"data\.train_shards: .*: 1 file is missing: train-003\.tar; got 'train-\{"):
        load_data(config(shards, train_shards="train-{000..003}.tar"))
    with pytest.raises(InputError, match=r"data\.train_shards: got '\.\./x\.tar'; expected files below data\.dir"):
        load_data(config(shards, train_shards="../x.tar"))
    with pytest.raises(
        InputError, match=r"no files of this split \(train-\*\.tar, .*expected train-000\.tar, train-001"
    ):
        load_data(config(photos))
    with pytest.raises(InputError, match=r"data\.dir: .*none: no such folder"):
        load_data(config(tmp_path / "none"))
    (tmp_path / "train-00000-of-00002.tar").symlink_to(shards / "train-000.tar")
    with pytest.raises(InputError, match=r"1 of 2 files missing: number 1 beside train-00000-of-00002\.tar"):
        load_data(config(tmp_path))


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("{0..99999999999999999999}.tar", "1 file is missing"),
        ("{1..999999999}.tar", r"expected 1\.\.1,000,000 names"),
        ("{a,b}" * 40 + ".tar", r"expected 1\.\.1,000,000 names"),
        ("{3..1}.tar", r"expected 1\.\.1,000,000 names in rising order"),
        ("train**.tar", r"data\.train_shards: got 'train\*\*\.tar' \(Invalid pattern"),
    ],
)
def test_a_pattern_that_names_nothing_is_one_line(shards, pattern, says):
    with pytest.raises(InputError, match=says) as raised:
        load_data(config(shards, train_shards=pattern))
    assert "\n" not in str(raised.value)


def test_a_shard_that_a_pattern_names_twice_is_read_once(shards):
    named = load_data(config(shards, train_shards="{train-000,train-*}.tar"))
    np.testing.assert_array_equal(named.train_labels, load_data(config(shards)).train_labels)


@pytest.mark.parametrize("form", ["cls", "json"])
def test_labels_and_names_of_any_characters_survive_the_cache(photos, tmp_path, form):
    """NUL and newlines within names and labels, which two different packings would split at."""
    path = first_photo(photos)
    labels = ["a\0b", "c\nd", "é"]
    with tarfile.open(tmp_path / "train-0.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for row, label in enumerate(labels):
            add(archive, f"{row}\n{row}.jpg", path.read_bytes())
            text = label if form == "cls" else json.dumps({"label": label})
            add(archive, f"{row}\n{row}.{form}", text.encode())
    write_tar(tmp_path / "val-0.tar", sample("x", path) | {"x.cls": labels[0].encode()})
    for _ in range(2):  # from the shard, and from the cache
        images = load_data(config(tmp_path))
        assert images.class_names == tuple(sorted(labels))
        assert images.train_labels.tolist() == [0, 1, 2]
        assert images.train_images_u8.files.names.tolist() == [f"train-0.tar/{row}\n{row}.jpg" for row in range(3)]


def test_a_split_in_two_places_is_one_line(shards, tmp_path):
    """Not both, which would hold the same images twice."""
    for tar in shards.glob("*.tar"):
        (tmp_path / tar.name).symlink_to(tar)
    (tmp_path / "data").symlink_to(shards)
    message = r"this split is in 2 places, train-000\.tar, data/train-000\.tar; expected one\. .*data\.train_shards\."
    with pytest.raises(InputError, match=message):
        load_data(config(tmp_path))
    named = load_data(config(tmp_path, train_shards="train-*.tar", test_shards="data/val-*.tar"))
    np.testing.assert_array_equal(named.train_labels, load_data(config(shards)).train_labels)


@pytest.mark.parametrize("pattern", [None, "train-*.tar"])
def test_a_link_that_leads_nowhere_is_one_line(shards, tmp_path, pattern):
    """As a shard that was not fetched."""
    for tar in shards.glob("*.tar"):
        (tmp_path / tar.name).symlink_to(tar)
    (tmp_path / "train-003.tar").symlink_to("not-fetched")
    with pytest.raises(InputError, match=r"1 dangling link: .*/train-003\.tar; expected files\. Fetch what"):
        load_data(config(tmp_path, train_shards=pattern))


def test_a_shard_that_vanishes_is_named(photos, tmp_path):
    shards = make_shards(tmp_path / "s", photos)
    ours = source(config(shards, source="pillow"))
    for tar in shards.glob("train-*.tar"):
        tar.unlink()
    with pytest.raises(
        InputError, match=r"none of the 8 images of a batch can be read: .*\.tar/\d+\.jpg \(No such file"
    ):
        next(ours.batches(0))
    with pytest.raises(InputError, match=r"cannot be read \(No such file"):
        load_data(dataclasses.replace(config(shards), train_shards="val-*.tar")) and ours._files.fingerprint


def test_a_sample_without_an_image_is_counted(photos, tmp_path):
    path = first_photo(photos)
    write_tar(tmp_path / "train-0.tar", sample("a", path) | {"b.cls": b"1", "c.json": b'{"label": 1}', "c.cls": b"1"})
    write_tar(tmp_path / "val-0.tar", sample("x", path))
    with pytest.warns(UserWarning, match=r"train-0\.tar: members that are not used: 2 sample without an image\."):
        assert load_data(config(tmp_path)).train_labels.tolist() == [0]


def test_a_line_says_which_of_val_and_test_is_not_used(photos, shards, tmp_path, capsys):
    for tar in shards.glob("*.tar"):
        (tmp_path / tar.name).symlink_to(tar)
    load_data(config(tmp_path))
    assert "tested on" not in capsys.readouterr().out
    (tmp_path / "test").mkdir()
    write_tar(tmp_path / "test" / "a.tar", sample("x", first_photo(photos)))
    assert len(load_data(config(tmp_path)).test_labels) == 9
    line = f"{tmp_path}: tested on val; test is not used (--data.test_shards chooses others)\n"
    assert capsys.readouterr().out == line
    assert len(load_data(config(tmp_path, test_shards="test/*.tar")).test_labels) == 1
    assert capsys.readouterr().out == ""
