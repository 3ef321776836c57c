"""Tensors that were made of weights once, are kept as attributes, and are read in place of them."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor, nn

from sinkhorn_rebasin._typing import StateLike
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.reachable import tensors_reached
from sinkhorn_rebasin.networks.shared_memory import memory_of


class StandIns:
    """Note attributes that may stand for weights.

    They are those of a network's modules, as they are before a run.

    Args:
        module: the network.
        weights: what the run is given.

    Example:
        >>> layer = nn.Linear(2, 3)
        >>> layer.folded = layer.weight.detach() * 2
        >>> stand_ins = StandIns(layer, layer.state_dict())
        >>> stand_ins.check({memory_of(layer.folded), memory_of(layer.weight)})
        >>> try:
        ...     stand_ins.check({memory_of(layer.folded)})
        ... except ArchitectureError as error:
        ...     print(str(error)[:69])
        Expected a network that reads its weights but 'folded' is read and 'w
    """

    def __init__(self, module: nn.Module, weights: StateLike) -> None:
        self._module, self._weights = module, weights
        children = {id(child) for child in module.modules()}
        own = {memory_of(t) for t in (*module.parameters(), *module.buffers())} | {None}
        self._attributes = {
            (prefix, name): [t for t in tensors_reached([value], without=children) if memory_of(t) not in own]
            for prefix, child in module.named_modules()
            for name, value in vars(child).items()
            if name not in ("_parameters", "_buffers", "_modules")
        }

    def check(self, read: Collection[int | None]) -> None:
        """Raise ArchitectureError where a stand-in was read.

        The run read an attribute and no weight of its module, of which one is alike.

        Args:
            read: the memory of all tensors that the run read.
        """
        for (prefix, name), tensors in self._attributes.items():
            shapes = [sorted(t.shape) for t in tensors if t.dim() and memory_of(t) in read]
            if not shapes:
                continue
            child = self._module.get_submodule(prefix)
            weights = {key: self._given(prefix, key, p) for key, p in child.named_parameters()}
            alike = next((key for key, weight in weights.items() if sorted(weight.shape) in shapes), None)
            if alike is not None and not any(memory_of(weight) in read for weight in weights.values()):
                at = f"{prefix}." if prefix else ""
                raise ArchitectureError(
                    f"Expected a network that reads its weights but {at + name!r} is read and {at + alike!r} is not: "
                    f"what was made of weights does not follow them. Compute it in the forward, or pass the network "
                    f"as it is before it keeps such a tensor, such as in training mode."
                )

    def _given(self, prefix: str, key: str, parameter: Tensor) -> Tensor:
        return self._weights.get(f"{prefix}.{key}" if prefix else key, parameter)
