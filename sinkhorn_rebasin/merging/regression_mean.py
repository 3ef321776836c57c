"""RegMean: the weight of each layer that answers on all inputs as each network does on its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import BatchAdapter, NetworkLike, State
from sinkhorn_rebasin.curvature.gram import GramMatrices, LayerGram, gram_matrices
from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.matching.base import Alignment
from sinkhorn_rebasin.merging.aligned_networks import AlignedNetworks
from sinkhorn_rebasin.merging.fused_state import FusedState
from sinkhorn_rebasin.merging.normal_equations import check_gram, fitted_weight, shrunk


def regmean(
    networks: Sequence[NetworkLike],
    alignments: Sequence[Alignment],
    data: Sequence[Any],
    shares: Sequence[float] | None = None,
    *,
    alpha: float = 0.9,
    ridge: float = 1e-6,
    biases: bool = False,
    batch: BatchAdapter | None = None,
) -> FusedState:
    r"""Fuse aligned networks by least squares at every layer.

    .. math:: W = \Bigl(\sum_m w_m \hat G_m\Bigr)^{-1} \sum_m w_m \hat G_m W_m, \qquad
        \hat G_m = \alpha\, G_m + (1 - \alpha) \operatorname{diag} G_m

    for the weights W, (inputs, outputs), of linear layers and of convolutions on unfolded patches; G are the Gram
    matrices of their inputs, each owner's of its own network. They are carried by the alignment,
    :math:`G_m \mapsto P_m G_m P_m^\top`, with no second pass over data. All other tensors are plain means.

    Args:
        networks: those that were aligned, in the same order; none is changed.
        alignments: one a network, such as a :class:`ManyAlignment`.
        data: per network, its :class:`GramMatrices`, or batches to measure them on.
        shares: w, one a network; equal without it.
        alpha: α, from 0 to 1; what is off the diagonal counts so much.
        ridge: ε, the strength of a pull to the plain mean, relative to the mean diagonal.
        biases: fit biases too, each as the weight of an input that is one.
        batch: a function from a batch to (inputs, labels), for data that yield something else.

    Returns:
        The state; ``print`` it to see which tensors were fitted. Layers that cannot be fitted are named.

    Raises:
        ArchitectureError: another number of networks or shares; layers of other shapes that are not kept apart.
        DataError: Gram matrices that are missing, not finite, not symmetric or of another width; the layer is named.

    Example:
        >>> from sinkhorn_rebasin.merging import match_many
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> nets = [torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)) for _ in "ab"]
        >>> x = torch.randn(64, 3)
        >>> grams = [gram_matrices(net, [x]) for net in nets]  # by each owner
        >>> regmean(nets, match_many(nets, discover_symmetry(nets[0], x)), grams)
        FusedState(regmean of 2 networks; 2 tensors fitted, 2 plain means)

    Source: Jin et al., "Dataless knowledge fusion by merging weights of language models" (2023).
    """
    check_settings(alpha, ridge)
    aligned = AlignedNetworks.of(networks, alignments, shares)
    grams = _carried(aligned, data, batch)
    layers, reasons = layers_to_fit(grams)
    state = aligned.mean()
    fitted: dict[str, Tensor] = {}
    for name in layers:
        fitted |= _fitted_layer(aligned, [each.layers[name] for each in grams], alpha, ridge, biases)
    return FusedState.of(
        {**state, **fitted},
        "regmean",
        len(networks),
        aligned.spec,
        fitted,
        unfitted(aligned, fitted, reasons),
    )


def _carried(aligned: AlignedNetworks, data: Sequence[Any], batch: BatchAdapter | None) -> list[GramMatrices]:
    """Return Gram matrices in the common order.

    They are measured where data are given instead.
    """
    aligned.check_one_each(data)
    found = []
    for number, (alignment, source) in enumerate(zip(aligned.alignments, data, strict=True)):
        grams = source
        if not isinstance(source, GramMatrices):
            grams = gram_matrices(aligned.module(number), source, batch=batch)
        apart = aligned.spec.ignored
        grams = replace(grams, layers={n: g for n, g in grams.layers.items() if g.weight not in apart})
        for name, layer in grams.layers.items():
            shape = aligned.spec.shapes.get(layer.weight)
            if shape is None or tuple(shape) != tuple(layer.weight_shape):
                given = f"{layer.weight!r} of shape {tuple(layer.weight_shape)}"
                raise DataError(
                    f"Expected Gram matrices of this architecture's layers but layer {name!r} of network {number} "
                    f"has {given}, where the networks have {None if shape is None else tuple(shape)}."
                )
            check_gram(layer, name, number, shape)
        found.append(alignment.carry_grams(grams))
    return found


def layers_to_fit(grams: Sequence[GramMatrices]) -> tuple[list[str], dict[str, str]]:
    """Name the layers that all networks measured.

    Others come with the reason.

    Raises:
        DataError: a layer lacks the matrix of one network alone.
    """
    reasons = {name: reason for each in reversed(grams) for name, reason in each.left_out.items()}
    names = list(dict.fromkeys(name for each in grams for name in each.layers))
    for name in names:
        for number, each in enumerate(grams):
            if name not in each.layers and name not in reasons:
                raise DataError(
                    f"Expected Gram matrices of the same layers of every network but that of {name!r} of network "
                    f"{number} is missing: measure all on the same kind of inputs."
                )
    return [name for name in names if name not in reasons], reasons


def unfitted(
    aligned: AlignedNetworks, fitted: Mapping[str, Any], reasons: Mapping[str, str]
) -> dict[str, str]:
    """Say why matrices are plain means."""
    found = {}
    for name in aligned.spec.compared:
        if name in fitted or len(aligned.spec.shapes[name]) < 2:
            continue
        layer = name.rpartition(".")[0]
        found[name] = reasons.get(layer, "no linear or convolution layer that runs as a module of its own")
    return found


def check_settings(alpha: float, ridge: float) -> None:
    """Raise DataError unless a fit has good settings."""
    if not 0 <= alpha <= 1:
        raise DataError(f"Expected alpha from 0 to 1 but got {alpha!r}.")
    if not ridge >= 0:
        raise DataError(f"Expected a ridge of zero or more but got {ridge!r}.")


def _fitted_layer(
    aligned: AlignedNetworks, grams: Sequence[LayerGram], alpha: float, ridge: float, biases: bool
) -> State:
    layer = grams[0]
    with_bias = biases and layer.bias is not None
    size = layer.matrix.shape[-1] - int(layer.bias is not None and not with_bias)
    matrices = [shrunk(each.matrix[:, :size, :size], alpha) for each in grams]
    columns = [as_columns(state, layer, with_bias) for state in aligned.states]
    return as_state(
        fitted_weight(matrices, columns, aligned.shares, ridge, layer=layer.weight),
        layer,
        aligned.states[0],
        with_bias,
    )


def as_columns(state: Mapping[str, Tensor], layer: LayerGram, with_bias: bool) -> Tensor:
    """Read a layer's weight as columns.

    They are (groups, inputs, outputs), with the bias as a last input if asked for.
    """
    groups, outputs = len(layer.matrix), layer.weight_shape[0]
    weight = state[layer.weight].detach().to("cpu", torch.float64).reshape(groups, outputs // groups, -1)
    if with_bias and layer.bias is not None:
        bias = state[layer.bias].detach().to("cpu", torch.float64).reshape(groups, outputs // groups, 1)
        weight = torch.cat([weight, bias], -1)
    return weight.mT


def as_state(columns: Tensor, layer: LayerGram, like: Mapping[str, Tensor], with_bias: bool) -> State:
    """Write columns as the tensors of a layer.

    Columns are (groups, inputs, outputs).
    """
    rows = columns.mT
    size = rows.shape[-1] - int(with_bias)
    found = {layer.weight: rows[..., :size].reshape(layer.weight_shape)}
    if with_bias and layer.bias is not None:
        found[layer.bias] = rows[..., size].reshape(-1)
    return {name: tensor.to(like[name]).contiguous() for name, tensor in found.items()}
