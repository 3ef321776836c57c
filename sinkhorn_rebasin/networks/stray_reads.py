"""Reads of weights that a run was not given: those of the network itself, or of the one it was copied from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sinkhorn_rebasin._typing import StateLike
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.architecture import tied_names
from sinkhorn_rebasin.networks.originals import tensors_of_originals
from sinkhorn_rebasin.networks.reachable import tensors_reached
from sinkhorn_rebasin.networks.shared_memory import memory_of
from sinkhorn_rebasin.networks.stand_ins import StandIns

# Operations that ask a tensor for its shape and type alone.
_WITHOUT_VALUES = ("new_", "empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like")


class StrayReads(TorchDispatchMode):
    """Note when a run reads original weights.

    It reads what is in the memory of weights that others stand in for, or what was made of them.

    Args:
        module: the network.
        weights: what it is given in place of its own.
    """

    def __init__(self, module: nn.Module, weights: StateLike) -> None:
        super().__init__()
        self._module, self._weights = module, weights
        self._found: str | None = None
        self._read: set[int | None] = set()
        given = set(weights)
        for names in tied_names(module):
            given.update(names if given & set(names) else ())
        own = [(name, tensor) for name, tensor in _named(module) if name in given]
        used = {memory_of(tensor) for tensor in weights.values()}
        used |= {memory_of(tensor) for name, tensor in _named(module) if name not in given}
        others = [*own, *tensors_of_originals(module)]
        self._kept = [tensor for _, tensor in others]
        self._names = {memory_of(tensor): name for name, tensor in others if memory_of(tensor) not in used}
        self._names.pop(None, None)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if not func.overloadpacket.__name__.startswith(_WITHOUT_VALUES):
            memory = {memory_of(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
            self._read |= memory
            for one in memory & self._names.keys():
                self._found = self._found or self._names[one]
        return func(*args, **(kwargs or {}))

    @contextmanager
    def checked(self) -> Iterator[None]:
        """Raise ArchitectureError when stray reads happen inside.

        This holds also where the run failed.
        """
        stand_ins = StandIns(self._module, self._weights)
        try:
            with self:
                yield
        finally:
            self._check()
        stand_ins.check(self._read)

    def _check(self) -> None:
        if self._found is None:
            return
        holder = self._holder(self._found)
        where = f"its attribute {holder!r}" if holder else "a function or variable that it uses"
        raise ArchitectureError(
            f"Expected a network that reads its weights from its own parameters and buffers, so that it can run at "
            f"others and be copied, but {where} reads {self._found!r} of the network that was passed in: keep what "
            f"is read as a parameter, buffer or submodule, or compute it in the forward."
        )

    def _holder(self, name: str) -> str | None:
        """Find the attribute that leads to a tensor.

        The tensor has this memory.
        """
        storages = {storage for storage, other in self._names.items() if other == name}
        registered = {id(tensor) for _, tensor in _named(self._module)}
        children = {id(child) for child in self._module.modules()}
        for prefix, child in self._module.named_modules():
            for attribute, value in vars(child).items():
                reached = tensors_reached([value], without=children)
                if any(id(t) not in registered and memory_of(t) in storages for t in reached):
                    return f"{prefix}.{attribute}" if prefix else attribute
        return None


def _named(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
