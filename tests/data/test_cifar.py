"""The CIFAR readers, on small files in the published layouts and, with FASTMAGN_DATA, on the real ones."""

import dataclasses
import http.server
import multiprocessing
import os
import pickle
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torchvision
from torchvision.datasets import utils as torchvision_utils

from fastmagn.data import load_images
from fastmagn.data.cifar import CIFAR10, CIFAR100, CifarLayout, read_cifar
from fastmagn.errors import InputError

SMALL = {
    "cifar10": dataclasses.replace(CIFAR10, num_images_per_train_file=12, num_test_images=20),
    "cifar100": dataclasses.replace(CIFAR100, num_images_per_train_file=130, num_test_images=110),
}


def small_files(layout: CifarLayout) -> dict[str, dict]:
    """Contents of each file, images random and labels cycling through the classes."""
    rng = np.random.default_rng(7)
    counts = dict.fromkeys(layout.train_files, layout.num_images_per_train_file)
    counts[layout.test_file] = layout.num_test_images
    files = {}
    for file, count in counts.items():
        labels = (np.arange(count) % layout.num_classes).tolist()
        data = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
        files[file] = {"batch_label": file, layout.labels_key: labels, "data": data, "filenames": ["a.png"] * count}
    names = [f"class {k}" for k in range(layout.num_classes)]
    files[layout.meta_file] = {layout.class_names_key: names, "num_vis": 3072}
    return files


def write(layout: CifarLayout, folder: Path, files: dict[str, dict], protocol: int = 2) -> None:
    (folder / layout.folder).mkdir(exist_ok=True)
    for file, content in files.items():
        (folder / layout.folder / file).write_bytes(pickle.dumps(content, protocol))


@pytest.fixture(params=sorted(SMALL))
def layout(request) -> CifarLayout:
    return SMALL[request.param]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("key_type", [str, bytes])
def test_reads_the_published_layout(tmp_path, layout, protocol, key_type):
    files = small_files(layout)
    if key_type is bytes:
        names = [name.encode() for name in files[layout.meta_file][layout.class_names_key]]
        files[layout.meta_file][layout.class_names_key] = names
    recoded = {
        file: {key.encode() if key_type is bytes else key: value for key, value in content.items()}
        for file, content in files.items()
    }
    write(layout, tmp_path, recoded, protocol)
    image_set = read_cifar(layout, tmp_path, download=False)
    assert image_set.class_names == tuple(f"class {k}" for k in range(layout.num_classes))
    train = np.concatenate([files[file]["data"] for file in layout.train_files])
    labels = [label for file in layout.train_files for label in files[file][layout.labels_key]]
    assert image_set.train_labels.tolist() == labels
    assert image_set.train_images_u8.shape == (len(labels), 32, 32, 3)
    # A row is the red plane, then green, then blue, each row by row from the top.
    for image, row, column, channel in [(0, 0, 0, 0), (3, 0, 1, 2), (5, 31, 2, 1), (len(labels) - 1, 17, 31, 2)]:
        expected = train[image, channel * 1024 + row * 32 + column]
        assert image_set.train_images_u8[image, row, column, channel] == expected
    planes = np.stack([image_set.test_images_u8[..., channel].reshape(-1, 1024) for channel in range(3)], axis=1)
    np.testing.assert_array_equal(planes.reshape(-1, 3072), files[layout.test_file]["data"])


def damaged(change) -> dict:
    """A CIFAR-10 test batch after `change`."""
    content = small_files(SMALL["cifar10"])["test_batch"]
    change(content)
    return content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c.pop("labels"),
            r"has no 'labels' \(it has 'batch_label', 'data', 'filenames'\); is it another set's",
        ),
        (lambda c: c.pop("data"), "has no 'data'"),
        (lambda c: c.update(labels=c["labels"][:-1]), "'labels' is 19 entries; expected 20 integer labels"),
        (
            lambda c: c.update(labels=[*c["labels"][:-1], 10]),
            r"'labels' has labels 0\.\.10; expected 0\.\.9 of CIFAR-10",
        ),
        (lambda c: c.update(labels=[*c["labels"][:-1], -1]), r"'labels' has labels -1\.\.9; expected 0\.\.9"),
        (lambda c: c.update(labels=[*c["labels"][:-1], "1"]), "is not a list of integers"),
        (lambda c: c.update(labels=[*c["labels"][:-1], True]), "is not a list of integers"),
        (lambda c: c.update(labels=7), "is not a list of integers"),
        (lambda c: c.update(data=c["data"][:-1]), r"'data' is uint8 \[19, 3072\]; expected uint8 \[20, 3072\]"),
        (lambda c: c.update(data=c["data"][:, :1024]), r"'data' is uint8 \[20, 1024\]; expected uint8 \[20, 3072\]"),
        (lambda c: c.update(data=c["data"].astype(np.int64)[:4]), r"'data' is int64 \[4, 3072\]"),
        (lambda c: c.update(data=c["data"].astype(np.float32)[:4]), "dtype 'f4'; expected 'u1' or 'i8'"),
        (lambda c: c.update(data=c["data"].tolist()[:1]), "'data' is list; expected uint8"),
    ],
)
def test_mislabelled_files_give_one_clear_line(tmp_path, change, message):
    layout = SMALL["cifar10"]
    write(layout, tmp_path, {**small_files(layout), "test_batch": damaged(change)})
    with pytest.raises(InputError, match=message) as caught:
        read_cifar(layout, tmp_path, download=False)
    assert str(caught.value).startswith(str(tmp_path / "cifar-10-batches-py" / "test_batch"))


def test_labels_may_be_an_array(tmp_path):
    layout = SMALL["cifar10"]
    files = small_files(layout)
    files["test_batch"]["labels"] = np.array(files["test_batch"]["labels"])
    write(layout, tmp_path, files)
    assert read_cifar(layout, tmp_path, download=False).test_labels.tolist() == [*range(10)] * 2


@pytest.mark.parametrize("names", [["cat"] * 9, ["cat"] * 11, ["cat"] * 9 + [3], "airplanes!", None])
def test_wrong_class_names_give_one_clear_line(tmp_path, names):
    layout = SMALL["cifar10"]
    write(layout, tmp_path, {**small_files(layout), "batches.meta": {"label_names": names}})
    with pytest.raises(InputError, match=r"batches\.meta: 'label_names' holds .*; expected 10 class names of CIFAR-10"):
        read_cifar(layout, tmp_path, download=False)


def test_a_file_of_code_is_refused_and_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/ran",)

    layout = SMALL["cifar10"]
    files = small_files(layout)
    files["data_batch_3"]["filenames"] = [Evil()]
    write(layout, tmp_path, files)
    with pytest.raises(InputError, match=r"data_batch_3: .*system.*Nothing in it was run"):
        read_cifar(layout, tmp_path, download=False)
    assert not (tmp_path / "ran").exists()


def test_truncated_files_never_load(tmp_path, layout):
    write(layout, tmp_path, small_files(layout))
    path = tmp_path / layout.folder / layout.train_files[0]
    whole = path.read_bytes()
    for length in np.linspace(0, len(whole) - 1, 50, dtype=int):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=str(path)):
            read_cifar(layout, tmp_path, download=False)


def test_a_file_far_above_the_published_size_is_not_read(tmp_path):
    layout = SMALL["cifar10"]
    write(layout, tmp_path, small_files(layout))
    with (tmp_path / layout.folder / "test_batch").open("ab") as file:
        file.truncate(1 << 40)  # sparse: takes no disk
    with pytest.raises(InputError, match=r"test_batch: has 1099511627776 bytes; expected at most 128000"):
        read_cifar(layout, tmp_path, download=False)


def test_missing_files_are_named_with_the_ways_out(tmp_path):
    with pytest.raises(InputError) as caught:
        load_images("cifar10", tmp_path)
    message = str(caught.value)
    assert message.startswith(f"data.dir: looked for CIFAR-10 in {tmp_path}/cifar-10-batches-py; missing data_batch_1,")
    for part in ("data_batch_5, test_batch, batches.meta", "--data.download true", "--data.name digits"):
        assert part in message
    layout = SMALL["cifar100"]
    files = small_files(layout)
    del files["test"]
    write(layout, tmp_path, files)
    with pytest.raises(InputError, match=r"cifar-100-python; missing test; expected train, test, meta"):
        read_cifar(layout, tmp_path, download=False)


def test_unknown_name_lists_the_names():
    with pytest.raises(
        InputError, match=r"data\.name: got 'cifar11'; expected one of cifar10, cifar100, digits.*'cifar10'"
    ):
        load_images("cifar11", Path("."))


def test_a_failed_download_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    url = "http://127.0.0.1:9/cifar-100-python.tar.gz"
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "url", url)
    with pytest.raises(InputError) as caught:
        load_images("cifar100", tmp_path, download=True)
    message = str(caught.value)
    assert message.startswith(f"data.download: CIFAR-100 could not be fetched from {url} (")
    assert "refused" in message
    assert "--data.name digits" in message
    assert "\n" not in message


class SomethingElse(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "14")
        self.end_headers()
        self.wfile.write(b"something else")

    def log_message(self, *_):
        pass


def test_a_download_of_other_content_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with http.server.HTTPServer(("127.0.0.1", 0), SomethingElse) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/cifar-10-python.tar.gz"
        monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", url)
        try:
            with pytest.raises(InputError, match=r"data\.download: CIFAR-10 could not be fetched .*corrupted"):
                load_images("cifar10", tmp_path, download=True)
        finally:
            server.shutdown()
            thread.join()
    assert not (tmp_path / "cifar-10-batches-py").exists()


def test_downloads_only_what_is_missing(tmp_path, monkeypatch, layout):
    calls = []

    def fetch(url: str, download_root: str, filename: str, md5: str) -> None:
        calls.append((url, filename, md5))
        published_folder = tmp_path / "published"
        published_folder.mkdir()
        write(layout, published_folder, small_files(layout))
        with tarfile.open(Path(download_root) / filename, "w:gz") as archive:
            archive.add(published_folder / layout.folder, layout.folder)

    monkeypatch.setattr(torchvision_utils, "download_url", fetch)
    first = read_cifar(layout, tmp_path, download=True)
    second = read_cifar(layout, tmp_path, download=True)
    np.testing.assert_array_equal(first.train_images_u8, second.train_images_u8)
    published = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}[layout.name]
    assert calls == [(published.url, published.filename, published.tgz_md5)]


def test_of_two_processes_one_downloads_and_the_other_waits(tmp_path, monkeypatch, layout):
    (tmp_path / "published").mkdir()
    write(layout, tmp_path / "published", small_files(layout))
    folder, log = tmp_path / "data", tmp_path / "log"

    def fetch(url: str, download_root: str, filename: str, md5: str) -> None:
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        path = Path(download_root) / filename
        path.write_bytes(b"half of an archive")
        time.sleep(0.5)
        with tarfile.open(path, "w:gz") as archive:
            archive.add(tmp_path / "published" / layout.folder, layout.folder)

    monkeypatch.setattr(torchvision_utils, "download_url", fetch)
    forked = multiprocessing.get_context("fork")
    both = [forked.Process(target=read_cifar, args=(layout, folder, True)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(30)
    assert [process.exitcode for process in both] == [0, 0]
    assert len(log.read_text().split()) == 1
    assert len(read_cifar(layout, folder, download=False).train_labels) > 0
    assert not list(folder.glob(".*")), "the lock is gone"


needs_data = pytest.mark.skipif("FASTMAGN_DATA" not in os.environ, reason="FASTMAGN_DATA is not set")


@pytest.fixture(scope="module")
def real_sets() -> dict:
    return {name: load_images(name, Path(os.environ["FASTMAGN_DATA"])) for name in ("cifar10", "cifar100")}


@needs_data
@pytest.mark.data
@pytest.mark.parametrize(("name", "num_classes"), [("cifar10", 10), ("cifar100", 100)])
def test_real_set(real_sets, name, num_classes):
    image_set = real_sets[name]
    assert image_set.train_images_u8.shape == (50_000, 32, 32, 3)
    assert image_set.test_images_u8.shape == (10_000, 32, 32, 3)
    assert np.bincount(image_set.train_labels).tolist() == [50_000 // num_classes] * num_classes
    assert np.bincount(image_set.test_labels).tolist() == [10_000 // num_classes] * num_classes
    assert len(set(image_set.class_names)) == image_set.num_classes == num_classes
    bytes_u8 = np.arange(256) / 255
    for channel in range(3):
        share = np.bincount(image_set.train_images_u8[..., channel].ravel(), minlength=256) / (50_000 * 1024)
        mean = share @ bytes_u8
        assert image_set.mean[channel] == pytest.approx(mean, abs=6e-5)
        assert image_set.std[channel] == pytest.approx(np.sqrt(share @ (bytes_u8 - mean) ** 2), abs=6e-5)


@needs_data
@pytest.mark.data
def test_real_cifar100_equals_torchvisions_reading(real_sets):
    for train in (True, False):
        theirs = torchvision.datasets.CIFAR100(os.environ["FASTMAGN_DATA"], train=train)
        ours = real_sets["cifar100"]
        np.testing.assert_array_equal(ours.train_images_u8 if train else ours.test_images_u8, theirs.data)
        np.testing.assert_array_equal(ours.train_labels if train else ours.test_labels, theirs.targets)
        assert list(ours.class_names) == theirs.classes


@needs_data
@pytest.mark.data
def test_real_cifar10_equals_the_unpickled_files(real_sets):
    # Not torchvision's class: a copy with its images in another order has other MD5s.
    folder = Path(os.environ["FASTMAGN_DATA"]) / "cifar-10-batches-py"
    ours = real_sets["cifar10"]
    for i in range(1, 6):
        theirs = pickle.loads((folder / f"data_batch_{i}").read_bytes(), encoding="latin1")
        theirs = {key.decode() if isinstance(key, bytes) else key: value for key, value in theirs.items()}
        rows = slice((i - 1) * 10_000, i * 10_000)
        images = theirs["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        assert np.array_equal(ours.train_images_u8[rows], images)
        assert ours.train_labels[rows].tolist() == theirs["labels"]
