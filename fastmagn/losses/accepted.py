"""What a loss accepts.

Only types, shapes, dtypes and devices are looked at, never a value: the host would have to wait for CUDA.
"""

from collections.abc import Sequence

from torch import Tensor

from fastmagn.errors import InputError, form


def check_logits(field: str, logits: Tensor) -> None:
    """Raise InputError unless `logits` are floats [B, K]."""
    if not (isinstance(logits, Tensor) and logits.ndim == 2 and logits.is_floating_point()):
        raise InputError(f"{field}: got {_form(logits)}; expected logits, a float tensor [B, K].")


def check_views(field: str, views: Sequence[Tensor] | Tensor, clean: Tensor) -> None:
    """Raise InputError unless `views` are logits of the clean view's shape and device: a sequence, or one [N, B, K]."""
    wanted = "some tensors of the clean logits' shape and device, or one of them stacked, [N, B, K]"
    if not isinstance(views, list | tuple | Tensor):
        raise InputError(f"{field}: got {_form(views)}; expected {wanted}.")
    if isinstance(views, Tensor) and views.ndim != 3:
        raise InputError(f"{field}: got {_form(views)}; expected {wanted}. Give a single view as a list, [logits].")
    for number, view in enumerate(views):
        fits = isinstance(view, Tensor) and view.shape == clean.shape and view.is_floating_point()
        if not fits or view.device != clean.device:
            raise InputError(f"{field}[{number}]: got {_form(view)}; expected logits like the clean {_form(clean)}.")


def check_labels(labels: Tensor, clean: Tensor) -> None:
    """Raise InputError unless `labels` are class indices [B] or probabilities [B, K] of the logits `clean`, [B, K]."""
    if isinstance(labels, Tensor) and labels.device == clean.device:
        is_real = not labels.is_complex() and str(labels.dtype) != "torch.bool"
        if labels.shape == clean.shape[:1] and is_real and not labels.is_floating_point():
            return
        if labels.shape == clean.shape and labels.is_floating_point():
            return
    hint = ""
    if isinstance(labels, Tensor) and labels.shape == clean.shape:
        hint = " Give one-hot labels as labels.float()."
    raise InputError(
        f"labels: got {_form(labels)}; expected integers [B], or probabilities, floats [B, K], for the logits"
        f" {_form(clean)}.{hint}"
    )


def _form(value: object) -> str:
    """A tensor's dtype, shape and, elsewhere than on the CPU, device; another value's type."""
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    place = "" if value.device.type == "cpu" else f" on {value.device}"
    return form(value) + place
