"""Operations at whose results hidden units can be read: of recurrent layers, cells in loops and bare parameters.

A result holds the units of a group where it is permuted when the group's weights are. That is seen by numbers, so no
rule names a cell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import ExampleInputs, State, StateLike
from sinkhorn_rebasin.activations.recording import Place, Recording, recorded
from sinkhorn_rebasin.activations.sites import EQUAL, EVEN, NEITHER, ODD
from sinkhorn_rebasin.networks.nested_tensors import largest_change
from sinkhorn_rebasin.permutations import (
    Layout,
    PermutationSpec,
    RescalingSpec,
    identity_permutations,
    permute_state,
    random_permutations,
    rescale_state,
)
from sinkhorn_rebasin.permutations.slots import parts_of

OTHER = 1e-2
"""Results that differ by more are not one up to rounding."""


@dataclass(frozen=True)
class OperationSite:
    """Describe operations that show a group's units.

    Their results hold the units.

    Attributes:
        place: the operation, its line of code, and which of its results.
        axis: the axis of the result that holds the units, counted from the end.
        layout: where along that axis every unit is.
        parity: per sign generator of the group, whether the values change their sign with the unit (1) or not (0).
    """

    place: Place
    axis: int
    layout: Layout
    parity: tuple[int, ...] = ()

    @property
    def parities(self) -> tuple[tuple[int, ...], ...]:
        """Return the parity as a layer's site does.

        A unit holds one position alone.
        """
        return tuple((one,) for one in self.parity)


class OperationReader:
    """Read the units of groups that no layer shows.

    They are read at the last operation that holds them and shows their signs.

    Attributes:
        sites: per group, where it is read; groups that no operation shows are left out.
    """

    def __init__(
        self,
        network: nn.Module,
        state: StateLike,
        spec: PermutationSpec,
        groups: Sequence[str],
        inputs: ExampleInputs,
        rescaling: RescalingSpec,
    ) -> None:
        self.network, self.spec, self.rescaling = network, spec, rescaling
        self.groups = [name for name in groups if _is_flat(spec, name)]
        self.sites: dict[str, OperationSite] = {}
        if self.groups:
            self._draw()
            self._find(state, inputs)

    def pairs(
        self, reference: StateLike, target: StateLike, inputs: ExampleInputs
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Read each group's units in both networks.

        Values are (units, 1, samples), in the reference and the target.
        """
        if not self.sites:
            return {}
        places = {site.place for site in self.sites.values()}
        runs = self._runs(reference, inputs, lambda place, _: place in places)
        theirs = recorded(self.network, target, inputs, lambda place, _: place in places)
        found = {}
        for name, site in self.sites.items():
            chosen = [
                number
                for number in range(len(runs[0]))
                if runs[0][number][0] == site.place and self._parity(name, site, runs, number) == site.parity
            ]
            ours = _values(runs[0], chosen, site)
            found[name] = (ours, _values(theirs, chosen, site, like=runs[0]))
        return found

    def _draw(self) -> None:
        """Draw permutations without fixed units, and signs."""
        generator = torch.Generator("cpu").manual_seed(0)
        drawn = random_permutations(self.spec, generator=generator)
        self._moves = {name: drawn[name].cpu() for name in self.groups}
        for name, move in self._moves.items():
            if torch.equal(move, torch.arange(len(move), device="cpu")):
                self._moves[name] = move.roll(1)
        counts = {n: len(self.rescaling.of(n, "sign")) for n in self.groups if n in self.rescaling.groups}
        self._counts = {name: counts.get(name, 0) for name in self.groups}
        self._signs = {}
        for name in self.groups:
            signs = torch.randn(self.spec[name].units, generator=generator, device="cpu").sign()
            signs[0], signs[-1] = 1.0, -1.0
            self._signs[name] = signs

    def _runs(
        self, state: StateLike, inputs: ExampleInputs, keep: Callable[[Place, Tensor], bool]
    ) -> list[Recording]:
        """Record the network plain, permuted, and with signs.

        There is a run for each sign generator in turn.
        """
        moves = {**identity_permutations(self.spec), **self._moves}
        states: list[State] = [dict(state), permute_state(state, self.spec, moves)]
        for number in range(max(self._counts.values())):
            states.append(rescale_state(state, self.spec, self.rescaling, signs=self._flips(number)))
        runs = [recorded(self.network, one, inputs, keep) for one in states]
        whole = all([place for place, _ in run] == [place for place, _ in runs[0]] for run in runs)
        return runs if whole else [[] for _ in runs]

    def _flips(self, number: int) -> dict[str, Tensor]:
        """Return the signs of one generator per group.

        Groups without a generator of this number are left out. The signs of their other generators are one.
        """
        flips = {}
        for name, count in self._counts.items():
            if number < count:
                flips[name] = torch.ones(count, *self.spec[name].shape, device="cpu")
                flips[name][number] = self._signs[name].reshape(self.spec[name].shape)
        return flips

    def _find(self, state: StateLike, inputs: ExampleInputs) -> None:
        layouts = {name: _layouts(self.spec, name) for name in self.groups}
        lengths = {length for found in layouts.values() for length, _ in found}
        runs = self._runs(state, inputs, lambda _, tensor: not lengths.isdisjoint(tensor.shape))
        for name in self.groups:
            backwards = (
                self._site(name, layouts[name], runs, number) for number in range(len(runs[0]) - 1, -1, -1)
            )
            shown = [site for site in backwards if site is not None]
            if shown:
                # The first of the best: the last operation of those that show most signs.
                self.sites[name] = max(shown, key=lambda site: sum(site.parity))

    def _site(
        self, name: str, layouts: Sequence[tuple[int, Layout]], runs: Sequence[Recording], number: int
    ) -> OperationSite | None:
        place, tensor = runs[0][number]
        for axis in range(-1, -tensor.ndim - 1, -1):
            for length, layout in layouts:
                if tensor.shape[axis] == length:
                    site = OperationSite(place, axis, layout)
                    parity = self._parity(name, site, runs, number)
                    if parity is not None and NEITHER not in parity:
                        return OperationSite(place, axis, layout, parity)
        return None

    def _parity(
        self, name: str, site: OperationSite, runs: Sequence[Recording], number: int
    ) -> tuple[int, ...] | None:
        """Tell how signs show in a result.

        None when it does not hold the units at all.
        """
        tensor, moved, *flipped = (run[number][1] for run in runs)
        if tensor.ndim < -site.axis or any(one.shape != tensor.shape for one in (moved, *flipped)):
            return None
        positions = torch.from_numpy(site.layout.table()).reshape(-1).to(tensor.device)
        if int(positions.max()) >= tensor.shape[site.axis]:
            return None
        units = tensor.index_select(site.axis, positions)
        expected = tensor.index_copy(
            site.axis, positions, units.index_select(site.axis, self._moves[name].to(tensor.device))
        )
        if not (largest_change(expected, moved) < EQUAL and largest_change(expected, tensor) > OTHER):
            return None
        shape = [-1 if axis == site.axis % tensor.ndim else 1 for axis in range(tensor.ndim)]
        signs = self._signs[name].to(tensor).reshape(shape)
        negated = tensor.index_copy(site.axis, positions, units * signs)
        found = []
        for one in flipped[: self._counts[name]]:
            odd, even = largest_change(negated, one) < EQUAL, largest_change(tensor, one) < EQUAL
            found.append(ODD if odd and not even else EVEN if even else NEITHER)
        return tuple(found)


def _is_flat(spec: PermutationSpec, name: str) -> bool:
    """Tell whether a group is flat.

    It then neither lies in blocks nor holds any.
    """
    return spec[name].parent is None and all(group.parent != name for group in spec.groups)


def _layouts(spec: PermutationSpec, name: str) -> list[tuple[int, Layout]]:
    """List axes' lengths and layouts that units may have.

    They lie alone, or as on one of their tensors.
    """
    found = {(spec[name].units, Layout(1, spec[name].units)): None}
    for slot in spec.slots_of(name):
        if len(slot.axes) == 1:
            for part in parts_of(slot):
                if part.layout.width == 1:
                    found[spec.shapes[slot.tensor][slot.axes[0]], part.layout] = None
    return list(found)


def _values(
    recording: Recording, chosen: Sequence[int], site: OperationSite, like: Recording | None = None
) -> Tensor:
    """Read the units in the chosen results.

    They are (units, 1, samples). There are no samples where the network went another way.
    """
    positions = torch.from_numpy(site.layout.table()).reshape(-1)
    if like is not None and any(
        number >= len(recording)
        or recording[number][0] != site.place
        or recording[number][1].shape != like[number][1].shape
        for number in chosen
    ):
        chosen = ()
    parts = [recording[number][1].movedim(site.axis, 0) for number in chosen]
    flat = [part[positions.to(part.device)].reshape(len(positions), 1, -1) for part in parts]
    return torch.cat(flat, -1) if flat else torch.zeros(len(positions), 1, 0, device="cpu")
