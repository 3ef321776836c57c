"""The two ends of a path: read as they are given, with what each has for itself."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from sinkhorn_rebasin._typing import Heads, NetworkLike, State, StateLike
from sinkhorn_rebasin.connectivity.interpolation import same_values
from sinkhorn_rebasin.errors import ArchitectureError, RebasinWarning, listed
from sinkhorn_rebasin.files.given_networks import state_of
from sinkhorn_rebasin.networks.architecture import tensors_of, tied_names
from sinkhorn_rebasin.networks.nested_tensors import tensors_in
from sinkhorn_rebasin.permutations.ignoring import names_matching
from sinkhorn_rebasin.permutations.structure import SpecStructure


def state_like(module: nn.Module, network: NetworkLike, role: str) -> StateLike:
    """Read a state of a module; one that fits is taken as it is, with its gradients.

    Files often name a tied tensor once. It then goes by all its names.

    >>> tied = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    >>> tied[1].weight = tied[0].weight
    >>> list(state_like(tied, {"1.weight": nn.Linear(2, 2).weight}, "start"))
    ['1.weight', '0.weight']
    """
    own = tensors_of(module)
    fits = isinstance(network, Mapping) and not own.keys().isdisjoint(network)
    state: StateLike = network if fits else state_of(network, role, own)  # type: ignore[assignment]
    present = [(names, next((name for name in names if name in state), None)) for names in tied_names(module)]
    missing = {
        name: state[held]
        for names, held in present
        if held is not None
        for name in names
        if name not in state
    }
    return {**state, **missing} if missing else state


def ignored_ends(states: tuple[State, State], ignore: Sequence[str], heads: Heads | None) -> SpecStructure:
    """Note which tensors of a path's ends are those of one network.

    Raises:
        ArchitectureError: there are some, and nothing says whose they are.
        SpecError: a pattern matches no tensor.
    """
    structure = SpecStructure((), (), {name: tuple(tensor.shape) for name, tensor in states[0].items()})
    names = names_matching(structure, ignore)
    if ignore and heads is None:
        raise ArchitectureError(
            f"Expected to know whose {listed(sorted(names))} the networks of a path have but got none: pass "
            f"heads='reference', those of the end, or heads='target', those of the start."
        )
    if heads is not None and not ignore:
        names = {n for n, t in states[0].items() if n in states[1] and t.shape != states[1][n].shape}
    return replace(structure, ignored=frozenset(names))


def warn_of_unsaved(start: nn.Module, end: nn.Module) -> None:
    """Warn of differing tensors that a path lacks.

    The path runs with those of the start everywhere. These are buffers that are in no state dict, and tensors inside
    of what a state dict holds besides tensors.
    """
    ours, theirs = _outside(start), _outside(end)
    differing = [
        name
        for name, tensors in ours.items()
        if len(tensors) != len(theirs.get(name, tensors))
        or not all(map(same_values, tensors, theirs.get(name, tensors)))
    ]
    if differing:
        warnings.warn(
            f"Expected two networks that differ in the tensors of their state dicts alone but "
            f"{', '.join(map(repr, differing))} differ too, in buffers that are not saved (persistent=False) or "
            f"packed weights and extra state: the whole path, its end too, runs with those of the start.",
            RebasinWarning,
            stacklevel=3,
        )


def _outside(module: nn.Module) -> dict[str, list[Tensor]]:
    """Collect tensors outside of a network's state dict.

    They come by name.
    """
    saved = module.state_dict()
    packed = {name: tensors_in(value) for name, value in saved.items() if not isinstance(value, Tensor)}
    return packed | {name: [buffer] for name, buffer in module.named_buffers() if name not in saved}
