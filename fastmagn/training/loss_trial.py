"""Tries the loss of a method of the user's own before it is compiled: PyTorch's error would hide what is wrong."""

import torch
from torch import Tensor

from fastmagn.config.schema import Config
from fastmagn.methods.method import Method, split_logits
from fastmagn.methods.table import METHODS, base_name
from fastmagn.registry import is_own


class LossTrial:
    """Calls the loss of a method of the user's own once, on logits of 0, where its step is compiled.

    Args:
        method: The method.
        config: The configuration of the run.
    """

    def __init__(self, method: Method, config: Config) -> None:
        self.method, self.config = method, config
        self.is_due = bool(config.train.compile) and is_own(METHODS, base_name(config.method))

    def before_step(self, views: Tensor, targets: Tensor, num_classes: int) -> None:
        """Call the loss if it has not been called yet.

        Args:
            views: The model's, float [V*B, 3, H, W].
            targets: Theirs, int64 [B] or float [B, K].
            num_classes: K.

        Raises:
            InputError: The loss returns something else than a method's loss does.
        """
        if self.is_due:
            self.is_due = False
            logits = torch.zeros(len(views), num_classes, dtype=torch.float32, device=views.device)
            layout = self.method.layout(self.config.augment)
            self.method.checked_loss(split_logits(logits, layout), targets, self.config.loss)
