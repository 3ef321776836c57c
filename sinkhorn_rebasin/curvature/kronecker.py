"""The Fisher information with one Kronecker product per layer (K-FAC): the weights of a layer act together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import BatchAdapter, Criterion, StateLike
from sinkhorn_rebasin.curvature.diagonal import diagonal_quadratic
from sinkhorn_rebasin.curvature.factors import FactorSums, layers_run
from sinkhorn_rebasin.curvature.likelihood import LabelKind, likelihood_of
from sinkhorn_rebasin.curvature.measured_network import MeasuredNetwork
from sinkhorn_rebasin.curvature.per_sample import SquaredGradients
from sinkhorn_rebasin.curvature.quadratic import entry, matched
from sinkhorn_rebasin.errors import listed
from sinkhorn_rebasin.networks.architecture import real_view
from sinkhorn_rebasin.networks.task_loss import task_loss


@dataclass(frozen=True, repr=False)
class LayerFactors:
    r"""Hold the Kronecker factors of one layer.

    :math:`F \approx A \otimes G` for a linear or convolution layer.

    Attributes:
        weight, bias: names of its parameters; None without a bias.
        weight_shape: shape of the weight, (outputs, inputs, ...).
        inputs: A, (groups, inputs, inputs), a one for the bias last; of a convolution the inputs of one position,
            channel by channel.
        outputs: G, (groups, outputs, outputs).
    """

    weight: str
    bias: str | None
    weight_shape: tuple[int, ...]
    inputs: Tensor
    outputs: Tensor

    def __repr__(self) -> str:
        return (
            f"LayerFactors({self.weight!r}, inputs {tuple(self.inputs.shape)}, "
            f"outputs {tuple(self.outputs.shape)}, trace {self.trace():.5g})"
        )

    def quadratic(self, difference: StateLike) -> Tensor:
        r"""Compute :math:`\operatorname{tr}(G\, \Delta\, A\, \Delta^\top)`.

        Here :math:`\Delta = [\Delta W, \Delta b]`.
        """
        groups, width = self.outputs.shape[:2]
        change = entry(difference, self.weight, self.weight_shape).reshape(groups, width, -1)
        if self.bias is not None:
            shift = entry(difference, self.bias, self.weight_shape[:1])
            change = torch.cat([change, shift.reshape(groups, width, 1)], -1)
        inputs, outputs = matched(self.inputs, change), matched(self.outputs, change)
        change = change.to(inputs.dtype)
        return (outputs @ change @ inputs * change).sum()

    def trace(self) -> float:
        r"""Compute :math:`\operatorname{tr} A \cdot \operatorname{tr} G`.

        It is summed over convolution groups.
        """
        traces = [factor.diagonal(dim1=-2, dim2=-1).sum(-1) for factor in (self.inputs, self.outputs)]
        return float((traces[0] * traces[1]).sum())


@dataclass(frozen=True, repr=False)
class KroneckerFisher:
    """Hold a network's Fisher information, block by block.

    Attributes:
        layers: the linear and convolution layers, by name.
        diagonal: the diagonal of the Fisher information for all other parameters.
        samples: how many samples it is the mean over.
    """

    layers: Mapping[str, LayerFactors]
    diagonal: Mapping[str, Tensor]
    samples: int

    def __repr__(self) -> str:
        return (
            f"KroneckerFisher({len(self.layers)} layers: {listed(self.layers)}; diagonal of "
            f"{len(self.diagonal)} other tensors; trace {self.trace():.5g}, mean over {self.samples} samples)"
        )

    def quadratic(self, difference: StateLike) -> Tensor:
        r"""Compute :math:`\delta^\top F \delta`.

        It is differentiable in the difference δ.
        """
        total = diagonal_quadratic(self.diagonal, difference)
        for layer in self.layers.values():
            value = layer.quadratic(difference)
            total = value + total.to(value.device)
        return total

    def trace(self) -> float:
        r"""Compute :math:`\operatorname{tr} F`."""
        rest = sum(float(real_view(values).sum()) for values in self.diagonal.values())
        return rest + sum(layer.trace() for layer in self.layers.values())

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> KroneckerFisher:
        """Copy to another device or type."""
        layers = {
            name: replace(
                layer, inputs=layer.inputs.to(device, dtype), outputs=layer.outputs.to(device, dtype)
            )
            for name, layer in self.layers.items()
        }
        diagonal = {name: value.to(device, dtype) for name, value in self.diagonal.items()}
        return replace(self, layers=layers, diagonal=diagonal)


@torch.inference_mode(False)
def kronecker_fisher(
    network: nn.Module,
    data: Iterable[Any],
    criterion: Criterion = task_loss,
    *,
    labels: LabelKind = "sampled",
    draws: int = 1,
    class_axis: int | None = None,
    chunk_size: int | None = 64,
    batches: int | None = None,
    generator: torch.Generator | None = None,
    batch: BatchAdapter | None = None,
) -> KroneckerFisher:
    r"""Measure the Kronecker factors of a network's layers.

    They are those of what goes into each linear or convolution layer, a, and of the gradient at what comes out, g.

    .. math:: F_l \approx A_l \otimes G_l, \qquad A_l = \mathbb E\bigl[\bar a \bar a^\top\bigr], \qquad
        G_l = \mathbb E_{x, y}\Bigl[\sum_t g_t g_t^\top\Bigr], \qquad \bar a = [a, 1]

    Positions t of a sequence or an image share the weight: A is the mean over them, G the sum. A layer that runs
    several times in one forward has all its runs as positions. Layers are those that run on the first batch; all
    other parameters (norms, embeddings, recurrent and transposed layers, shared or computed weights) get the
    diagonal of the Fisher information, as in :func:`diagonal_fisher`, which has the same arguments.

    Complexity: of the factors one forward per batch and one backward per draw, memory (inputs² + outputs²) a layer;
    gradients of single samples for the other parameters alone.

    Raises:
        ArchitectureError, DataError, LossError: as :func:`diagonal_fisher`.

    Example:
        >>> layer, x = nn.Linear(2, 2, bias=False), torch.tensor([[1.0, 3.0]])
        >>> factors = kronecker_fisher(layer, [x], labels="expected").layers[""]
        >>> p = layer(x).softmax(1)[0]
        >>> torch.allclose(factors.outputs[0], p.diag() - torch.outer(p, p), atol=1e-6)
        True
        >>> factors.inputs[0].tolist()
        [[1.0, 3.0], [3.0, 9.0]]

    Source: Martens, Grosse, "Optimizing neural networks with Kronecker-factored approximate curvature" (2015);
    convolutions: Grosse, Martens (2016); sequences: Eschenhagen et al. (2023), there called "expand".
    """
    measured = MeasuredNetwork(network, likelihood_of(criterion, labels, draws, class_axis, generator))
    likelihood, sums = measured.likelihood, _Sums(measured, chunk_size)

    def take(inputs: Any, observed: Any) -> int:
        """Take in a batch; return its number of samples."""
        factors, rest = sums.at(inputs)
        with torch.enable_grad():
            outputs = factors.forward(inputs)
            for chosen, weights in likelihood.weighted_labels(outputs, observed):
                factors.backward((likelihood.losses(outputs, chosen) * weights.sqrt()).sum())
                rest.update(inputs, chosen, weights)
        return len(likelihood.scores(outputs))

    samples = measured.over_samples(take, data, batches, batch)
    factors, rest = sums.at()
    layers = {
        name: LayerFactors(
            weight=f"{name}.weight" if name else "weight",
            bias=None if layer.bias is None else f"{name}.bias" if name else "bias",
            weight_shape=tuple(layer.weight.shape),
            inputs=factors.inputs[name] / max(1, factors.positions[name]),
            outputs=factors.outputs[name] / samples,
        )
        for name, layer in factors.layers.items()
    }
    return KroneckerFisher(layers, {name: value / samples for name, value in rest.sums.items()}, samples)


class _Sums:
    """Choose by the first batch which layers have factors."""

    def __init__(self, measured: MeasuredNetwork, chunk_size: int | None) -> None:
        self._measured, self._chunk_size = measured, chunk_size
        self._made: tuple[FactorSums, SquaredGradients] | None = None

    def at(self, inputs: Any = None) -> tuple[FactorSums, SquaredGradients]:
        """Return the sums of factors and the rest.

        The rest are all other parameters.
        """
        if self._made is None:
            network, state = self._measured.network, self._measured.state
            factors = FactorSums(network, state, layers_run(network, state, inputs))
            names = [name for name in self._measured.names if name not in factors.parameters]
            rest = SquaredGradients(network, state, names, self._measured.likelihood, self._chunk_size)
            self._made = factors, rest
        return self._made
