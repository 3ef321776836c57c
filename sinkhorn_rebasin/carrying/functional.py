"""Functional: updates that do to the new base's activations what they did to the old base's, in closed form."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.carrying.along_alignment import carried_along
from sinkhorn_rebasin.carrying.by_weights import matched_bases
from sinkhorn_rebasin.carrying.fitted_maps import MapKind, fitted_map
from sinkhorn_rebasin.carrying.layer_activations import LayerRows, check_rows, layer_rows, plain_layers
from sinkhorn_rebasin.carrying.way import Carried, CarryProblem
from sinkhorn_rebasin.errors import ArchitectureError, listed
from sinkhorn_rebasin.networks.architecture import tensors_of


@dataclass(frozen=True)
class Functional:
    r"""Carry by maps between the bases' activations.

    .. math:: \Delta W' = M_{\mathrm{out}}\, \Delta W\, M_{\mathrm{in}}, \qquad
        \Delta b' = M_{\mathrm{out}}\, \Delta b

    for every linear and convolution layer. :math:`M_{\mathrm{in}}` takes the new base's inputs of the layer to the
    old base's, :math:`M_{\mathrm{out}}` the old base's outputs to the new base's. Maps at the network's own inputs
    and outputs are the identity. Parameters of other layers are carried by weights. Widths may differ.

    Attributes:
        maps: ``"ridge"``, ``"procrustes"`` or ``"permutation"``.
        ridge: weight of the penalty, in means of the diagonal of the Gram matrix.

    Example:
        >>> from sinkhorn_rebasin.carrying import carry
        >>> from torch.nn import Linear, ReLU, Sequential
        >>> nets = [Sequential(Linear(3, n), ReLU(), Linear(n, 2)) for n in (4, 4, 6)]
        >>> update = carry(*nets, way=Functional(), scale=1.0, data=[torch.randn(20, 3) for _ in range(2)])
        >>> update.state["0.weight"].shape
        torch.Size([6, 3])

    Source: functional transport as in Theseus (2025); ridge as in the prototype of this package.
    """

    maps: MapKind = "ridge"
    ridge: float = 0.1

    @property
    def name(self) -> str:
        """Name the way."""
        return f"functional ({self.maps})"

    def carried(self, problem: CarryProblem) -> Carried:
        """Return the update for the new base."""
        old, new = rows_of_bases(problem, self.name)
        return functional_update(problem, old, new, self.maps, self.ridge)


def rows_of_bases(
    problem: CarryProblem, way: str, norms: Sequence[str] = ()
) -> tuple[dict[str, LayerRows], dict[str, LayerRows]]:
    """Run both bases on the data and keep rows.

    They are those of their plain layers, and of norms that are named.
    """
    names = [name for name in plain_layers(problem.new_base) if name in plain_layers(problem.base)]
    names += norms
    batches = problem.seen(way)
    old, new = (
        layer_rows(network, tensors_of(network), names, batches, problem.batch)
        for network in (problem.base, problem.new_base)
    )
    check_rows(old, new)
    return old, new


def functional_update(
    problem: CarryProblem,
    old: Mapping[str, LayerRows],
    new: Mapping[str, LayerRows],
    kind: MapKind,
    ridge: float,
    fitted_later: Collection[str] = (),
) -> Carried:
    """Carry every layer by maps of one kind.

    The rest is carried by weights, which is told but of what is fitted later.
    """
    state: State = {}
    for name in old.keys() & new.keys():
        weight = f"{name}.weight" if name else "weight"
        if weight in problem.heads:
            continue
        inward = None
        if reads_units(problem, weight):
            inward = fitted_map(new[name].channels, old[name].channels, kind, ridge)
        outward = output_map(problem, name, old[name].outputs, new[name].outputs, kind, ridge)
        state |= _moved(problem.update.difference, name, outward, inward)
    rest, notes = rest_by_weights(problem, state, fitted_later)
    return Carried({**rest, **state}, notes=notes)


def output_map(
    problem: CarryProblem, name: str, old: Tensor, new: Tensor, kind: MapKind, ridge: float
) -> Tensor | None:
    """Fit the map of a layer's outputs; None where they are outputs of the network."""
    weight = f"{name}.weight" if name else "weight"
    if not any(0 in slot.axes for slot in problem.spec.slots_on(weight)):
        return None
    return fitted_map(old, new, kind, ridge)


def reads_units(problem: CarryProblem, weight: str) -> bool:
    """Tell whether a layer reads hidden units, and not the network's inputs."""
    return any(1 in slot.axes for slot in problem.spec.slots_on(weight))


def rest_by_weights(
    problem: CarryProblem, state: State, fitted_later: Collection[str] = ()
) -> tuple[State, tuple[str, ...]]:
    """Carry the parameters that a state lacks by the bases' weights.

    Raises:
        ArchitectureError: the alignment that is used needs another form of the networks.
    """
    shapes = {n: p for n, p in problem.new_base.named_parameters(remove_duplicate=False) if n not in state}
    changed = [n for n in shapes if n in problem.update.difference and problem.update.difference[n].any()]
    if not changed:
        return {name: torch.zeros_like(p, dtype=torch.float64) for name, p in shapes.items()}, ()
    alignment = problem.alignment or matched_bases(problem, "permutation")[0]
    if alignment.continuous is not None:
        raise ArchitectureError(
            f"Expected an alignment of permutations, to carry {listed(changed)} beside layers that are carried "
            f"functionally, but got one with maps: leave alignment out."
        )
    moved = carried_along(problem, alignment, canonical=False).state
    told = [name for name in changed if name not in fitted_later]
    note = f"carried by weights, as no linear or convolution layer of their own: {listed(told)}"
    return {name: moved[name] for name in shapes}, (note,) if told else ()


def _moved(difference: State, name: str, outward: Tensor | None, inward: Tensor | None) -> State:
    prefix = f"{name}." if name else ""
    weight = difference[f"{prefix}weight"]
    if inward is not None:
        weight = torch.einsum("oi...,ij->oj...", weight, inward.to(weight))
    if outward is not None:
        weight = torch.einsum("po,o...->p...", outward.to(weight), weight)
    moved = {f"{prefix}weight": weight}
    bias = difference.get(f"{prefix}bias")
    if bias is not None:
        moved[f"{prefix}bias"] = bias if outward is None else outward.to(bias) @ bias
    return moved
