"""The model that is measured."""

from torch import Tensor, nn

from fastmagn.config.schema import Config
from fastmagn.losses.divergences import log_softmax
from fastmagn.methods.rse import NoiseEnsemble
from fastmagn.methods.table import get_method


def model_for_test(model: nn.Module, config: Config, image_size: tuple[int, int]) -> nn.Module:
    """The model that is measured after training: itself, or its method's ensemble, or that with mirror images.

    Args:
        model: Images [B, 3, H, W] in [0, 1] -> logits [B, K].
        config: The configuration of the run.
        image_size: (H, W), px.
    """
    test_time = get_method(config.method).test_time
    model = model if test_time is None else test_time(model, config, image_size)
    return MirrorEnsemble(model) if config.eval.test_time_flip else model


class MirrorEnsemble(nn.Module):
    """Averages the logits of an image and its mirror image: images [B, C, H, W] -> logits [B, K].

    The mean of a `NoiseEnsemble`'s log-probabilities is normalised again, so that they stay log-probabilities.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.train(model.training)

    def forward(self, images: Tensor) -> Tensor:
        mean = (self.model(images) + self.model(images.flip(dims=(3,)))) / 2
        return log_softmax(mean) if isinstance(self.model, NoiseEnsemble) else mean
