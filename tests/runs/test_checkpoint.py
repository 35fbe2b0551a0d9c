"""Checkpoints: whatever happens to the file shows, the one before is used, and last.pt is always there."""

import dataclasses
import hashlib
import io
import json
import os
import random
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastmagn.config.schema import Config
from fastmagn.config.text import flatten
from fastmagn.data import DATASETS, ImageSet, load_images
from fastmagn.data.digits import load_digits
from fastmagn.errors import InputError
from fastmagn.evaluation.run import evaluate_run
from fastmagn.machine.files import replace_file, replace_folder
from fastmagn.runs.checkpoint import load_model, read_checkpoint, save_checkpoint
from fastmagn.runs.checkpoint_folder import newest_whole_checkpoint, put_checkpoint, remove_partial_files
from fastmagn.runs.checksum import add_checksum, find_damage, stored_step
from fastmagn.runs.paths import CHECKPOINTS, LOGITS, RESULTS, last_checkpoint
from fastmagn.runs.progress import Progress
from fastmagn.training.run import train
from tests.helpers.small_runs import assert_ends_alike, knows_the_network, rows, small, state, without_times
from tests.helpers.smooth_network import smooth_network

CPU = torch.device("cpu")


def put(run_dir: Path, step: int, keep: int = 2) -> None:
    """A checkpoint whose first weights are all `step`."""
    model = smooth_network(10)
    torch.nn.init.constant_(model[0].weight, step)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    states = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "scaler": {}}

    def write(path: Path) -> None:
        config = flatten(Config())
        save_checkpoint(path, step=step, progress=Progress(), config=config, data_fingerprint="0" * 64, **states)

    put_checkpoint(run_dir, step, 100_000, keep, write)


def first_weight(path: Path) -> float:
    return float(read_checkpoint(path, CPU)["model"]["0.weight"].flatten()[0])


def names(run_dir: Path) -> list[str]:
    return sorted(path.name for path in (run_dir / "checkpoints").iterdir())


@pytest.fixture
def two(tmp_path) -> Path:
    """A run folder with the checkpoints of steps 3 and 7."""
    put(tmp_path / "run", 3)
    put(tmp_path / "run", 7)
    return tmp_path / "run"


def tiny_archive() -> bytes:
    file = io.BytesIO()
    torch.save({"step": 5}, file)
    add_checksum(file, 5)
    return file.getvalue()


def test_the_checksum_is_sha256_of_all_before_it_and_the_file_stays_an_archive(two):
    path = last_checkpoint(two)
    content = path.read_bytes()
    assert content[-64:] == hashlib.sha256(content[:-64]).hexdigest().encode()
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.comment == content[-98:]
        assert archive.comment.startswith(b"fastmagn step 000000000007 sha256 ")
    assert torch.load(path, weights_only=True)["step"] == 7
    assert stored_step(path) == 7


def test_every_bit_flipped_every_length_and_every_byte_more_shows():
    whole = tiny_archive()
    assert find_damage(io.BytesIO(whole)) is None
    for position in range(len(whole)):
        for bit in range(8):
            flipped = bytearray(whole)
            flipped[position] ^= 1 << bit
            assert find_damage(io.BytesIO(flipped)) is not None, (position, bit)
    for length in range(len(whole)):
        assert find_damage(io.BytesIO(whole[:length])) is not None, length
    assert find_damage(io.BytesIO(whole + b"\0")) is not None
    assert find_damage(io.BytesIO(whole + whole)) is not None
    assert find_damage(io.BytesIO(whole[:-100] + whole[-98:])) is not None


@given(st.binary(max_size=300))
def test_no_other_bytes_are_a_sealed_file(content):
    assert find_damage(io.BytesIO(content)) is not None
    assert find_damage(io.BytesIO(content + tiny_archive()[-98:])) is not None


@pytest.mark.parametrize("seed", range(4))
def test_damage_at_random_places_gives_way_to_the_checkpoint_before(seed, two, capsys):
    """100 flips and 50 truncations of each of four seeds; the ends of the file are likelier than by chance."""
    last, generator = last_checkpoint(two), random.Random(seed)
    whole, before = last.read_bytes(), (two / "checkpoints" / "step-00000003.pt").read_bytes()
    for trial in range(150):
        damaged = bytearray(whole)
        if trial < 100:
            region = generator.choice([(0, len(whole)), (0, 200), (len(whole) - 200, len(whole))])
            damaged[generator.randrange(*region)] ^= 1 << generator.randrange(8)
        else:
            del damaged[
                generator.choice([0, generator.randrange(len(whole)), len(whole) - generator.randrange(1, 99)]) :
            ]
        last.unlink()
        last.write_bytes(damaged)
        with pytest.raises(InputError, match=r"last\.pt: (is empty|does not)") as error:
            read_checkpoint(last, CPU)
        assert "\n" not in str(error.value)
        assert newest_whole_checkpoint(two) == last
        assert last.read_bytes() == before
        assert (two / "checkpoints" / "last.pt.damaged").read_bytes() == damaged
        (two / "checkpoints" / "last.pt.damaged").unlink()
        warning = " ".join(capsys.readouterr().out.split())
        assert warning.count("warning:") == 1
        assert "last.pt is empty" in warning or "last.pt does not" in warning
        assert "resuming from the checkpoint before, step-00000003.pt." in warning
    assert first_weight(last) == 3


def test_damaged_files_are_set_aside_under_names_of_their_own(two):
    for content in (b"first", b"second"):
        last_checkpoint(two).unlink()
        last_checkpoint(two).write_bytes(content)
        newest_whole_checkpoint(two)
    assert (two / "checkpoints" / "last.pt.damaged").read_bytes() == b"first"
    assert (two / "checkpoints" / "last.pt.damaged-2").read_bytes() == b"second"


def test_two_damaged_ones_give_way_to_the_third(tmp_path):
    for step in (3, 7, 9):
        put(tmp_path, step, keep=3)
    for name in ("last.pt", "step-00000007.pt"):
        path = tmp_path / "checkpoints" / name
        path.unlink()
        path.write_bytes(b"")
    assert first_weight(newest_whole_checkpoint(tmp_path)) == 3
    assert names(tmp_path) == ["last.pt", "last.pt.damaged", "step-00000003.pt", "step-00000007.pt.damaged"]


def test_a_missing_last_one_gives_way_too(two, capsys):
    last_checkpoint(two).unlink()
    assert first_weight(newest_whole_checkpoint(two)) == 3
    assert "last.pt is missing; resuming from the checkpoint before" in " ".join(capsys.readouterr().out.split())


def test_no_whole_checkpoint_is_an_error_and_changes_nothing(two):
    for name in ("last.pt", "step-00000003.pt"):
        path = two / "checkpoints" / name
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content[:-1])
    before = {name: (two / "checkpoints" / name).read_bytes() for name in names(two)}
    with pytest.raises(InputError) as error:
        newest_whole_checkpoint(two)
    folder = two / "checkpoints"
    cut = "does not end with a checksum: it is cut short, or another version of fastmagn wrote it"
    assert str(error.value) == (
        f"{folder}/last.pt: {cut}, and no older checkpoint is intact: step-00000003.pt {cut}. Put an intact copy in its"
        f" place, remove {folder}, or name another --run_dir to train from scratch."
    )
    assert before == {name: (two / "checkpoints" / name).read_bytes() for name in names(two)}
    assert newest_whole_checkpoint(two.parent / "another") is None


@pytest.mark.parametrize("keep", [1, 2, 4])
def test_the_last_few_are_kept_and_at_no_instant_is_there_no_last_one(keep, tmp_path, monkeypatch):
    last = last_checkpoint(tmp_path)
    for name in ("replace", "link", "unlink", "fsync"):
        honest = getattr(os, name)

        def watched(*arguments, honest=honest, **options):
            result = honest(*arguments, **options)
            if step > 10:
                assert find_damage(io.BytesIO(last.read_bytes())) is None
            return result

        monkeypatch.setattr(os, name, watched)
    for step in range(10, 70, 10):
        put(tmp_path, step, keep)
    older = [f"step-{step:08d}.pt" for step in (20, 30, 40, 50)[5 - keep :]] if keep > 1 else []
    assert names(tmp_path) == ["last.pt", *older]
    assert first_weight(last) == 60
    for name in older:
        assert first_weight(tmp_path / "checkpoints" / name) == int(name[5:13])


def test_the_same_step_again_leaves_the_one_before_it(two):
    put(two, 7)
    assert names(two) == ["last.pt", "step-00000003.pt"]


def test_without_hard_links_the_one_before_is_copied(two, monkeypatch):
    def refused(*arguments):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    put(two, 9)
    assert names(two) == ["last.pt", "step-00000007.pt"]
    assert first_weight(two / "checkpoints" / "step-00000007.pt") == 7
    last_checkpoint(two).write_bytes(b"")
    assert first_weight(newest_whole_checkpoint(two)) == 7


CALLS = ("open", "link", "replace", "rename", "unlink", "fsync")


def killed_at(call: int, work) -> bool:
    """Whether a forked process was ended just before the `call`-th call of the file system in `work`."""
    pid = os.fork()
    if pid == 0:
        count = 0
        for name in CALLS:
            honest = getattr(os, name)

            def counted(*arguments, honest=honest, **options):
                nonlocal count
                count += 1
                if count > call:
                    os._exit(9)
                return honest(*arguments, **options)

            setattr(os, name, counted)
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9


@pytest.mark.process
@pytest.mark.parametrize("work", ["put", "give way"])
def test_a_process_killed_at_any_call_leaves_a_whole_last_checkpoint(work, two, tmp_path):
    """Also one without the chance to tidy up: a fork that ends there and then."""
    if work == "give way":
        last_checkpoint(two).unlink()
        last_checkpoint(two).write_bytes(b"damaged")
    expected = {7, 9} if work == "put" else {3}
    for call in range(100):
        run_dir = tmp_path / f"call{call}"
        shutil.copytree(two, run_dir)
        killed = killed_at(call, lambda at=run_dir: put(at, 9) if work == "put" else newest_whole_checkpoint(at))
        assert last_checkpoint(run_dir).exists()
        assert first_weight(newest_whole_checkpoint(run_dir)) in expected
        remove_partial_files(run_dir)
        assert not list(run_dir.rglob("*.partial-*"))
        put(run_dir, 11)
        assert first_weight(last_checkpoint(run_dir)) == 11
        if not killed:
            break
    assert 4 < call < 99


def test_what_a_killed_process_left_half_written_is_removed_and_the_old_put_back(tmp_path, monkeypatch):
    """Killed at the worst moment: the old logits are renamed, the new ones not yet."""
    run_dir, killed, rename = tmp_path / "run", tmp_path / "killed", os.rename
    (run_dir / LOGITS).mkdir(parents=True)
    (run_dir / LOGITS / "old.npy").touch()

    def rename_and_look(source: Path, target: Path) -> None:
        rename(source, target)
        if not killed.exists():
            shutil.copytree(run_dir, killed)

    monkeypatch.setattr(os, "rename", rename_and_look)
    with replace_file(run_dir / RESULTS), replace_file(last_checkpoint(run_dir)), replace_folder(run_dir / LOGITS):
        pass
    left = sorted(path.name.rsplit("-", 2)[0] for path in killed.rglob("*-*"))
    assert left == ["last.pt.partial", "logits.old", "logits.partial", "results.json.partial"]
    remove_partial_files(killed)
    logits = killed / LOGITS
    assert sorted(killed.rglob("*")) == [killed / CHECKPOINTS, logits, logits / "old.npy"]


class Attack:
    """Pickles to a call of os.mkdir."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("attack", "cannot be read as a checkpoint (UnpicklingError); remove it."),
        ({"format_version": 2}, "got checkpoint format 2; expected 3. Use its own fastmagn."),
        ({"no": "version"}, "cannot be read as a checkpoint (KeyError); remove it."),
        ([1, 2], "cannot be read as a checkpoint (TypeError); remove it."),
        ({"format_version": 3, "model": {}}, "has no config, config_sha256, data_fingerprint, optimizer, progress,"),
    ],
)
def test_a_checksum_makes_no_checkpoint_of_something_else(content, message, tmp_path):
    path = tmp_path / "last.pt"
    with path.open("w+b") as file:
        torch.save(Attack(tmp_path / "pwned") if content == "attack" else content, file)
        add_checksum(file, 1)
    with pytest.raises(InputError) as error:
        read_checkpoint(path, CPU)
    assert str(error.value).startswith(f"{path}: {message}")
    assert not (tmp_path / "pwned").exists()


def test_only_training_goes_on_from_the_checkpoint_before(undisturbed, tmp_path, monkeypatch):
    """Numbers of an earlier step must not pass for the run's."""
    knows_the_network(monkeypatch)
    run_dir = shutil.copytree(undisturbed, tmp_path / "run")
    last_checkpoint(run_dir).write_bytes(last_checkpoint(undisturbed).read_bytes()[:-1])
    with pytest.raises(InputError) as error:
        evaluate_run(run_dir, small(run_dir))
    assert str(error.value) == (
        f"{last_checkpoint(run_dir)}: does not end with a checksum: it is cut short, or another version of fastmagn"
        " wrote it. python -m fastmagn.train with this --run_dir resumes from the checkpoint before it; or put an"
        " intact copy in its place."
    )


def test_what_is_not_a_file_is_not_waited_for(two):
    last_checkpoint(two).unlink()
    os.mkfifo(last_checkpoint(two))
    with pytest.raises(InputError, match=r"last\.pt: is not a file; expected a checkpoint"):
        read_checkpoint(last_checkpoint(two), CPU)
    assert first_weight(newest_whole_checkpoint(two)) == 3


def test_weights_of_another_model_are_an_error(two):
    for model in ({"0.weight": 3}, 5):
        with pytest.raises(InputError, match=r"do not fit this model; check model\.name and data\.name"):
            load_model({"model": model}, smooth_network(10), Path("last.pt"))
    with pytest.raises(InputError, match=r"do not fit this model; check"):
        load_model(read_checkpoint(last_checkpoint(two), CPU), smooth_network(100), Path("last.pt"))


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(undisturbed, tmp_path, monkeypatch, capsys):
    knows_the_network(monkeypatch)
    run_dir = tmp_path / "run"
    arguments = ("--train.checkpoint_every_steps", "1")
    train(small(run_dir, *arguments, "--train.max_steps", "6"))
    damaged = bytearray(last_checkpoint(run_dir).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    last_checkpoint(run_dir).write_bytes(damaged)
    train(small(run_dir, *arguments))
    output = " ".join(capsys.readouterr().out.split())
    assert "last.pt does not match its checksum: it is damaged; resuming from the checkpoint before, step-" in output
    assert_ends_alike(run_dir, undisturbed)
    assert (run_dir / "checkpoints" / "last.pt.damaged").read_bytes() == damaged
    assert {path.name for path in (run_dir / "checkpoints").iterdir()} == {
        *("last.pt", "last.pt.damaged", "step-00000007.pt"),
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ("--train.amp", "fp16", "--train.ema_decay", "0.9", "--train.accumulation_steps", "2"),
        ("--optim.name", "muon", "--optim.schedule", "triangular", "--train.clean_epochs", "1"),
        ("--optim.name", "adamw", "--optim.lr", "0.01", "--optim.clip_norm", "0.5", "--train.swa_fraction", "0.5"),
    ],
)
def test_all_that_trains_is_in_the_checkpoint(arguments, tmp_path, monkeypatch):
    """Loss scaler and average, another optimiser: stopped within each epoch, equal to the bit at the end."""
    knows_the_network(monkeypatch)
    train(small(tmp_path / "whole", *arguments))
    for stop in ("3", "5"):
        train(small(tmp_path / "cut", *arguments, "--train.max_steps", stop))
    train(small(tmp_path / "cut", *arguments))
    assert_ends_alike(tmp_path / "cut", tmp_path / "whole")
    whole, cut = state(tmp_path / "whole"), state(tmp_path / "cut")
    assert cut["scaler"] == whole["scaler"]
    for name, value in whole.get("average", {}).items():
        assert torch.equal(cut["average"][name], value), name


def test_the_metrics_are_those_of_the_checkpoint_whatever_became_of_the_file(undisturbed, tmp_path, monkeypatch):
    knows_the_network(monkeypatch)
    train(small(tmp_path / "run", "--train.max_steps", "4"))
    (tmp_path / "run" / "metrics.jsonl").write_text('{"epoch": 0, "loss": 1.0}\n{"epoch": 1, "lo')
    train(small(tmp_path / "run"))
    assert_ends_alike(tmp_path / "run", undisturbed)


def test_the_row_of_a_part_of_an_epoch_stays_until_the_epoch_goes_on(undisturbed, tmp_path, monkeypatch):
    knows_the_network(monkeypatch)
    first = small(tmp_path / "run", "--train.max_steps", "6")
    train(first)
    part = rows(tmp_path / "run")
    assert [row["step"] for row in part] == [4, 6]
    train(dataclasses.replace(first, eval=dataclasses.replace(first.eval, num_images=5)))
    assert rows(tmp_path / "run") == part
    train(small(tmp_path / "run"))
    assert without_times(rows(tmp_path / "run")) == without_times(rows(undisturbed))


def test_the_best_validation_accuracy_is_kept_beside_the_last(undisturbed, tmp_path, monkeypatch):
    results = json.loads((undisturbed / "results.json").read_text())
    accuracies = [row["validation_accuracy"] for row in rows(undisturbed)]
    best = int(np.argmax(accuracies))
    assert results["best_validation"] == {"epoch": best, "accuracy": accuracies[best]}
    values = [0.2, 0.7, 0.7, 0.1]
    progress = Progress(rows=[{"epoch": i, "validation_accuracy": value} for i, value in enumerate(values)])
    assert progress.best_validation() == {"epoch": 1, "accuracy": 0.7}
    assert Progress(rows=[{"epoch": 0}]).best_validation() is None


def test_epochs_that_were_measured_otherwise_are_not_compared(undisturbed, tmp_path, monkeypatch):
    knows_the_network(monkeypatch)
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    assert "best_validation" in json.loads((run / "results.json").read_text())
    best = train(small(run, "--eval.rse_draws", "3"))["best_validation"]
    assert best == json.loads((undisturbed / "results.json").read_text())["best_validation"], "augmix draws nothing"
    assert "best_validation" not in train(small(run, "--eval.test_time_flip", "true"))
    before = Progress(rows=[{"epoch": i, "validation_accuracy": 0.9 - i / 10} for i in range(3)], measured_alike_from=1)
    assert before.best_validation() == {"epoch": 1, "accuracy": 0.8}


def test_other_data_under_a_resumed_run_are_refused(undisturbed, tmp_path, monkeypatch):
    knows_the_network(monkeypatch)
    shutil.copytree(undisturbed, tmp_path / "run")
    monkeypatch.setitem(DATASETS, "digits", "tests.runs.test_checkpoint:same_digits")
    train(small(tmp_path / "run"))  # another copy of the same images
    monkeypatch.setitem(DATASETS, "digits", "tests.runs.test_checkpoint:changed_digits")
    with pytest.raises(InputError) as error:
        train(small(tmp_path / "run"))
    before = state(undisturbed)["data_fingerprint"]
    assert str(error.value).startswith(
        f"data.dir: data has other training images or labels than {last_checkpoint(tmp_path / 'run')} was made with"
    )
    assert f"then {before[:16]}" in str(error.value)


def same_digits(folder: Path, download: bool) -> ImageSet:
    return load_digits(folder, download)


def changed_digits(folder: Path, download: bool) -> ImageSet:
    """One bit of one pixel is another one."""
    image_set = same_digits(folder, download)
    images_u8 = image_set.train_images_u8.copy()
    images_u8[700, 3, 4, 1] ^= 1
    return dataclasses.replace(image_set, train_images_u8=images_u8)


def test_a_fingerprint_tells_images_labels_and_their_order_apart():
    image_set = load_images("digits", Path())
    order = np.arange(len(image_set.train_labels))
    order[[0, 1]] = order[[1, 0]]
    labels = image_set.train_labels.copy()
    labels[5] = (labels[5] + 1) % 10
    others = [
        changed_digits(Path(), False),
        dataclasses.replace(image_set, train_labels=labels),
        dataclasses.replace(image_set, train_images_u8=image_set.train_images_u8[order].copy()),
        dataclasses.replace(image_set, class_names=(*"abcdefghij",)),
        dataclasses.replace(
            image_set, train_images_u8=image_set.train_images_u8[:-1], train_labels=image_set.train_labels[:-1]
        ),
    ]
    assert same_digits(Path(), False).fingerprint == image_set.fingerprint
    assert len({image_set.fingerprint, *(other.fingerprint for other in others)}) == 1 + len(others)
