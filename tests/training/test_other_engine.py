"""A run that began with one engine and is asked for with another: exact ones are one, the others are told apart."""

import pytest
import torch

from fastmagn.errors import InputError
from fastmagn.runs.checkpoint import read_checkpoint
from fastmagn.runs.paths import RESULTS, last_checkpoint
from fastmagn.training.run import train
from tests.helpers.small_runs import knows_the_network, small

pytest.importorskip("kornia", reason="needs Kornia: pip install 'fastmagn[kornia]'")


def test_a_run_that_resumes_with_other_views_says_so_and_a_trained_one_keeps_its_own(tmp_path, monkeypatch, capsys):
    knows_the_network(monkeypatch)
    run_dir = tmp_path / "run"
    last = last_checkpoint(run_dir)

    def said(backend: str, steps: int) -> str:
        train(small(run_dir, "--augment.backend", backend, "--train.max_steps", str(steps)))
        return capsys.readouterr().out

    said("auto", 1)
    assert "is finished" in said("pil", 1)
    assert "warning" not in said("numba", 2)
    warning = (
        f"warning: {last} was trained on views that 'numba' made; now 'kornia' makes them, and some pixels differ by"
        " some levels (augment.backend). The run resumes: its weights will be those of neither engine alone."
    )
    assert said("kornia", 3).count(warning) == 1
    assert "warning" not in said("kornia", 4)
    kept = (run_dir / RESULTS).read_bytes()
    for backend in ("auto", "dali"):
        with pytest.raises(InputError) as error:
            said(backend, 4)
        assert str(error.value) == (
            f"augment.backend: got '{backend}'; expected 'kornia', with which {last} was trained. Name another"
            " --run_dir to train from scratch."
        )
        assert (run_dir / RESULTS).read_bytes() == kept
    assert said("pil", 5).count("was trained on views that 'kornia' made; now 'pil' makes them") == 1
    assert read_checkpoint(last, torch.device("cpu"))["config"]["augment.backend"] == "pil"
