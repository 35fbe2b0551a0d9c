"""Whether a run on a CPU compiles its network. It takes half a minute; `train.compile auto` does it where it pays."""

from contextlib import closing
from typing import Any, Literal

import torch

from fastmagn.errors import InputError, counted, one_line
from fastmagn.machine.console import console, warn
from fastmagn.runs.progress import Progress
from fastmagn.training.build import with_compiled_stages
from fastmagn.training.step import Run, make_pieces, prepared, without_gradient_sync

Asked = Literal["auto"] | bool

# resnet_small, 256 images of 32 x 32 px in four views, on two quiet cores: the medians of
# benchmarks/results/step-variants-cpu-2cores.json.
COLD_COMPILE_S = 28.0  # with an empty cache
SAVED_S_PER_PIXEL = 10e-3 / (256 * 4 * 32 * 32)


def is_repaid(steps_left: int, pixels_per_step: int) -> bool:
    """Whether the steps that are left save more time than compiling takes. Nothing is measured, so it is repeatable.

    Args:
        steps_left: Optimiser steps that are left.
        pixels_per_step: Pixels of a step's images in all their views, in one process.
    """
    return steps_left * pixels_per_step * SAVED_S_PER_PIXEL >= COLD_COMPILE_S


def is_compiled(asked: Asked, steps_left: int, pixels_per_step: int, before: bool | None) -> bool:
    """Whether a run on a CPU trains with a compiled network.

    Args:
        asked: `train.compile`.
        steps_left: As for `is_repaid`.
        pixels_per_step: As for `is_repaid`.
        before: Whether the run was compiled that wrote the checkpoint from which this one resumes; None without a
            checkpoint. `auto` keeps it, since a compiled network rounds otherwise.
    """
    if asked != "auto":
        return asked
    return is_repaid(steps_left, pixels_per_step) if before is None else before


def settle_compiled(run: Run, progress: Progress, asked: Asked, saved: dict[str, Any] | None) -> Run:
    """Decide whether a run on a CPU compiles its network, say so, and compile it. All processes take part.

    Args:
        run: The eager run.
        progress: Its position.
        asked: `train.compile`.
        saved: The flat configuration of the checkpoint that it resumes from; None without one.

    Returns:
        The run to train: `run`, or one with the same weights whose `config.train.compile` is true. If the network
        cannot be compiled, a warning says why, and it is `run`.
    """
    before = before_of(saved)
    steps_left = run.last_step - run.steps_done(progress)
    if not is_compiled(asked, steps_left, _pixels_per_step(run), before):
        return run
    compiled = with_compiled_stages(run)
    if steps_left == 0:
        return compiled
    if asked != "auto":
        why = "train.compile is true"
    elif before:
        why = "the run was compiled before it was interrupted"
    else:
        why = f"compiling takes less time than it saves in the remaining {counted(steps_left, 'step')}"
    console.print(f"compiling the network: {why}", soft_wrap=True)
    failure = next((fault for fault in run.world.gather(_try_to_compile(compiled, progress)) if fault), None)
    if failure is None:
        return compiled
    consequence = "; the checkpoint was trained by a compiled one, which rounds otherwise" if before else ""
    warn(f"train.compile: the network cannot be compiled ({failure}). It trains eagerly{consequence}.")
    return run


def before_of(saved: dict[str, Any] | None) -> bool | None:
    """Whether a checkpoint, by its flat configuration, is of a compiled run; None unless it is of a run on a CPU."""
    return saved.get("train.compile") if saved is not None and saved.get("device") == "cpu" else None


def _pixels_per_step(run: Run) -> int:
    height, width = run.image_size
    views = run.main_stage.method.layout(run.config.augment).num_views
    return run.config.train.batch_size // run.world.size * views * height * width


def _try_to_compile(run: Run, progress: Progress) -> str | None:
    """Take a step of each kind that is left, without its update; why that failed, in one line, or None.

    Weights, batch statistics and gradients are as before, so that the first real step is the same.
    """
    kept = [buffer.clone() for buffer in run.model.buffers()]
    run.model.train()
    try:
        for epoch in sorted({progress.epoch, max(progress.epoch, run.config.train.clean_epochs)}):
            with closing(run.source.batches(epoch)) as batches:
                piece = make_pieces(run, next(batches), epoch)[0]
            forward_loss = run.stage(epoch).forward_loss
            with without_gradient_sync(forward_loss):
                loss, _ = forward_loss(*prepared(run, piece))
                loss.backward()
    except InputError:
        raise
    except Exception as error:  # Dynamo, Inductor and the C++ compiler raise classes without a common base
        return one_line(error)
    finally:
        run.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for buffer, value in zip(run.model.buffers(), kept, strict=True):
                buffer.copy_(value)
    return None
