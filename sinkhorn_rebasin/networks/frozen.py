"""Networks whose weights are buffers: they follow their owner but no optimiser sees them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from sinkhorn_rebasin._typing import StateLike
from sinkhorn_rebasin.networks.architecture import tied_names
from sinkhorn_rebasin.networks.copying import copied, plain_tensors
from sinkhorn_rebasin.networks.modes import free_modes, hold_modes
from sinkhorn_rebasin.networks.originals import note_original
from sinkhorn_rebasin.networks.shared_memory import views_at

_FORMER = "_sinkhorn_rebasin_former_parameters"
_TIES = "_sinkhorn_rebasin_former_ties"


@dataclass(frozen=True)
class Traits:
    """Hold what a frozen copy does not keep.

    Attributes:
        requires_grad: per parameter name, whether it requires a gradient; other names are buffers.
        tied: groups of names that are one tensor.
        training: per module name, whether it is in training mode.
    """

    requires_grad: Mapping[str, bool]
    tied: tuple[tuple[str, ...], ...]
    training: Mapping[str, bool]


def traits_of(module: nn.Module) -> Traits:
    """Read a network's flags, ties and modes.

    >>> traits_of(nn.Linear(3, 2).eval())
    Traits(requires_grad={'weight': True, 'bias': True}, tied=(), training={'': False})
    """
    return Traits(
        {name: p.requires_grad for name, p in module.named_parameters(remove_duplicate=False)},
        tuple(tuple(names) for names in tied_names(module)),
        {name: child.training for name, child in module.named_modules(remove_duplicate=False)},
    )


def frozen_copy(module: nn.Module) -> nn.Module:
    """Copy a network, its parameters turned into buffers.

    As part of another module it moves, is saved and loaded with it, while ``parameters()`` does not list it, unless
    inside of :func:`former_parameters`, in which a network that reads its own parameters finds them.
    Tied parameters stay one tensor, and the state dict keeps its order. The mode of its modules is a flag: calling
    ``train()`` or ``eval()`` does nothing else, whatever the network does there.

    >>> frozen = frozen_copy(nn.Linear(3, 2))
    >>> list(frozen.parameters()), sorted(frozen.state_dict())
    ([], ['bias', 'weight'])
    """
    values: dict[int, Tensor] = {id(p): p.detach().clone() for p in module.parameters()}
    frozen = copied(module, {**values, **views_at(module, values)})
    vars(frozen)[_TIES] = tied_names(module)
    note_original(frozen, module)
    hold_modes(frozen)
    for child in frozen.modules():
        buffers = list(child._buffers)
        for name, value in list(child._parameters.items()):
            if value is None:
                continue
            del child._parameters[name]
            child.register_buffer(name, value)
            vars(child).setdefault(_FORMER, []).append(name)
        for name in buffers:
            child._buffers[name] = child._buffers.pop(name)
    return frozen


@contextmanager
def former_parameters(network: nn.Module) -> Iterator[None]:
    """Show a frozen copy's weights among its ``parameters()``.

    They are plain tensors, inside of the context alone.

    >>> frozen = frozen_copy(nn.Linear(3, 2))
    >>> with former_parameters(frozen):
    ...     len(list(frozen.parameters()))
    2
    >>> len(list(frozen.parameters()))
    0
    """
    moved = [(child, vars(child)[_FORMER]) for child in network.modules() if _FORMER in vars(child)]
    for child, names in moved:
        # Not by register_parameter, which takes parameters alone.
        child._parameters.update({name: child._buffers.pop(name) for name in names})
    try:
        yield
    finally:
        for child, names in moved:
            rest = dict(child._buffers)
            child._buffers.clear()  # former parameters come first, which is the order of the state dict
            child._buffers.update({name: child._parameters.pop(name) for name in names})
            child._buffers.update(rest)


def former_names(child: nn.Module) -> list[str]:
    """List a module's buffers that were parameters.

    >>> former_names(frozen_copy(nn.Linear(3, 2)))
    ['weight', 'bias']
    """
    names: list[str] = vars(child).get(_FORMER, [])
    return names


def own_buffers(module: nn.Module) -> list[str]:
    """List buffers that never were parameters, by name.

    A forward may write to them.

    >>> own_buffers(frozen_copy(nn.BatchNorm1d(2)))
    ['running_mean', 'running_var', 'num_batches_tracked']
    """
    return [
        f"{path}.{name}" if path else name
        for path, child in module.named_modules()
        for name in child._buffers
        if name not in former_names(child)
    ]


def former_ties(module: nn.Module) -> list[list[str]]:
    """List names that were tied before freezing.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    >>> net[1].weight = net[0].weight
    >>> former_ties(nn.ModuleDict({"reference": frozen_copy(net).double()}))
    [['reference.0.weight', 'reference.1.weight']]
    """
    return [
        [f"{prefix}.{name}" if prefix else name for name in names]
        for prefix, child in module.named_modules()
        for names in vars(child).get(_TIES, [])
    ]


@plain_tensors()
def thawed_copy(frozen: nn.Module, state: StateLike, traits: Traits) -> nn.Module:
    """Turn a frozen copy into a plain network.

    It gets these tensors, and the traits it had before.

    Args:
        frozen: what :func:`frozen_copy` made, wherever it has been moved since.
        state: tensor name to tensor; what it lacks is taken from the frozen copy.
        traits: what :func:`traits_of` said of the network.

    >>> layer = nn.Linear(3, 2)
    >>> plain = thawed_copy(frozen_copy(layer), layer.state_dict(), traits_of(layer))
    >>> [name for name, _ in plain.named_parameters()]
    ['weight', 'bias']
    """
    # Moved to another type or device, tied buffers come apart: ties are found by name.
    first = {name: names[0] for names in traits.tied for name in names}
    made: dict[str, Tensor] = {}
    replaced: dict[int, Tensor] = {}
    for path, buffer in frozen.named_buffers(remove_duplicate=False):
        name = first.get(path, path)
        if name not in made:
            tensor = state.get(path, buffer).detach().clone()
            if path in traits.requires_grad:
                tensor = nn.Parameter(tensor, requires_grad=traits.requires_grad[path])
            made[name] = tensor
        replaced[id(buffer)] = made[name]
    plain = copied(frozen, {**replaced, **views_at(frozen, replaced)})
    note_original(plain, frozen)
    free_modes(plain)
    for prefix, child in plain.named_modules():
        for mark in (_FORMER, _TIES):
            vars(child).pop(mark, None)
        child.training = traits.training[prefix]
        for name, buffer in list(child._buffers.items()):
            if isinstance(buffer, nn.Parameter):
                del child._buffers[name]
                child.register_parameter(name, buffer)
    return plain
