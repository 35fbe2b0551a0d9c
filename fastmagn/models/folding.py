"""Copies of models whose batch normalisations are folded into the convolutions before them."""

import copy
from collections import Counter
from typing import NamedTuple

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fastmagn.models.batchnorm import PerViewBatchNorm
from fastmagn.models.building import Normalised
from fastmagn.models.sync_batchnorm import SyncedBatchNorm2d

# Forward passes that, in evaluation mode, normalise by the running statistics and do nothing else.
_PLAIN = {nn.Module, _BatchNorm, PerViewBatchNorm, SyncedBatchNorm2d}
_NUM_TRIED = 3  # images on which a folded network is compared with its original
_TOLERANCE = 1e-3  # of the largest logit, in float32; rounding makes 1e-6 of it


class Folded(NamedTuple):
    """A copy of a model, how many of its batch normalisations are folded, and how many are left."""

    model: nn.Module
    num_folded: int
    num_left: int


def fold_batch_norm(model: nn.Module, image_size: tuple[int, int]) -> Folded:
    """Copy a model, and let its convolutions do the work of the batch normalisations that follow them.

    In exact arithmetic the copy's logits are the model's. What `torch.fx` cannot trace, or traces into another
    function, is copied as it is. The two are compared by their logits, so that TensorFloat-32 must be off.

    Args:
        model: In evaluation mode, float32. The networks behind each of its `Normalised` are folded.
        image_size: (H, W) of its images, px.
    """
    folded = copy.deepcopy(model)
    for module in list(folded.modules()):
        if isinstance(module, Normalised):
            module.network = _folded_network(module.network, image_size)
    before, left = (sum(isinstance(part, _BatchNorm) for part in whole.modules()) for whole in (model, folded))
    return Folded(folded, before - left, left)


class _Tracer(fx.Tracer):
    """Sees batch normalisations as one operation, those of this package too."""

    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        return _is_plain(module) or super().is_leaf_module(module, qualified_name)


def _is_plain(module: nn.Module) -> bool:
    has_own_forward = {kind for kind in type(module).__mro__ if "forward" in vars(kind)}
    return isinstance(module, _BatchNorm) and has_own_forward <= _PLAIN


@torch.no_grad()  # not inference_mode, whose tensors autocast refuses later
def _folded_network(network: nn.Module, image_size: tuple[int, int]) -> nn.Module:
    """The network with fewer batch normalisations, or itself."""
    try:
        graph = _Tracer().trace(network)
        folded = _fold(copy.deepcopy(network), graph)
        like = next(network.parameters())
        images = torch.rand(_NUM_TRIED, 3, *image_size, generator=torch.Generator().manual_seed(0)).to(like.device)
        expected, found = network(images), folded(images)
    except Exception:  # of any type: tracing runs the network's own code on values that are not there
        return network
    return folded if (found - expected).abs().max() <= _TOLERANCE * expected.abs().max() else network


def _fold(network: nn.Module, graph: fx.Graph) -> nn.Module:
    """The graph of `network`, whose modules it takes over, without the batch normalisations that can be folded."""
    modules, calls = dict(network.named_modules()), Counter(node.target for node in graph.nodes)
    for node in list(graph.nodes):
        if node.op != "call_module" or not _is_plain(modules[node.target]):
            continue
        norm, source = modules[node.target], node.args[0]
        if source.op != "call_module" or type(modules[source.target]) is not nn.Conv2d or norm.running_mean is None:
            continue
        if len(source.users) > 1 or calls[source.target] > 1:  # something else reads the convolution's output
            continue
        network.set_submodule(source.target, fuse_conv_bn_eval(modules[source.target], norm))
        node.replace_all_uses_with(source)
        graph.erase_node(node)
    return fx.GraphModule(network, graph)
