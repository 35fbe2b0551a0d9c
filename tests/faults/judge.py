"""Whether a finished run is the undisturbed one: every bit of its state, every row, every result but the times."""

import io
import json
from pathlib import Path
from typing import Any

import torch

# What the clock decides, and what says where the run lies.
_TIMES = {"epoch_s", "images_per_s", "train_s", "wall_s", "wall_images_per_s"}
_PLACES = {"run_dir", "environment"}


def differences(run_dir: Path, undisturbed: Path) -> list[str]:
    """Every way in which the two differ, in words; empty where they are the same."""
    found = []
    for name in ("checkpoints/last.pt", "metrics.jsonl", "results.json", "config.yaml"):
        if not (run_dir / name).is_file():
            found.append(f"{name} is missing")
    if found:
        return found
    found += _state_differences(run_dir, undisturbed)
    rows, expected = _rows(run_dir), _rows(undisturbed)
    if rows != expected:
        found.append(f"metrics.jsonl: epochs {[row.get('epoch') for row in rows]}, or their values, differ")
    if _results(run_dir) != _results(undisturbed):
        found.append("results.json differs")
    left = [path.name for path in run_dir.rglob("*.partial-*")]
    if left:
        found.append(f"left over: {', '.join(left)}")
    return found


def _state_differences(run_dir: Path, undisturbed: Path) -> list[str]:
    state, expected = (
        torch.load(io.BytesIO((folder / "checkpoints" / "last.pt").read_bytes()), weights_only=True)
        for folder in (run_dir, undisturbed)
    )
    parts = [name for name in ("model", "optimizer", "average", "scaler") if name in expected]
    return [f"{name} differs" for name in parts if bits(state.get(name)) != bits(expected[name])]


def bits(value: Any) -> Any:
    """A nest of tensors as bytes: equal where every bit is."""
    if isinstance(value, torch.Tensor):
        return (str(value.dtype), tuple(value.shape), value.contiguous().numpy().tobytes())
    if isinstance(value, dict):
        return {name: bits(inner) for name, inner in value.items()}
    return [bits(inner) for inner in value] if isinstance(value, list | tuple) else value


def without_times(path: Path) -> Any:
    """What a file of JSON, or of lines of JSON, holds besides times and the commit, which may change meanwhile."""
    return [_without(json.loads(line), _TIMES | {"commit"}) for line in _json_texts(path)]


def _json_texts(path: Path) -> list[str]:
    text = path.read_text()
    return text.splitlines() if path.suffix == ".jsonl" else [text]


def _rows(run_dir: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in _TIMES} for row in rows]


def _results(run_dir: Path) -> Any:
    return _without(json.loads((run_dir / "results.json").read_text()), _TIMES | _PLACES)


def _without(value: Any, names: set[str]) -> Any:
    if isinstance(value, dict):
        return {name: _without(inner, names) for name, inner in value.items() if name not in names}
    return [_without(inner, names) for inner in value] if isinstance(value, list) else value
