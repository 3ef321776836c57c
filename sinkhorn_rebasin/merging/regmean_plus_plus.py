"""RegMean++: layer by layer, on the inputs that the merged layers before produce."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import BatchAdapter, NetworkLike, State
from sinkhorn_rebasin.curvature.factors import layers_run
from sinkhorn_rebasin.curvature.gram import GramMatrices, LayerGram, products, with_rows
from sinkhorn_rebasin.curvature.likelihood import likelihood_of
from sinkhorn_rebasin.curvature.measured_network import MeasuredNetwork
from sinkhorn_rebasin.curvature.shared_layers import SharedLayer
from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.matching.base import Alignment
from sinkhorn_rebasin.merging.aligned_networks import AlignedNetworks
from sinkhorn_rebasin.merging.fused_state import FusedState
from sinkhorn_rebasin.merging.normal_equations import shrunk, solved, weighted_sum
from sinkhorn_rebasin.merging.regression_mean import as_columns, as_state, check_settings, unfitted
from sinkhorn_rebasin.networks.batches import batches_in
from sinkhorn_rebasin.networks.execution import batch_statistics
from sinkhorn_rebasin.networks.layers import folded_in
from sinkhorn_rebasin.networks.randomness import untouched_randomness
from sinkhorn_rebasin.networks.structures import tensors_in
from sinkhorn_rebasin.networks.task_loss import task_loss

Targets: TypeAlias = Literal["merged", "own"]


def regmean_plus_plus(
    networks: Sequence[NetworkLike],
    alignments: Sequence[Alignment],
    data: Sequence[Any],
    shares: Sequence[float] | None = None,
    *,
    alpha: float = 0.9,
    ridge: float = 1e-6,
    biases: bool = False,
    targets: Targets = "merged",
    batch: BatchAdapter | None = None,
) -> FusedState:
    r"""Fuse aligned networks layer by layer.

    Each layer is fitted on merged inputs.

    .. math:: \min_W \sum_m w_m\, \mathbb E_{x \sim D_m} \bigl\lVert \hat x^\top W - t_m^\top W_m \bigr\rVert^2,
        \qquad t_m = \hat x \text{ or } x_m

    with :math:`\hat x` what goes into the layer of the merged network, all of whose earlier layers are merged
    already, and :math:`x_m` what goes into that of network m. Off-diagonal moments count α as for :func:`regmean`.
    All other tensors are plain means; batch norm of the merged network takes the statistics of each batch.

    Note:
        - Data of every network are needed where networks are merged; they are held in memory.
        - Where all networks have the same data, ``"merged"`` targets give the plain mean.

    Args:
        networks: those that were aligned, in the same order; the first is a module; none is changed.
        alignments: one a network, such as a :class:`ManyAlignment`.
        data: batches per network; a few hundred samples are enough.
        shares: w, one a network; equal without it.
        alpha, ridge, biases: as for :func:`regmean`.
        targets: ``"merged"``, as published, or ``"own"``: what each network gives on its own inputs, which also makes
            up for what the layers before have lost.
        batch: a function from a batch to (inputs, labels), for data that yield something else.

    Returns:
        The state; ``print`` it to see which tensors were fitted. Layers that cannot be fitted are named.

    Complexity: a forward pass over all data for each layer, twice as many for ``"own"``.

    Raises:
        ArchitectureError: another number of networks or shares; layers of other shapes that are not kept apart.
        DataError: no batches a network; Gram matrices that cannot be inverted.

    Example:
        >>> from sinkhorn_rebasin.merging import match_many
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> nets = [torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)) for _ in "ab"]
        >>> x = torch.randn(64, 3)
        >>> regmean_plus_plus(nets, match_many(nets, discover_symmetry(nets[0], x)), [[x], [-x]])
        FusedState(regmean++ of 2 networks; 2 tensors fitted, 2 plain means)

    Source: Nguyen et al., "RegMean++: enhancing effectiveness and generalization of regression mean for model
    merging" (2025); the targets "own": this package.
    """
    check_settings(alpha, ridge)
    if targets not in get_args(Targets):
        raise DataError(f"Expected targets to be 'merged' or 'own' but got {targets!r}.")
    aligned = AlignedNetworks.of(networks, alignments, shares)
    batches = _batches(aligned, data)
    moments = _Moments(aligned, batches, batch)
    state = aligned.mean()
    fitted: State = {}
    for name, layer in moments.layers_in_order(state).items():
        grams, cross = moments.of(name, state, own=targets == "own")
        with_bias = biases and layer.bias is not None
        size = grams[0].shape[-1] - int(layer.bias is not None and not with_bias)
        described = _described(name, layer, grams[0])
        columns = [as_columns(each, described, with_bias) for each in aligned.states]
        sides = [shrunk(each[:, :size, :size], alpha) @ own for each, own in zip(cross, columns, strict=True)]
        left = shrunk(weighted_sum(grams, aligned.shares)[:, :size, :size], alpha)
        mean = weighted_sum(columns, aligned.shares)
        found = solved(left, weighted_sum(sides, aligned.shares), mean, ridge, layer=name)
        fitted |= as_state(found, described, state, with_bias)
        state |= fitted
    return FusedState.of(
        state, "regmean++", len(networks), aligned.spec, fitted, unfitted(aligned, fitted, {})
    )


class _Moments:
    """Measure moments at one layer after another.

    The merged network and each of those that are merged are run up to it.
    """

    def __init__(
        self, aligned: AlignedNetworks, batches: Sequence[list[Any]], batch: BatchAdapter | None
    ) -> None:
        self._aligned, self._batches, self._batch = aligned, batches, batch
        self._measured = MeasuredNetwork(
            aligned.module(0), likelihood_of(task_loss, "sampled", 1, None, None)
        )
        self._folded = folded_in(self._measured.network)
        self._layers: Mapping[str, SharedLayer] = {}

    def layers_in_order(self, state: State) -> dict[str, SharedLayer]:
        """Return the layers to fit.

        They come in the order in which they first run.
        """
        order: dict[str, None] = {}

        def take(inputs: Any, _: Any) -> int:
            """See which layers run on a batch."""
            if not order:
                self._layers = layers_run(self._measured.network, self._state(state), inputs)
                self._run(state, self._layers, inputs, lambda name, rows: order.setdefault(name))
            return 1

        self._measured.over_samples(take, self._batches[0], 1, self._batch)
        apart = self._aligned.spec.ignored
        return {n: self._layers[n] for n in order if (f"{n}.weight" if n else "weight") not in apart}

    def of(self, name: str, state: State, own: bool) -> tuple[list[Tensor], list[Tensor]]:
        r"""Return both moments of a layer.

        They are on the data of each network.

        They are :math:`\mathbb E[\hat x \hat x^\top]` and :math:`\mathbb E[\hat x t^\top]`.
        """
        grams, crosses = [], []
        for number, batches in enumerate(self._batches):
            sums = _Sums()

            def take(inputs: Any, _: Any, sums: _Sums = sums, number: int = number) -> int:
                """Take in a batch; return its number of samples."""
                layer, merged, theirs = {name: self._layers[name]}, [], []
                self._run(state, layer, inputs, lambda _, rows: merged.append(rows))
                if own:
                    other = self._state(self._aligned.states[number])
                    with_rows(
                        self._measured.network, other, layer, inputs, lambda _, rows: theirs.append(rows)
                    )
                sums.add(merged, theirs if own else merged)
                return next((len(tensor) for tensor in tensors_in(inputs) if tensor.ndim), 1)

            self._measured.over_samples(take, batches, None, self._batch)
            gram, cross = sums.means()
            grams.append(gram)
            crosses.append(cross)
        return grams, crosses

    def _run(self, state: State, layers: Mapping[str, SharedLayer], inputs: Any, take: Any) -> None:
        with batch_statistics(self._measured.network, on=True, folded=self._folded):
            with_rows(self._measured.network, self._state(state), layers, inputs, take)

    def _state(self, state: State) -> State:
        """Put the first network's head in place.

        The other head may differ in shape.
        """
        own, apart = self._measured.state, self._aligned.spec.ignored
        return {name: own[name] if name in apart else state.get(name, tensor) for name, tensor in own.items()}


class _Sums:
    def __init__(self) -> None:
        self.gram: Tensor | float = 0.0
        self.cross: Tensor | float = 0.0
        self.positions = 0

    def add(self, merged: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
        """Add the products of a batch.

        Every time that the layer ran counts.
        """
        for rows, others in zip(merged, theirs, strict=True):
            self.gram = self.gram + products(rows, rows)
            self.cross = self.cross + products(rows, others)
            self.positions += rows.shape[1]

    def means(self) -> tuple[Tensor, Tensor]:
        """Return the means over all positions."""
        count = max(1, self.positions)
        return torch.as_tensor(self.gram) / count, torch.as_tensor(self.cross) / count


def _described(name: str, layer: SharedLayer, matrix: Tensor) -> LayerGram:
    prefix = f"{name}." if name else ""
    bias = None if layer.bias is None else f"{prefix}bias"
    return LayerGram(f"{prefix}weight", bias, tuple(layer.weight.shape), matrix)


def _batches(aligned: AlignedNetworks, data: Sequence[Any]) -> list[list[Any]]:
    """Read every network's data once."""
    aligned.check_one_each(data)
    for number, source in enumerate(data):
        if isinstance(source, GramMatrices):
            raise DataError(
                f"Expected batches for RegMean++, which runs the merged network on them, but got the Gram matrices "
                f"of network {number}: use RegMean."
            )
    with untouched_randomness():
        return [list(batches_in(source)) for source in data]
