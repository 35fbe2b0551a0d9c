"""The restricted reader: plain dictionaries come through, attacks do not run, bombs stay small."""

import builtins
import contextlib
import functools
import os
import pickle
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastmagn.data.plain_pickle import read_plain_pickle
from fastmagn.errors import InputError

LIMIT = 1 << 24
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 3072), dtype=np.uint8)
PLAIN = {"labels": [0, 255, 256, 70_000, -1, 2**40], "data": IMAGES, "names": ["a", b"b\xff", None, (), (1, (2, True))]}


def read(tmp_path: Path, content: bytes, max_bytes: int = LIMIT) -> dict:
    path = tmp_path / "file"
    path.write_bytes(content)
    return read_plain_pickle(path, max_bytes)


def short(text: str | bytes) -> bytes:
    """SHORT_BINSTRING, as Python 2 writes a str."""
    raw = text if isinstance(text, bytes) else text.encode("latin-1")
    return b"U" + bytes([len(raw)]) + raw


def python2_array(array: np.ndarray, code: str, order: str) -> bytes:
    """An array as Python 2's numpy pickles it: _reconstruct, then BUILD with a BINSTRING of its bytes."""
    shape = b"(" + b"".join(b"J" + struct.pack("<i", side) for side in array.shape) + b"t"
    dtype = (
        b"cnumpy\ndtype\n" + short(code) + b"K\x00K\x01\x87R(K\x03" + short(order) + b"NNN" + 2 * b"J\xff\xff\xff\xff"
    )
    raw = array.tobytes()
    content = b"T" + struct.pack("<i", len(raw)) + raw
    start = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    return start + b"(K\x01" + shape + dtype + b"K\x00tb\x89" + content + b"tb"


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_reads_what_todays_numpy_writes(tmp_path, protocol):
    fortran = np.asfortranarray(IMAGES)
    content = {**PLAIN, "fortran": fortran, "again": IMAGES, "int64": np.arange(-3, 3), b"bytes": b"\x00\x80"}
    result = read(tmp_path, pickle.dumps(content, protocol))
    assert list(result) == ["labels", "data", "names", "fortran", "again", "int64", "bytes"]
    assert result["labels"] == PLAIN["labels"]
    assert result["names"] == PLAIN["names"]
    assert result["bytes"] == b"\x00\x80"
    for key in ("data", "fortran", "again"):
        assert result[key].dtype == np.uint8
        np.testing.assert_array_equal(result[key], IMAGES)
    assert result["int64"].dtype == np.int64
    assert result["int64"].tolist() == [-3, -2, -1, 0, 1, 2]


def test_reads_what_python_2_wrote(tmp_path):
    labels = np.arange(6) * 1000
    content = b"\x80\x02}q\x01(" + short("data") + python2_array(IMAGES, "u1", "|")
    content += short("labels") + python2_array(labels, "i8", "<") + short("batch_label") + short("testing \xe9") + b"u."
    trusted = pickle.loads(content, encoding="latin1")
    np.testing.assert_array_equal(trusted["data"], IMAGES)
    result = read(tmp_path, content)
    np.testing.assert_array_equal(result["data"], IMAGES)
    np.testing.assert_array_equal(result["labels"], labels)
    assert result["batch_label"] == "testing \xe9"


class Call:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def with_evil(evil: object, where: str) -> object:
    if where == "bare":
        return evil
    if where == "value":
        return {**PLAIN, "more": evil}
    if where == "key":
        return {**PLAIN, (evil,): 1}
    if where == "nested":
        return {**PLAIN, "labels": [0, ([{"x": (evil,)}],)]}
    array = np.empty((2,), object)
    array[0] = evil
    return {**PLAIN, "data": array}


EVIL = {
    "os.system": lambda marker: Call(os.system, f"touch {marker}"),
    "eval": lambda marker: Call(builtins.eval, f"open({str(marker)!r}, 'w').close()"),
    "exec": lambda marker: Call(builtins.exec, f"open({str(marker)!r}, 'w').close()"),
    "open": lambda marker: Call(open, str(marker), "w"),
    "Path.touch": lambda marker: Call(Path.touch, marker),
    "partial": lambda marker: Call(functools.partial(os.system, f"touch {marker}")),
}


def assert_refused_and_not_run(tmp_path: Path, content: bytes, marker: Path) -> None:
    # First that the attack is one: the reader that runs what it reads falls for it. As a key it fails, having run.
    with contextlib.suppress(TypeError):
        pickle.loads(content)
    assert marker.exists()
    marker.unlink()
    with pytest.raises(InputError, match=r"Nothing in it was run\. Download it again\.$") as caught:
        read(tmp_path, content)
    assert "\n" not in str(caught.value)
    assert not marker.exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("where", ["bare", "value", "key", "nested", "object array"])
@pytest.mark.parametrize("evil", list(EVIL))
def test_pickled_calls_are_refused_and_not_run(tmp_path, evil, where, protocol):
    marker = tmp_path / "ran"
    assert_refused_and_not_run(tmp_path, pickle.dumps(with_evil(EVIL[evil](marker), where), protocol), marker)


@pytest.mark.parametrize(
    "opcodes",
    [
        "cposix\nsystem\n(S'{0}'\ntR.",
        "cos\nsystem\n(V{0}\ntR.",
        'c__builtin__\neval\n(S\'__import__("os").system("{0}")\'\ntR.',
        "(S'{0}'\niposix\nsystem\n.",
        "(cposix\nsystem\nS'{0}'\no.",
        "\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c{1}\x85R.",
        "}}(U\x04datacposix\nsystem\n(U{1}tRu.",
        "cposix\nsystem\np0\n0g0\n(S'{0}'\ntR.",
    ],
)
def test_opcodes_by_hand_are_refused_and_not_run(tmp_path, monkeypatch, opcodes):
    monkeypatch.chdir(tmp_path)
    command = "touch ran"
    content = opcodes.format(command, chr(len(command)) + command).encode("latin-1")
    assert_refused_and_not_run(tmp_path, content, tmp_path / "ran")


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
UINT8 = b"cnumpy\ndtype\nU\x02u1\x85R"


@pytest.mark.parametrize(
    ("opcodes", "reason"),
    [
        (b"Pabc\n.", "opcode PERSID"),
        (b"U\x03abcQ.", "opcode BINPERSID"),
        (b"\x82\x01.", "opcode EXT1"),
        (b"\x83\x01\x00.", "opcode EXT2"),
        (b"\x84\x01\x00\x00\x00.", "opcode EXT4"),
        (b"cnumpy\nndarray\n)\x81.", "opcode NEWOBJ"),
        (b"cnumpy\nndarray\n)}\x92.", "opcode NEWOBJ_EX"),
        (b"\x97.", "opcode NEXT_BUFFER"),
        (b"(lp0\n.", "opcode LIST"),
        (b"c_codecs\nlookup\nU\x05rot13\x85R.", "names '_codecs.lookup'"),
        (b"c_codecs\nencode\nU\x01aU\x05rot13\x86R.", "an encoding other than Latin-1"),
        (b"c_codecs\nencode\nU\x01a" + UINT8 + b"\x86R.", "an encoding other than Latin-1"),
        (b"c_codecs\nencode\n]U\x06latin1\x86R.", "bytes that are not a string"),
        (b"c_codecs\nencode\nX\x03\x00\x00\x00\xe2\x82\xacU\x06latin1\x86R.", "codec can't encode"),
        (b"c_codecs\nencode\n}b.", "a state of another form"),
        (b"c_codecs\nencode\n(NNNNNtb.", "a state for something that has none"),
        (b"c_codecs\nencode.\n.", "names '_codecs.encode.'"),
        (b"c_codecs encode\n\n.", "which a CIFAR file never does"),
        (b"cnumpy\nmatrix\n.", "names 'numpy.matrix'"),
        (b"cnumpy.core.multiarray\nscalar\n.", "names 'numpy.core.multiarray.scalar'"),
        (b"cnumpy\nndarray\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85\x85R.", "a call of numpy.ndarray"),
        (b"cnumpy.core.multiarray\n_reconstruct\nc_codecs\nencode\nNN\x87R.", "not a plain array"),
        (b"cnumpy\ndtype\nU\x02O8K\x00K\x01\x87R.", "dtype 'O8'"),
        (b"cnumpy\ndtype\nU\x03u1,\x85R.", "dtype 'u1,'"),
        (b"cnumpy\ndtype\n]\x85R.", "a dtype without a name"),
        (b"cnumpy\ndtype\nU\x02i8\x85R(K\x03U\x01>NNNtb.", "little-endian"),
        (b"cnumpy\ndtype\nU\x02i8\x85R(K\x03" + UINT8 + b"NNNtb.", "little-endian"),
        (ARRAY + b"(K\x01K\x02\x85" + UINT8 + b"\x89U\x01atb.", "an array of 2 bytes that holds 1"),
        (ARRAY + b"(K\x01" + 2 * b"\x8a\x06\x00\x00\x00\x00\x00\x01" + b"\x86" + UINT8 + b"\x89U\x01atb.", "holds 1"),
        (ARRAY + b"(K\x01J\xff\xff\xff\xff\x85" + UINT8 + b"\x89U\x00tb.", "an array without a valid shape"),
        (ARRAY + b"(K\x01K\x00\x85N\x89U\x00tb.", "an array without a valid dtype"),
        (b"])R.", "a call of something that is not a symbol"),
        (b"}(]N}Nu.", "a key that is not a string"),
        (b"}(U\x01au.", "a key without a value"),
        (b"](U\x01aNu.", "not a dictionary"),
        (b"}(U\x01ae.", "not a list"),
        (b"}}.", "values left over"),
        (b"(}.", "values left over"),
        (b"].", "not a dictionary"),
        (b"u.", "a mark is missing"),
        (b"R.", "a value is missing"),
        (b"q\x01.", "BINPUT of nothing"),
        (b"h\x01.", "BINGET of an empty slot"),
        (b"}.}", "bytes after its end"),
        (b"", "pickle exhausted before seeing STOP"),
        (b"PK\x03\x04 an archive", "opcode"),
        (b"I" + b"9" * 10_000 + b"\n.", ""),
        (b"\xff\xd8\xff\xe0", "unknown"),
    ],
)
def test_refuses_opcodes_that_plain_dictionaries_do_not_need(tmp_path, opcodes, reason):
    with pytest.raises(InputError, match="not a dictionary of plain values and arrays") as caught:
        read(tmp_path, opcodes)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


HUGE = struct.pack("<Q", 2**62)


@pytest.mark.parametrize(
    "bomb",
    [
        b"\x8e" + HUGE + b"abc.",
        b"\x8d" + HUGE + b"abc.",
        b"\x96" + HUGE + b"abc.",
        b"\x95" + HUGE + b"}.}",
        b"B\xff\xff\xff\xffabc.",
        b"X\xff\xff\xff\x7fabc.",
        b"T\xff\xff\xff\x7fabc.",
        b"\x8b\xff\xff\xff\x7fabc.",
        b"}r\xff\xff\xff\xff]r\xff\xff\xff\x7f.",
        b"c_codecs\nencode\nq\x00X\x00\x00\x01\x00" + b"a" * 65_536 + b"q\x01U\x06latin1q\x02"
        + b"(" + b"h\x00h\x01h\x02\x86R" * 20_000 + b"t.",
        b"(" + (ARRAY + b"(K\x01K\x02\x85" + UINT8 + b"\x89h\x00tb") * 10 + b"t.",
        b"(\x96\x00\x00\x01\x00\x00\x00\x00\x00" + b"a" * 65_536 + b"q\x00" + UINT8 + b"q\x01"
        + (ARRAY + b"(K\x01J\x00\x00\x01\x00\x85h\x01\x89h\x00tb") * 3000 + b"t.",
        b"]" * 100_000 + b"a" * 99_999 + b".",
        b")" + b"\x85" * 100_000 + b".",
        b"(" * 100_000 + b".",
        b"}" + b")" + b"\x85" * 100_000 + b"Ns.",
    ],
)  # fmt: skip
def test_bombs_are_refused_in_little_memory(tmp_path, bomb):
    tracemalloc.start()
    with pytest.raises(InputError):
        read(tmp_path, bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20


def test_counts_opcodes(tmp_path):
    with pytest.raises(InputError, match="more opcodes than any CIFAR file has"):
        read(tmp_path, b"N" * 2_000_001 + b".")


def test_a_file_above_the_limit_is_not_read(tmp_path):
    content = pickle.dumps(PLAIN)
    assert read(tmp_path, content, max_bytes=len(content))["labels"] == PLAIN["labels"]
    with pytest.raises(InputError, match=f"has {len(content)} bytes; expected at most {len(content) - 1}"):
        read(tmp_path, content, max_bytes=len(content) - 1)


def test_a_folder_is_one_clear_line(tmp_path):
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory\)"):
        read_plain_pickle(tmp_path, LIMIT)


@pytest.mark.parametrize("protocol", [2, 4])
def test_no_truncation_loads(tmp_path, protocol):
    content = pickle.dumps(PLAIN, protocol)
    lengths = {
        *range(12),
        *np.linspace(12, len(content) - 1, 60, dtype=int).tolist(),
        *range(len(content) - 90, len(content)),
    }
    for length in lengths:
        with pytest.raises(InputError):
            read(tmp_path, content[:length])


SMALL = {"labels": [3, 1, 300], "data": np.arange(12, dtype=np.uint8).reshape(3, 4), "names": [b"\x80x", ("y", None)]}


@given(
    protocol=st.sampled_from([2, 4, 5]),
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255), st.booleans()), min_size=1, max_size=4),
)
def test_damaged_files_load_or_give_one_clear_line(tmp_path_factory, protocol, edits):
    content = bytearray(pickle.dumps(SMALL, protocol))
    for where, byte, insert in edits:
        at = int(where * (len(content) - 1))
        content[at : at + (not insert)] = bytes([byte])
    result, message = {}, ""
    try:
        result = read(tmp_path_factory.getbasetemp(), bytes(content))
    except InputError as error:
        message = str(error)
    assert all(isinstance(key, str) for key in result)
    assert "\n" not in message
