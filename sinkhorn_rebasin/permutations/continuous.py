"""Continuous symmetries of a network: which groups turn, and how their maps act on its tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import State, StateLike
from sinkhorn_rebasin.errors import SpecError, listed
from sinkhorn_rebasin.permutations.action import permute_state
from sinkhorn_rebasin.permutations.completeness import check_kind
from sinkhorn_rebasin.permutations.json_form import check_continuous_json
from sinkhorn_rebasin.permutations.rescaling import place_of
from sinkhorn_rebasin.permutations.slots import Group, Slot
from sinkhorn_rebasin.permutations.spec import PermutationSpec

ContinuousKind: TypeAlias = Literal["orthogonal", "linear", "rotary"]
Maps: TypeAlias = Mapping[str, Tensor]
"""Group name to a matrix (n, n), or (blocks, n, n) when the group is nested."""


@dataclass(frozen=True)
class ContinuousSymmetry:
    r"""Describe a matrix group that mixes one group's units.

    Slot k becomes :math:`X W_k` or :math:`X^{-\top} W_k`.

    Attributes:
        group: the units that are mixed. Its name is that of a group of the spec, whose permutations are among the
            maps; a rotary one has a name of its own, since its units cannot be permuted.
        kind: ``"orthogonal"``, ``"linear"`` (every invertible matrix) or ``"rotary"`` (a rotation and a scale for
            each pair of units that turns with the position; a rotation alone where all exponents are +1).
        exponents: the slots with +1 for X and -1 for the inverse transpose; orthogonal maps are their own.
        fixes_ones: whether only maps with X1 = 1 leave the function as it is, as under layer norm.
        gains: names of the vectors that must be one first, and are folded into their readers.
        shifts: names of the vectors that must be zero first where they do not turn with the group.
        unfoldable: those of the gains that no rescaling takes into their readers, as where a reader is tied to a
            writer. The symmetry then holds only for networks whose gains are one.
        less_one: those of the shifts that are gains less one, as norms that multiply by 1 + w store them: what they
            multiply by is folded into their readers too.
        centered: slots whose mean over the units nothing sees, so that it may be taken away.
        pairs: for rotary groups, the two units of each pair, (n / 2, 2).
    """

    group: Group
    kind: ContinuousKind
    exponents: tuple[tuple[Slot, int], ...]
    fixes_ones: bool = False
    gains: tuple[str, ...] = ()
    shifts: tuple[str, ...] = ()
    unfoldable: tuple[str, ...] = ()
    centered: tuple[Slot, ...] = ()
    pairs: tuple[tuple[int, int], ...] = ()
    less_one: tuple[str, ...] = ()

    @property
    def stretches(self) -> bool:
        """Tell whether maps change lengths: rotary ones do where a slot is scaled back."""
        return self.kind != "orthogonal" and (
            self.kind == "linear" or any(sign < 0 for _, sign in self.exponents)
        )

    def __str__(self) -> str:
        kind = self.kind + (", X1 = 1" if self.fixes_ones else "")
        slots = ", ".join(f"{place_of(slot)} {sign:+d}" for slot, sign in self.exponents)
        foldable = [name for name in self.gains if name not in self.unfoldable]
        foldable += [f"1 + {name}" for name in self.less_one]
        shifts = [name for name in self.shifts if name not in self.less_one]
        notes = [
            f"after folding {listed(foldable)}" if foldable else "",
            f"only where gains that cannot be folded are one: {listed(self.unfoldable)}"
            if self.unfoldable
            else "",
            f"only where {listed(shifts)} are zero" if shifts else "",
            f"may be centered: {listed(map(place_of, self.centered))}" if self.centered else "",
        ]
        return "; ".join([f"{self.group.name} ({kind}): {slots}", *filter(None, notes)])

    def to_json(self) -> dict[str, Any]:
        """Return what :meth:`from_json` reads."""
        return {
            **vars(self),
            "group": vars(self.group),
            "exponents": None,
            "slots": [slot.to_json() for slot, _ in self.exponents],
            "signs": [sign for _, sign in self.exponents],
            "centered": [slot.to_json() for slot in self.centered],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ContinuousSymmetry:
        """Read the symmetry that :meth:`to_json` wrote."""
        slots = [Slot.from_json(slot) for slot in data["slots"]]
        if data["kind"] not in get_args(ContinuousKind):
            raise SpecError(f"Expected one of the kinds {get_args(ContinuousKind)} but got {data['kind']!r}.")
        return cls(
            group=Group(**data["group"]),
            kind=data["kind"],
            exponents=tuple(zip(slots, data["signs"], strict=True)),
            fixes_ones=data["fixes_ones"],
            gains=tuple(data["gains"]),
            shifts=tuple(data["shifts"]),
            unfoldable=tuple(data["unfoldable"]),
            centered=tuple(Slot.from_json(slot) for slot in data["centered"]),
            pairs=tuple((one, other) for one, other in data["pairs"]),
            less_one=tuple(data.get("less_one", ())),
        )


@dataclass(frozen=True, repr=False)
class ContinuousSpec:
    """Hold the continuous symmetries of one architecture.

    Attributes:
        symmetries: at most one per group.
        reasons: per group of the permutation spec, why it is not larger than it is.
        error: the largest relative change of the output at random elements, in double precision.
    """

    symmetries: tuple[ContinuousSymmetry, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)
    error: float = 0.0

    def __repr__(self) -> str:
        groups: dict[str, list[str]] = {}
        for symmetry in self.symmetries:
            groups.setdefault(symmetry.kind, []).append(symmetry.group.name)
        kinds = "; ".join(f"{len(names)} {kind}: {listed(names)}" for kind, names in groups.items())
        return f"ContinuousSpec({kinds or 'no symmetries'}; {len(self.reasons)} groups not larger)"

    def __bool__(self) -> bool:
        return bool(self.symmetries)

    def __contains__(self, group: object) -> bool:
        return group in self._by_group

    def __getitem__(self, group: str) -> ContinuousSymmetry:
        try:
            return self._by_group[group]
        except KeyError:
            raise SpecError(f"Expected one of the groups {self.names} but got {group!r}.") from None

    @property
    def names(self) -> list[str]:
        """List the groups that have a continuous symmetry."""
        return [symmetry.group.name for symmetry in self.symmetries]

    def without(self, *groups: str, reason: str) -> ContinuousSpec:
        """Leave out groups, which keep their permutations.

        Args:
            groups: their names.
            reason: why, for :attr:`reasons`.

        >>> spec = ContinuousSpec((ContinuousSymmetry(Group("a", 3), "linear", ()),))
        >>> spec.without("a", reason="a gain is not one").reasons
        {'a': 'a gain is not one'}
        """
        kept = tuple(symmetry for symmetry in self.symmetries if symmetry.group.name not in groups)
        return replace(self, symmetries=kept, reasons={**self.reasons, **dict.fromkeys(groups, reason)})

    @cached_property
    def _by_group(self) -> dict[str, ContinuousSymmetry]:
        return {symmetry.group.name: symmetry for symmetry in self.symmetries}

    def __str__(self) -> str:
        lines = [str(symmetry) for symmetry in self.symmetries]
        for reason in dict.fromkeys(self.reasons.values()):
            groups = [name for name, other in self.reasons.items() if other == reason]
            lines.append(f"{listed(groups)}: {reason}")
        return "\n".join(lines) or "no continuous symmetries"

    def to_json(self) -> str:
        """Return JSON text; :meth:`from_json` reads it back."""
        symmetries = [symmetry.to_json() for symmetry in self.symmetries]
        return json.dumps(
            {"symmetries": symmetries, "reasons": dict(self.reasons), "error": float(self.error)}
        )

    @classmethod
    def from_json(cls, text: str) -> ContinuousSpec:
        """Read what :meth:`to_json` wrote; raises :class:`SpecError` when the text is none."""
        try:
            data: dict[str, Any] = json.loads(text)
            check_continuous_json(data)
            symmetries = tuple(map(ContinuousSymmetry.from_json, data["symmetries"]))
            return cls(symmetries, dict(data["reasons"]), data["error"])
        except SpecError:
            raise
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise SpecError(
                f"Expected the JSON of continuous symmetries but got {text[:40]!r}: {error!r}."
            ) from error


NO_CONTINUOUS = ContinuousSpec()


def check_continuous(continuous: object) -> None:
    """Raise :class:`SpecError` for what is no continuous symmetries.

    >>> check_continuous(NO_CONTINUOUS)
    """
    remedy = "find one with discover_continuous(model, spec, example_inputs)"
    check_kind(continuous, ContinuousSpec, "a ContinuousSpec", remedy)


_Split: TypeAlias = tuple[PermutationSpec, dict[str, str]]


def split_spec(spec: PermutationSpec, continuous: ContinuousSpec) -> _Split:
    """Give inverted slots and rotary units their groups.

    Returns:
        The spec, and per new group the name of the one whose maps it inverts.
    """
    if not continuous.symmetries:
        return spec, {}
    groups, slots = list(spec.groups), list(spec.slots)
    inverted: dict[str, str] = {}
    for symmetry in continuous.symmetries:
        name = symmetry.group.name
        # No name of the user's has a space at its end.
        other = f"{name} inverse "
        signs = dict(symmetry.exponents)
        if name not in spec:
            groups.append(symmetry.group)
            slots += [slot for slot, sign in symmetry.exponents if sign > 0]
        else:
            slots = [slot for slot in slots if slot.group != name]
            slots += [slot for slot, sign in symmetry.exponents if sign > 0]
        if any(sign < 0 for sign in signs.values()):
            groups.append(replace(symmetry.group, name=other))
            slots += [replace(slot, group=other) for slot, sign in symmetry.exponents if sign < 0]
            inverted[other] = name
    return replace(spec, groups=tuple(groups), slots=_under_all_names(slots, spec)), inverted


def _under_all_names(slots: Sequence[Slot], spec: PermutationSpec) -> tuple[Slot, ...]:
    """The slots, each on every name of a tied tensor."""
    names = {name: tied for tied in spec.tied for name in tied}
    every = [replace(slot, tensor=name) for slot in slots for name in names.get(slot.tensor, [slot.tensor])]
    return tuple(dict.fromkeys(every))


def transform_state(
    state: StateLike,
    spec: PermutationSpec,
    continuous: ContinuousSpec,
    maps: Maps,
    permutations: Mapping[str, Tensor],
) -> State:
    r"""Carry a network along its continuous symmetries.

    The other groups are permuted at the same time.

    .. math:: W'_k = X^{e_k} W_k, \qquad X^{-1} \text{ meaning the inverse transpose}

    Args:
        state: tensor name to tensor, of a network whose gains are one: see :func:`canonicalize`.
        spec: the permutation symmetries.
        continuous: the continuous ones of the same architecture.
        maps: a matrix, or one for each block, of every group with a continuous symmetry.
        permutations: indices or matrices of the other groups.

    Returns:
        A new dict, in the type of the products: round it once, where it is used.

    Raises:
        SpecError: when a map is missing, has another shape, or belongs to no group.
    """
    check_continuous(continuous)
    unknown = set(maps) ^ set(continuous.names)
    if unknown:
        raise SpecError(
            f"Expected maps of exactly the groups {listed(continuous.names)} but got {listed(maps)}."
        )
    whole, inverted = split_spec(spec, continuous)
    others = {name: permutation for name, permutation in permutations.items() if name not in maps}
    return permute_state(state, whole, {**others, **with_inverses(maps, inverted)})


def with_inverses(maps: Maps, inverted: Mapping[str, str]) -> dict[str, Tensor]:
    """Add the inverse transposes that move inverted slots, in single precision at least.

    Neither an inverse nor a chain of products is accurate in half precision.

    >>> with_inverses({"a": torch.tensor([[2.0]])}, {"a inverse ": "a"})["a inverse "].tolist()
    [[0.5]]
    """
    wide = {
        name: matrix.to(torch.promote_types(matrix.dtype, torch.float32)) for name, matrix in maps.items()
    }
    return wide | {other: torch.linalg.inv(wide[name]).mT for other, name in inverted.items()}
