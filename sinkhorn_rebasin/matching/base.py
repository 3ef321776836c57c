"""What every matching method takes and returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from os import PathLike

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import NetworkLike, State, StateLike
from sinkhorn_rebasin.curvature.gram import GramMatrices
from sinkhorn_rebasin.curvature.kronecker import KroneckerFisher
from sinkhorn_rebasin.errors import SpecError, listed
from sinkhorn_rebasin.files.alignment_file import read_alignment, write_alignment
from sinkhorn_rebasin.files.given_networks import state_of
from sinkhorn_rebasin.files.receipt import Receipt
from sinkhorn_rebasin.matching.carried_grams import carried_grams
from sinkhorn_rebasin.matching.coordinates import Coordinates, DirectionKind, TensorKind, carried_factors
from sinkhorn_rebasin.matching.rotations.canonical_form import check_canonical
from sinkhorn_rebasin.permutations import (
    PermutationSpec,
    RescalingSpec,
    compose,
    identity_permutations,
    inverse,
    permute_state,
    rescale_state,
)
from sinkhorn_rebasin.permutations.completeness import check_spec
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec, check_continuous, transform_state
from sinkhorn_rebasin.permutations.maps import compose_maps, inverse_maps
from sinkhorn_rebasin.permutations.rescaling import check_rescaling
from sinkhorn_rebasin.permutations.signed_permutations import compose_log_scales, compose_signs, inverse_signs
from sinkhorn_rebasin.shown import html_table


@dataclass(frozen=True, repr=False)
class Alignment:
    """Hard permutations that carry a target towards a reference, and how they were found.

    Attributes:
        permutations: per group, index vectors of :attr:`Group.shape`.
        spec: the symmetries they belong to.
        objective: the method's own objective after each pass.
        converged: whether the method stopped because nothing improved any more.
        weight_matched: groups the method itself cannot see, which were matched by their weights instead.
        receipt: the networks they were found for, and how; :meth:`apply` then takes no other target.
        signs: per group with sign generators, ±1 for each of them and each of the target's units, in the order they
            had before the permutations; empty when signs were not matched.
        rescaling: the rescalings that signs and scales belong to.
        method: name of the method that found them; empty where they were given.
        maps: matrices of the groups with a continuous symmetry, which have no permutation.
        continuous: the continuous symmetries the maps belong to. Networks they act on have gains of one: see
            :func:`~sinkhorn_rebasin.canonicalize`.
        log_scales: per group with positive generators, the logarithm of the scale of each of them and each of the
            target's units, in the order they had before the permutations; empty when there are none.
    """

    permutations: Mapping[str, Tensor]
    spec: PermutationSpec
    objective: tuple[float, ...] = field(default=())
    converged: bool = True
    weight_matched: tuple[str, ...] = field(default=())
    receipt: Receipt | None = field(default=None, compare=False, kw_only=True)
    signs: Mapping[str, Tensor] = field(default_factory=dict)
    rescaling: RescalingSpec | None = None
    method: str = field(default="", compare=False)
    maps: Mapping[str, Tensor] = field(default_factory=dict)
    continuous: ContinuousSpec | None = None
    log_scales: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_spec(self.spec)
        if self.rescaling is not None:
            check_rescaling(self.rescaling)
        if self.continuous is not None:
            check_continuous(self.continuous)

    def __repr__(self) -> str:
        indices = self.permutations.values()
        moved = sum(map(_moved, indices))
        units = sum(order.numel() for order in indices)
        groups = listed(f"{name} {tuple(order.shape)}" for name, order in self.permutations.items())
        parts = [f"{len(self.permutations)} groups: {groups}", f"{moved} of {units} units moved"]
        if self.objective:
            first = f"{self.objective[0]:.5g} to " if len(self.objective) > 1 else ""
            parts.append(f"objective {first}{self.objective[-1]:.5g} in {len(self.objective)} passes")
        parts += [] if self.converged else ["not converged"]
        parts += [f"signs of {listed(self.signs)}"] if self.signs else []
        parts += [f"scales of {listed(self.log_scales)}"] if self.log_scales else []
        parts += [f"maps of {listed(self._kinds())}"] if self.maps else []
        parts += [f"matched by weights: {listed(self.weight_matched)}"] if self.weight_matched else []
        return f"Alignment({self.method and self.method + ', '}{'; '.join(parts)})"

    def _repr_html_(self) -> str:
        orders = {name: order for name, order in self.permutations.items() if name not in self.maps}
        rows = [(name, f"{_moved(order)} of {order.numel()} units moved") for name, order in orders.items()]
        rows += [(name, f"map {tuple(matrix.shape)}") for name, matrix in self.maps.items()]
        rows += [(name, "signs") for name in self.signs] + [(name, "scales") for name in self.log_scales]
        return html_table(f"Alignment {self.method}".strip(), rows)

    def named(self, method: str) -> Alignment:
        """The same, found by the method of this name."""
        return replace(self, method=method)

    def apply(self, target: NetworkLike) -> State:
        """The rebased target's state: same function, new place.

        Tensors that the spec ignores are moved too: the target keeps its own head, which reads the units where they
        are now.

        Args:
            target: a module, a state dict, a dict with a ``state_dict`` in it, or the path of a file of weights.

        Raises:
            ArchitectureError: the alignment has a receipt of another target, or maps that do not fit the target's
                gains; the first such tensor is named.
        """
        state = signed = state_of(target, "target", self.spec.shapes)
        if self.receipt is not None:
            self.receipt.check_target(state)
        self.spec.check_constants(state)
        if self.rescaling is not None:
            signed = rescale_state(state, self.spec, self.rescaling, self.log_scales, self.signs)
        if self.continuous is not None:
            check_canonical(state, self.continuous, "target")
        if self.continuous is None:
            moved = permute_state(signed, self.spec, self.permutations)
        else:
            moved = transform_state(signed, self.spec, self.continuous, self.maps, self.permutations)
        return {name: tensor.to(state[name].dtype) for name, tensor in moved.items()}

    def carry(self, mapping: StateLike, kind: TensorKind = "update") -> State:
        r"""Carry tensors that live in the target's coordinates into the reference's.

        Args:
            mapping: by the names of parameters, or of groups where ``kind`` is ``"units"``; some are enough.
            kind: how they move where weights move by G. ``"update"``, as weights: G. ``"gradient"``, as first moments
                of an optimizer: :math:`G^{-\top}`. ``"squared_gradient"``, as second moments and Fisher diagonals:
                permuted, and divided by squares of scales. ``"mask"``: permuted, and nothing else. ``"units"``:
                statistics of each unit, permuted.

        Raises:
            SpecError: a name, shape or kind is unknown; or maps would mix what is one number for each weight.

        Example:
            >>> from torch import nn
            >>> from sinkhorn_rebasin import discover_symmetry, random_permutations
            >>> net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
            >>> spec = discover_symmetry(net, torch.ones(2, 3))
            >>> alignment = Alignment(random_permutations(spec), spec)
            >>> moved = alignment.carry({"0.weight": net[0].weight > 0.3}, "mask")["0.weight"]
            >>> torch.equal(moved, alignment.apply(net)["0.weight"] > 0.3)
            True
        """
        return Coordinates.of(self).carry(mapping, kind)

    def carry_fisher(self, fisher: KroneckerFisher) -> KroneckerFisher:
        """Carry the Kronecker factors of the target's Fisher information; refuses convolution groups by name."""
        return carried_factors(Coordinates.of(self), fisher)

    def carry_grams(self, grams: GramMatrices) -> GramMatrices:
        r"""Carry the Gram matrices of the target's layers.

        This is :math:`G \mapsto P G P^\top`: see :func:`gram_matrices`.

        Layers whose inputs do not move by themselves are left out, with the reason.
        """
        return carried_grams(Coordinates.of(self), grams)

    def carry_activation(
        self,
        tensor: Tensor,
        at: str,
        kind: DirectionKind = "direction",
        dimension: int = -1,
        axis: int | None = None,
    ) -> Tensor:
        """Carry directions at a module's output.

        Args:
            tensor, dimension: one direction, or many, with the outputs of the module ``at`` along this dimension.
            kind: ``"direction"`` of what is added or written (steering vectors, decoders of sparse autoencoders);
                ``"probe"`` of what reads by a product (probes, encoders).
            axis: of the module's weight that has its outputs; needed where it has no bias.

        Raises:
            SpecError: the module, a shape or the kind is unknown."""
        return Coordinates.of(self).activation(tensor, at, kind, dimension, axis)

    def invert(self) -> Alignment:
        """The alignment that undoes this one: ``a.invert().apply(a.apply(net))`` is the network's own state.

        Permutations, signs and maps are inverted; how they were found is not kept.

        >>> from sinkhorn_rebasin.permutations import Group
        >>> spec = PermutationSpec((Group("a", 3),), (), {})
        >>> Alignment({"a": torch.tensor([1, 2, 0])}, spec).invert().permutations["a"].tolist()
        [2, 0, 1]
        """
        orders = self._orders()
        return Alignment(
            inverse(self.spec, orders),
            self.spec,
            signs=inverse_signs(self.spec, self.signs, orders),
            log_scales={n: -s for n, s in inverse_signs(self.spec, self.log_scales, orders).items()},
            rescaling=self.rescaling,
            maps={}
            if self.continuous is None
            else inverse_maps(self.spec, self.continuous, self.maps, orders),
            continuous=self.continuous,
        )

    def compose(self, other: Alignment) -> Alignment:
        """The alignment that acts like ``other`` and then like this one.

        ``a.compose(b).apply(net)`` is ``a.apply(b.apply(net))``, up to rounding. How the two were found is not kept.

        Raises:
            SpecError: when the two are of other symmetries.

        >>> from sinkhorn_rebasin.permutations import Group
        >>> spec = PermutationSpec((Group("a", 3),), (), {})
        >>> turn = Alignment({"a": torch.tensor([1, 2, 0])}, spec)
        >>> turn.compose(turn).permutations["a"].tolist()
        [2, 0, 1]
        """
        check_composable(self, other)
        first, second = other._orders(), self._orders()
        maps: Mapping[str, Tensor] = {}
        if self.continuous is not None:
            maps = compose_maps(self.spec, self.continuous, self.maps, other.maps, first)
        return Alignment(
            compose(self.spec, second, first),
            self.spec,
            signs=compose_signs(self.spec, self.signs, other.signs, first),
            log_scales=compose_log_scales(self.spec, self.log_scales, other.log_scales, first),
            rescaling=self.rescaling if other.rescaling is None else other.rescaling,
            maps=maps,
            continuous=self.continuous,
        )

    def save(self, path: str | PathLike[str]) -> None:
        """Write a file of safetensors: permutations, signs and maps, how they were found, no weights and no code.

        Raises:
            CheckpointError: the file cannot be written; what was there before stays.

        >>> from tempfile import mkdtemp
        >>> spec = PermutationSpec((), (), {})
        >>> Alignment({}, spec).save(file := mkdtemp() + "/b_to_a.safetensors")
        >>> Alignment.load(file) == Alignment({}, spec)
        True
        """
        write_alignment(path, {each.name: getattr(self, each.name) for each in fields(self)})

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Alignment:
        """Read what :meth:`save` wrote, bit for bit; nothing in the file is run.

        Raises:
            CheckpointError: the file is missing, cut short, edited, or something else.
        """
        return cls(**read_alignment(path))

    def _orders(self) -> dict[str, Tensor]:
        """The permutations; groups that maps act on, and those not given, stay in order."""
        given = {name: order for name, order in self.permutations.items() if name not in self.maps}
        return {**identity_permutations(self.spec), **given} if self.maps else given

    def _kinds(self) -> list[str]:
        kinds = {} if self.continuous is None else {s.group.name: s.kind for s in self.continuous.symmetries}
        return [f"{name} {tuple(map_.shape)} {kinds.get(name, '')}" for name, map_ in self.maps.items()]


def _moved(order: Tensor) -> int:
    """Count the units that an order puts elsewhere."""
    return int((order != torch.arange(order.shape[-1], device=order.device)).sum())


def check_composable(second: Alignment, first: Alignment) -> None:
    """Raise :class:`SpecError` unless two alignments are of the same symmetries."""
    if second.spec != first.spec:
        raise SpecError("Expected two alignments of one spec, to compose them, but got two specs.")
    theirs = (one.continuous.symmetries if one.continuous else None for one in (second, first))
    if len(set(theirs)) > 1:
        raise SpecError(
            "Expected two alignments with the same continuous symmetries but got others, or maps in one alone: give "
            "the other identity_maps."
        )
    scaled = [alignment for alignment in (second, first) if alignment.signs or alignment.log_scales]
    if len(scaled) == 2 and second.rescaling != first.rescaling:
        raise SpecError("Expected signs and scales of two alignments to be of one rescaling but got two.")
