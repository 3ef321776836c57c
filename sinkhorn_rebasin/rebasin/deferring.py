"""Mixed weights that layers apply to few rows, or positions, by products alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.networks.deferred_weight import DeferredWeight, deferred_weight
from sinkhorn_rebasin.networks.layers import multiplied_weights
from sinkhorn_rebasin.permutations.merged_weights import MergedWeights

FEW_ROWS = 64
"""Of layers that multiply cheaper than they form their weight only below it, the calls cost more than is won."""


def deferred_weights(
    merged: MergedWeights, network: nn.Module, matrices: Mapping[str, Tensor], at: float
) -> State:
    """Stand for weights and biases of wide layers.

    They are a network's linear layers and convolutions.

    Args:
        merged: mixes the weights of two networks.
        network: the architecture.
        matrices: (n, n) of each group.
        at: λ.

    Returns:
        Tensors of the layers whose batches may have few rows, by name; see :class:`DeferredWeight`.
    """
    rows = {name: merged.rows_multiplied(name) for name in merged.names}
    if max(rows.values(), default=0) < FEW_ROWS or _compiles(network):
        return {}
    deferred: State = {}
    for name, bias in multiplied_weights(network).items():
        if rows.get(name, 0) >= FEW_ROWS:
            kept = bias if bias is not None and merged.takes_bias(name, bias) else None
            deferred |= _layer(merged, matrices, at, rows[name], name, kept)
    return deferred


def _layer(
    merged: MergedWeights, matrices: Mapping[str, Tensor], at: float, rows: int, name: str, bias: str | None
) -> dict[str, Tensor]:
    """Stand for one layer's weight and bias.

    The bias is left out unless it is moved as the rows are.
    """

    def product(inputs: Tensor, biased: bool, *how: Any) -> Tensor:
        """Multiply without forming the weight."""
        return merged.product(name, matrices, at, inputs, bias if biased else None, *how)

    def stand_in(name: str, *others: Any) -> DeferredWeight:
        """Form a tensor when something asks for it."""
        part = merged.part([name])
        sources = [matrices[group] for group in part.groups]
        return deferred_weight(merged.in_network(name), sources, lambda: part(matrices, at)[name], *others)

    if bias is None:
        return {name: stand_in(name, product, rows)}
    second = stand_in(bias)
    return {name: stand_in(name, product, rows, second), bias: second}


def _compiles(network: nn.Module) -> bool:
    """Tell whether the compiler runs a network's part.

    It takes weights for plain tensors.
    """
    return any(
        layer._compiled_call_impl is not None or hasattr(layer.forward, "_torchdynamo_orig_callable")
        for layer in network.modules()
    )
