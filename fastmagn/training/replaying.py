"""An optimiser's update as one CUDA graph, which the host launches at once in place of hundreds of kernels."""

from collections.abc import Callable

import torch
from torch import Tensor

Update = Callable[[list[Tensor], list[Tensor]], None]  # of gradients, and of a rate for each group, scalars
UNRECORDED = 3  # the first updates make buffers and libraries' workspaces; a graph cannot


class Replayed:
    """Records the kernels of an update once, and replays them while the memory they work on stays where it is.

    The gradients are copied to the graph's memory, which holds them and the update's intermediate values.
    """

    def __init__(self) -> None:
        self.unrecorded = UNRECORDED
        self.places: tuple[int, ...] = ()
        self.gradients: list[Tensor] = []
        self.rates: list[Tensor] = []
        self.replay: Callable[[], None] = lambda: None

    def run(self, update: Update, memory: list[Tensor], gradients: list[Tensor], rates: list[float]) -> None:
        """Update once.

        Args:
            update: Launches the kernels and waits for none of them; what it changes lies in `memory`.
            memory: Tensors on one CUDA device.
            gradients: Tensors there, the same number and shapes in every call with the same memory.
            rates: Numbers, as many in every call.
        """
        if self.unrecorded:
            self.unrecorded -= 1
            update(gradients, [torch.full((), rate, device=gradients[0].device) for rate in rates])
            return
        places = tuple(tensor.data_ptr() for tensor in memory)
        if places != self.places:
            self.gradients = [torch.empty_like(gradient) for gradient in gradients]
            self.rates = [torch.empty((), device=gradients[0].device) for _ in rates]
            self.replay = recorded(lambda: update(self.gradients, self.rates))
            self.places = places
        torch._foreach_copy_(self.gradients, gradients)
        for held, rate in zip(self.rates, rates, strict=True):
            held.fill_(rate)
        self.replay()


def recorded(launch: Callable[[], None]) -> Callable[[], None]:
    """Record what `launch` would run on the current CUDA device; return what runs it. Other threads may use it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        launch()
    return graph.replay
