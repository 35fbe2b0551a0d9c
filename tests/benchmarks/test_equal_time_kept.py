"""benchmarks.equal_time: what a comparison keeps when it goes on, on any machine: its plan, its rates, its hardware."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import equal_time
from benchmarks.equal_time_extend import Record, on_hardware_of
from benchmarks.equal_time_plan import check_images_of, check_plan, images_of
from benchmarks.equal_time_rates import has_diverged
from benchmarks.time_to_mca import check_same_recipe
from fastmagn.config.schema import Config, DataConfig, TrainConfig
from fastmagn.config.text import flatten, plain
from fastmagn.data import load_data
from fastmagn.errors import InputError
from fastmagn.machine.files import write_json
from fastmagn.machine.hardware import settle_hardware
from fastmagn.sweeping.definition import Trial
from fastmagn.sweeping.trial import Outcome
from fastmagn_kernels import threads
from tests.benchmarks.test_equal_time import FAST, PLAN_OF_ONE_EPOCH
from tests.helpers.run_folders import made_results


def a_record(device: str = "cpu", amp: str = "bf16") -> Record:
    train = TrainConfig(amp=amp, compile=False)
    return Record(Path("record"), {"first": Config(device=device, train=train)}, {}, {}, [0], [])


def has_bf16(monkeypatch, has: bool) -> None:
    """The CPU has bfloat16, or emulates it."""
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"amx_bf16": has}, raising=False)


def test_a_new_recipe_has_the_records_device_precision_and_compilation(monkeypatch):
    """On a machine with a GPU, where `auto` would mean others."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    has_bf16(monkeypatch, True)
    new = settle_hardware(on_hardware_of(a_record(), "new", Config(method="magn")))
    assert (new.method, new.device, new.train.amp, new.train.compile) == ("magn", "cpu", "bf16", False)
    for config, message in (
        (Config(device="cuda"), "run new: device: got cuda; expected that of the record. Give --device cpu."),
        (
            Config(train=TrainConfig(amp="float32")),
            "run new: train.amp: got float32; expected that of the record. Give --train.amp bf16.",
        ),
        (
            Config(train=TrainConfig(compile=True)),
            "run new: train.compile: got true; expected that of the record. Give --train.compile false.",
        ),
    ):
        with pytest.raises(InputError) as error:
            on_hardware_of(a_record(), "new", config)
        assert str(error.value) == message
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match="was trained on cuda; PyTorch finds no CUDA device here"):
        on_hardware_of(a_record("cuda"), "new", Config())


def test_a_folder_that_is_no_record_cannot_be_extended(tmp_path):
    words = ["--out", str(tmp_path / "out"), "--run", "new", "", "--extend"]
    (tmp_path / "partly").mkdir()
    (tmp_path / "partly" / "equal_time.json").write_text(
        json.dumps({"settings": {"plan": {"recipes": {"one": {}}}, "seeds": [3]}})
    )
    for name, lacks in (
        ("misspelt", "equal_time.json"),
        ("", "equal_time.json"),
        ("partly", "one/seed3/results.json"),
        ("partly/equal_time.json", "equal_time.json"),
    ):
        with pytest.raises(InputError) as error:
            equal_time.main([*words, str(tmp_path / name)])
        assert str(error.value) == (
            f"extend: got {tmp_path / name}, which has no {lacks}; expected a folder of benchmarks/records with"
            " equal_time.json."
        )


@pytest.mark.parametrize("amp", ["auto", "bf16"])
def test_a_machine_that_emulates_the_records_precision_is_refused(amp, monkeypatch):
    has_bf16(monkeypatch, False)
    config = Config(method="magn", train=TrainConfig(amp=amp))
    with pytest.raises(InputError) as error:
        on_hardware_of(a_record(), "new", config)
    assert str(error.value) == (
        "extend: record was trained in bf16, which this machine's cpu emulates slowly, so that steps compare otherwise"
        " than there; expected a machine that has it."
    )
    in_float32 = a_record("cpu", "float32")
    assert on_hardware_of(in_float32, "new", Config(method="magn")).train.amp == "float32"


def test_a_plan_is_kept_for_fields_that_change_neither_results_nor_speed():
    fields = flatten(Config())
    plan = {"wanted_budget_s": 9.0, "configs": {"one": fields}, "environment": {"device": "cpu"}}

    def check(budget_s: float = 9.0, device: str = "cpu", **changed: object) -> None:
        named = {name.replace("__", "."): value for name, value in changed.items()}
        check_plan(Path("plan.json"), plan, budget_s, {"one": fields | named}, device)

    check()
    check(train__keep_checkpoints=3, train__checkpoint_every_steps=9, eval__batch_size=100)
    del plan["configs"]["one"]["train.swa_fraction"]  # a plan of a version that did not have it
    check(train__swa_fraction=0.0)
    for changed, what in (
        ({"budget_s": 10.0}, "budget_s is 9.0 there and 10.0 here"),
        ({"device": "cuda"}, "device is 'cpu' there and 'cuda' here"),
        ({"eval__num_images": 7}, "one: eval.num_images is 0 there and 7 here"),
        ({"data__num_workers": 2}, "one: data.num_workers is 0 there and 2 here"),
        ({"eval__batch_size": 100, "eval__batch_norm": "adapt"}, "one: eval.batch_size is 1000 there and 100 here"),
    ):
        with pytest.raises(InputError) as error:
            check(**changed)
        assert f"plan.json: is the plan of another comparison ({what})" in str(error.value)


class Trained:
    """In place of runs: they write results, and with a learning rate of 0.4 or more they diverge."""

    def __init__(self, monkeypatch) -> None:
        self.names, self.error = [], "cross_entropy: got a value that is not finite at step 3 (epoch 1); expected a"
        monkeypatch.setattr(equal_time, "make_plan", lambda recipes, *_: dict(PLAN_OF_ONE_EPOCH))
        monkeypatch.setattr(equal_time, "run_all", self.run_all)

    def run_all(self, trials: list[Trial], options: object, after_run: object) -> list[Outcome]:
        self.names += [trial.name for trial in trials]
        good = [trial for trial in trials if trial.config.optim.lr < 0.4]
        for trial in good:
            accuracy = {"accuracy": 1 - trial.config.optim.lr}
            times = {"train_s": 1.0, "wall_s": 1.0, "best_validation": accuracy}
            write_json(trial.config.run_dir / "results.json", made_results(trial.config, **times))
        return [Outcome(trial.name, "failed", self.error) for trial in trials if trial not in good]


ONE = ["--budget_s", "1", "--seeds", "0", "--run", "one", "--method standard", *FAST]


def test_a_rate_that_diverges_is_not_chosen_nor_tried_again(tmp_path, monkeypatch, capsys):
    trained = Trained(monkeypatch)
    arguments = [*ONE, "--out", str(tmp_path), "--rates", "0.2", "0.3", "0.4"]
    assert equal_time.main(arguments) == 0
    assert trained.names == ["one, lr 0.2", "one, lr 0.3", "one, lr 0.4", "one, seed 0"]
    shown = [re.findall(r"[\w.*]+", line) for line in capsys.readouterr().out.splitlines()]
    assert ["one", "80.00*", "70.00", "diverged"] in shown
    settings = json.loads((tmp_path / equal_time.TABLE).read_text())["settings"]
    assert settings["rates"]["one"]["0.4"] is None
    assert settings["learning_rates"] == {"one": 0.2}
    assert equal_time.main(arguments) == 0
    assert len(trained.names) == 4


def test_rates_that_all_diverge_or_that_fail_otherwise_end_it(tmp_path, monkeypatch, capsys):
    trained = Trained(monkeypatch)
    arguments = [*ONE, "--out", str(tmp_path), "--rates"]
    with pytest.raises(InputError) as error:
        equal_time.main([*arguments, "0.5", "0.4"])
    assert str(error.value) == "rates: got [0.4, 0.5]; expected one with which one does not diverge. Lower them."
    trained.error = "data.dir: nowhere: no such file or folder"
    assert equal_time.main([*arguments, "0.2", "0.6"]) == 1
    assert f"failed: one, lr 0.6: {trained.error}" in capsys.readouterr().out
    assert "one, seed 0" not in trained.names
    assert equal_time.main([*arguments, "0.2"]) == 0


def test_other_rates_are_another_comparison(tmp_path, monkeypatch):
    """Also for a plan that an earlier version made, which does not say them."""
    trained = Trained(monkeypatch)
    arguments, plan = [*ONE, "--out", str(tmp_path)], tmp_path / equal_time.PLAN
    assert equal_time.main([*arguments, "--plan_only"]) == 0
    assert equal_time.main([*arguments, "--rates", "0.2", "0.3"]) == 0
    assert equal_time.main([*arguments, "--rates", "0.3", "0.2", "--plan_only"]) == 0
    trained.names.clear()
    for other in (["--rates", "0.1", "0.3"], ["--rates", "0.2", "0.3", "--rate_s", "9"], []):
        with pytest.raises(InputError, match=r"plan\.json: is the plan of another comparison \(rates are"):
            equal_time.main([*arguments, *other])
    assert trained.names == []
    old = {name: value for name, value in json.loads(plan.read_text()).items() if name != "rates"}
    write_json(plan, old)
    with pytest.raises(InputError, match=r"seed0: has a run of another recipe: optim\.lr is 0\.2 there and 0\.1 here"):
        equal_time.main([*arguments, "--rates", "0.1", "0.3"])
    assert trained.names == ["one, lr 0.1"]
    assert json.loads(plan.read_text()) == old
    assert equal_time.main([*arguments, "--rates", "0.2", "0.3"]) == 0


def test_a_plan_and_a_divergence_hold_for_the_images_of_their_own_data_set(tmp_path):
    """A data set of the user's own may have moved; one with other images has other epochs, and may not diverge."""

    def on(folder: str, seed: int) -> Config:
        images = np.random.default_rng(seed).integers(0, 256, (4, 32, 32, 3), np.uint8)
        arrays = {"train_images": images, "test_images": images}
        arrays |= {"train_labels": np.arange(4) % 2, "test_labels": np.arange(4) % 2}
        (tmp_path / folder).mkdir()
        np.savez(tmp_path / folder / "m.npz", **arrays)
        return Config(run_dir=tmp_path, data=DataConfig(name="npz", dir=tmp_path / folder))

    first, moved, other = on("first", 0), on("moved", 0), on("other", 1)
    plan = {"images": images_of({"one": first, "digits": Config()})}
    assert list(plan["images"]) == ["one"]
    check_images_of(Path("plan.json"), {}, {"one": other})  # an older plan
    check_images_of(Path("plan.json"), plan, {"one": first})
    check_images_of(Path("plan.json"), plan, {"one": moved})
    with pytest.raises(InputError, match=r"plan\.json: is the plan of other images \(one: data\.dir is .*first there"):
        check_images_of(Path("plan.json"), plan, {"one": other})
    write_json(tmp_path / "diverged.json", {"config": plain(first)})
    assert has_diverged(Trial("one", {}, first))
    assert not has_diverged(Trial("one", {}, other))

    fingerprint = load_data(first.data).test_fingerprint
    write_json(tmp_path / "results.json", made_results(first, test_fingerprint=fingerprint))
    for config in (first, moved):
        check_same_recipe(tmp_path, ["--data.name", "npz", "--data.dir", str(config.data.dir)])
    with pytest.raises(InputError, match=r"has the results of other images: data\.dir is .*first there and .*other"):
        check_same_recipe(tmp_path, ["--data.name", "npz", "--data.dir", str(other.data.dir)])


def test_runs_share_the_cores_of_the_cgroups_quota(tmp_path, monkeypatch):
    given = []

    def run_trial(run_dir: Path, folder: Path, number: int, *_: object) -> Outcome:
        given.append(number)
        return Outcome(run_dir.name, "finished")

    monkeypatch.setattr(equal_time, "run_trial", run_trial)
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(threads, "_cgroup_quota", lambda *_: 6.0)
    trials = [Trial("one", {}, Config(run_dir=tmp_path / "one"))]
    assert equal_time.run_all(trials, SimpleNamespace(jobs=2), lambda: None) == []
    assert given == [3]
