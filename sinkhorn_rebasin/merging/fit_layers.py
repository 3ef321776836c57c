"""Layers of a merged network fitted to what both networks compute, one by one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import BatchAdapter
from sinkhorn_rebasin.activations.batch_norm import has_statistics, reset_batch_norm
from sinkhorn_rebasin.errors import SpecError
from sinkhorn_rebasin.merging.partial.first_inputs import first_inputs, inputs_of
from sinkhorn_rebasin.merging.partial.fitted_norm import folded, write_layer
from sinkhorn_rebasin.merging.partial.layer_places import (
    LayerPlace,
    channel_axis,
    layer_inputs,
    layer_outputs,
    layer_places,
)
from sinkhorn_rebasin.merging.partial.least_squares import LeastSquares
from sinkhorn_rebasin.merging.partial.merged_state import Maps, merged_parts
from sinkhorn_rebasin.merging.partial.partial_merge import PartialMerge
from sinkhorn_rebasin.merging.partial.two_networks import TwoNetworks
from sinkhorn_rebasin.merging.partial.watched_layers import watched
from sinkhorn_rebasin.merging.repeatable import repeatable
from sinkhorn_rebasin.networks.copying import evaluation_copy, standalone_copy
from sinkhorn_rebasin.networks.modes import in_mode
from sinkhorn_rebasin.networks.randomness import untouched_randomness

Inputs = Literal["ensemble", "merged"]


def fit_layers(
    merge: PartialMerge,
    data: Iterable[Any],
    *,
    inputs: Inputs = "ensemble",
    ridge: float = 1e-4,
    positions: int | None = None,
    batch: BatchAdapter | None = None,
) -> PartialMerge:
    r"""Fit a merged network's layers to both networks.

    .. math:: W_l = \arg\min_W \sum_n \bigl\lVert W x_n - M_l \binom{z^A_n}{z^B_n} \bigr\rVert^2
        + \lambda\, \lVert W - W^0_l \rVert^2

    z are the outputs of a linear or convolution layer, behind its batch norm where one follows. M takes means over
    units that became one. The inputs x are such means too, or what the merged network itself computes: its layers are
    then fitted in their order, and each makes up for the errors of those before. Layers of other kinds stay.

    Args:
        merge: from :func:`zipit` or :func:`pleas`; it is not changed.
        data: batches of (inputs, labels) or of inputs alone. They are gone through once or twice, and with
            ``"merged"`` once more for each layer.
        inputs: ``"ensemble"``: means of both networks' inputs. ``"merged"``: of the merged network.
        ridge: λ, in units of the mean square of an input; it draws to the merged weights of both networks.
        positions: take so many places of each image or sequence, at random; None: all.
        batch: a function from a batch to (inputs, labels), for data that yield something else.

    Returns:
        The same units, with the fitted network. Statistics of batch norm are measured anew.

    Complexity: O(n k²) for n samples (pixels of images, too) and O(k³) for a layer of k inputs, kernel included.

    Raises:
        DataError: no data, an iterator, which cannot be gone through again, or too few samples without a ridge.
        SpecError: ``inputs`` is something else, the ridge is negative, or positions are fewer than one.

    Example:
        >>> from sinkhorn_rebasin.merging.zipit import zipit
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> a, b = (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(2))
        >>> x = torch.randn(64, 4)
        >>> zipped = zipit(a, b, discover_symmetry(a, x), data=[x])
        >>> fitted = fit_layers(zipped, [x], inputs="merged")
        >>> goal = torch.cat([a(x), b(x)], 1)
        >>> errors = [(merge.network(x) - goal).square().mean() for merge in (zipped, fitted)]
        >>> bool(errors[1] < errors[0])
        True

    Source: Nasery, Hayase, Koh, Oh, "PLeaS: merging models with permutations and least squares" (2025), with
    ``"ensemble"``; inputs of the merged network as in Nguyen et al., "RegMean++" (2025).
    """
    if inputs not in ("ensemble", "merged"):
        raise SpecError(f"Expected inputs to be 'ensemble' or 'merged' but got {inputs!r}.")
    if not ridge >= 0:
        raise SpecError(f"Expected a ridge of zero or more but got {ridge}.")
    if positions is not None and positions < 1:
        raise SpecError(f"Expected at least one position of each input but got positions={positions}.")
    given = repeatable(data)
    fit = _Fit(merge, given, ridge, positions, batch)
    with torch.inference_mode(False), torch.no_grad(), untouched_randomness():
        for places in [fit.places] if inputs == "ensemble" else [[place] for place in fit.places]:
            sums = fit.sums(places, follow_merged=inputs == "merged")
            for place in places:
                fit.write(place, sums[place])
    fitted = in_mode(fit.merged, False)
    for module, was in zip(fitted.modules(), merge.network.modules(), strict=True):
        module.training = was.training
    measured = {place.norm for place in fit.places} if inputs == "merged" else set()
    if any(has_statistics(module) for path, module in fitted.named_modules() if path not in measured):
        fitted = reset_batch_norm(fitted, given, batch=batch)
    return merge.with_network(fitted)


class _Fit:
    """Hold a merged network while its layers are fitted."""

    def __init__(
        self,
        merge: PartialMerge,
        data: Iterable[Any],
        ridge: float,
        positions: int | None,
        batch: BatchAdapter | None,
    ) -> None:
        self.networks: TwoNetworks = merge.networks
        self.data, self.ridge, self.positions, self.batch = data, ridge, positions, batch
        self.generator = torch.Generator("cpu").manual_seed(0)
        self.maps = {name: Maps.of(each) for name, each in merge.merges.items()}
        start = merge.network
        if any(has_statistics(module) for module in start.modules()):
            start = reset_batch_norm(start, data, batch=batch)
        self.merged = in_mode(standalone_copy(start), False)
        self.pair = [evaluation_copy(each) for each in (self.networks.reference, self.networks.target)]
        self.places = layer_places(self.networks, first_inputs(self.networks, data, batch))

    def sums(self, places: Sequence[LayerPlace], follow_merged: bool) -> dict[LayerPlace, LeastSquares]:
        """Gather inputs and targets of these layers.

        All networks are run on the data.
        """
        found = {}
        for place in places:
            layer: Any = self.pair[0].get_submodule(place.path)
            found[place] = LeastSquares(place.norm is not None or layer.bias is not None)
        for one in self.data:
            inputs = inputs_of(self.networks, one, self.batch)
            seen = [watched(network, places, inputs) for network in self.pair]
            own = watched(self.merged, places, inputs) if follow_merged else None
            for place, sums in found.items():
                layer = self.pair[0].get_submodule(place.path)
                calls = range(len(seen[0][place]))
                for call in calls:
                    taken = [each[place][call] for each in seen]
                    value = (
                        own[place][call][0] if own else self._mean([pair[0] for pair in taken], place, layer)
                    )
                    goal = self._goal([pair[1] for pair in taken], place, layer)
                    sums.update(
                        *self._some(len(value), layer_inputs(layer, value), layer_outputs(layer, goal))
                    )
        return found

    def _some(self, count: int, inputs: Tensor, goals: Tensor) -> tuple[Tensor, Tensor]:
        """Take some places of each of so many samples."""
        places = len(inputs) // max(count, 1)
        if self.positions is None or places <= self.positions:
            return inputs, goals
        chosen = torch.randperm(places, generator=self.generator)[: self.positions].to(inputs.device)
        first, second = (rows.reshape(count, places, -1)[:, chosen].flatten(0, 1) for rows in (inputs, goals))
        return first, second

    def write(self, place: LayerPlace, sums: LeastSquares) -> None:
        """Solve for a layer of the merged network.

        The solution is put there.
        """
        spec = self.networks.spec
        weights, intercepts = zip(*(folded(network, place) for network in self.pair), strict=True)
        slots = spec.slots_on(place.weight)
        head = self.networks.heads.get(place.weight)
        prior = merged_parts(self.networks, weights, slots, self.maps, head)
        vectors = [slot for slot in slots if slot.axes == (0,)]
        start = merged_parts(self.networks, intercepts, vectors, self.maps, head) if sums.intercept else None
        weight, intercept = sums.solve(prior.flatten(1), start, self.ridge, place.path)
        write_layer(self.merged, place, weight.reshape(prior.shape), intercept, sums)

    def _mean(self, values: Sequence[Tensor], place: LayerPlace, layer: nn.Module) -> Tensor:
        """Return the inputs of a layer.

        They are means over units that became one.
        """
        axis = channel_axis(layer, values[0])
        slots = [slot for slot in self.networks.spec.slots_on(place.weight) if slot.axes == (1,)]
        return self._means(values, {replace(slot, axes=(axis,)): slot.group for slot in slots})

    def _goal(self, values: Sequence[Tensor], place: LayerPlace, layer: nn.Module) -> Tensor:
        """Return the outputs of a layer.

        They are means over units that became one; those of heads lie side by side.
        """
        axis = channel_axis(layer, values[0])
        if place.weight in self.networks.heads:
            return torch.cat(list(values), axis)
        slots = [slot for slot in self.networks.spec.slots_on(place.weight) if slot.axes == (0,)]
        return self._means(values, {replace(slot, axes=(axis,)): slot.group for slot in slots})

    def _means(self, values: Sequence[Tensor], slots: Mapping[Any, str]) -> Tensor:
        return merged_parts(self.networks, values, list(slots), self.maps, None, every_slot_writes=True)
