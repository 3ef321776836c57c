"""What a network remembers of one run and reads in the next: made of its weights, it would outlive them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from sinkhorn_rebasin._typing import ExampleInputs
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.arguments import arguments_of
from sinkhorn_rebasin.networks.copying import inputs_like, standalone_copy
from sinkhorn_rebasin.networks.counted_outputs import counted
from sinkhorn_rebasin.networks.dispatch_mode import DispatchMode
from sinkhorn_rebasin.networks.nested_tensors import largest_change, tensors_in
from sinkhorn_rebasin.networks.observed_run import GivenTensors
from sinkhorn_rebasin.networks.reachable import reachable_tensors
from sinkhorn_rebasin.networks.shared_memory import storage_key
from sinkhorn_rebasin.networks.uncompiled import run_uncompiled
from sinkhorn_rebasin.networks.undisturbed import plain_operations

# Two copies that run alike round alike.
_ROUNDING = 1e-6


class _Held:
    """Note the tensors that a network holds.

    It also notes how often each has been written to.
    """

    def __init__(self, model: nn.Module) -> None:
        self._tensors = reachable_tensors(model)  # kept alive, as an id is a tensor's own only while it lives
        self._versions = {id(tensor): _version(tensor) for tensor in self._tensors}

    def changed(self, model: nn.Module) -> list[Tensor]:
        """List the tensors that changed since then.

        The network holds them now and did not hold them then, or holds them with other values.
        """
        return [
            tensor
            for tensor in reachable_tensors(model)
            if self._versions.get(id(tensor), -1) != _version(tensor)
        ]


def _version(tensor: Tensor) -> int:
    with torch._C.DisableTorchFunction():
        return 0 if tensor.is_inference() else tensor._version


class NewTensors:
    """Note whether a forward leaves new tensors.

    The network then holds other tensors, or values, at its end than before.

    >>> layer = nn.Linear(2, 2)
    >>> noted = NewTensors(layer)
    >>> _ = layer.register_forward_pre_hook(lambda layer, inputs: setattr(layer, "seen", inputs))
    >>> layer(torch.ones(1, 2)).shape, noted.any
    (torch.Size([1, 2]), True)
    """

    def __init__(self, model: nn.Module) -> None:
        self.any = False
        self._before = _Held(model)
        model.register_forward_hook(self._note)

    def _note(self, model: nn.Module, *_: Any) -> None:
        self.any |= bool(self._before.changed(model))


class _Sources(DispatchMode):
    """Follow what everything is computed from.

    It is computed from tensors of a state. Memory counts as a whole.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._by_memory: dict[int, frozenset[str]] = {}
        self._alive: list[Tensor] = []  # a place in memory is a tensor's own only while it lives
        for name, tensor in state.items():
            self._add(tensor, frozenset([name]))

    def of(self, tensors: Iterable[Tensor]) -> frozenset[str]:
        """Name what some tensors are computed from."""
        return frozenset().union(*(self._by_memory.get(storage_key(t), frozenset()) for t in tensors))

    def _add(self, tensor: Tensor, names: frozenset[str]) -> None:
        key = storage_key(tensor)
        self._by_memory[key] = self._by_memory.get(key, frozenset()) | names
        self._alive.append(tensor)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        outputs = func(*args, **(kwargs or {}))
        names = self.of(leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
        if names:
            for leaf in tree_leaves(outputs):
                if isinstance(leaf, Tensor):
                    self._add(leaf, names)
        return outputs


def remembered_sources(model: nn.Module, inputs: ExampleInputs) -> frozenset[str]:
    """Name the tensors that a network remembers.

    They are parameters and buffers of which it makes what it computes with in later runs. Whoever loads other weights
    into a network that has run keeps what it remembers. What is made of these tensors would then belong to other
    weights, so that they must stay what they are. A network that forgets when its mode is changed remembers nothing.

    Raises:
        ArchitectureError: when the network does not run a second time.

    Example:
        >>> class Caching(nn.Linear):
        ...     table = None
        ...     def forward(self, x):
        ...         if self.table is None:
        ...             self.table = self.weight.exp()
        ...         return x @ self.table.t() + self.bias
        >>> sorted(remembered_sources(Caching(2, 2).requires_grad_(False), torch.ones(1, 2)))
        ['weight']
    """
    used, fresh = standalone_copy(model), standalone_copy(model)
    before = _Held(used)
    state = {**dict(used.named_parameters()), **dict(used.named_buffers())}
    sources, watch = _Sources(state), GivenTensors()
    with plain_operations(), torch.no_grad():
        with sources:
            _run(used, inputs)
        used.train(True).train(False)
        kept = before.changed(used)
        for network in (used, fresh):
            _perturb(network)
        with watch:
            remembering = _run(used, inputs)
        if largest_change(_run(fresh, inputs), remembering) <= _ROUNDING:
            return frozenset()
    read = {storage_key(tensor) for tensor in watch.tensors}
    return sources.of(tensor for tensor in kept if storage_key(tensor) in read)


def _perturb(model: nn.Module) -> None:
    """Move all that a state dict holds.

    It moves the same way each time.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    for tensor in {id(tensor): tensor for tensor in model.state_dict(keep_vars=True).values()}.values():
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.layout == torch.strided:
            tensor.mul_(1 + 0.1 * torch.rand(tensor.shape, generator=generator).to(tensor))


def _run(model: nn.Module, inputs: ExampleInputs) -> list[Tensor]:
    """Run a network plainly.

    It keeps what it will.
    """

    def call() -> Any:
        """Call the network."""
        arguments, keywords = arguments_of(model, inputs_like(inputs))
        return model(*arguments, **keywords)

    try:
        return tensors_in(counted(model, run_uncompiled(call)))
    except Exception as error:
        raise ArchitectureError(
            f"Expected {type(model).__name__} to run again with other weights but it raised "
            f"{type(error).__name__}: {error}"
        ) from error
