"""REPAIR: giving the units of a merged network the mean and variance they have in the networks it was made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import State, StateLike
from sinkhorn_rebasin.activations.affine_layers import AffineLayer, affine_layers
from sinkhorn_rebasin.activations.batch_norm import batch_norm_statistics, measured_buffers
from sinkhorn_rebasin.activations.moments import Moments
from sinkhorn_rebasin.activations.one_forward import corrected_in_one_forward
from sinkhorn_rebasin.activations.stages import Stages, measured, stages_of
from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.networks.architecture import check_same, tensors_of, tied_names
from sinkhorn_rebasin.networks.comparison import check_comparable
from sinkhorn_rebasin.networks.copying import standalone_copy
from sinkhorn_rebasin.networks.execution import evaluation_copy, split_batch
from sinkhorn_rebasin.networks.randomness import untouched_randomness
from sinkhorn_rebasin.permutations import PermutationSpec


def repair(
    merged: nn.Module,
    reference: nn.Module,
    target: nn.Module,
    spec: PermutationSpec,
    data: Iterable[Any],
    *,
    at: float = 0.5,
    batches: int | None = None,
    rescale_only: bool = False,
) -> nn.Module:
    r"""Return the merged network with the activation statistics of its endpoints, as a plain network.

    Units of a mixture vary less than those of either network, the more so the deeper they lie. For every hidden
    unit, :math:`y` its value before the activation function,

    .. math:: y \leftarrow \frac{\sigma^*}{\sigma}\,(y - \mu) + \mu^*, \qquad
        \mu^* = (1 - \lambda)\,\mu_T + \lambda\,\mu_R, \quad \sigma^* = (1 - \lambda)\,\sigma_T + \lambda\,\sigma_R

    with mean and standard deviation over the data (and over positions, for convolutions and sequences) in the
    merged network and in both endpoints. The correction becomes part of the weight and bias of the layer that
    computes :math:`y`. Layers are corrected one by one in the order in which they run, each measured with all
    before it corrected: the statistics then agree to round-off. Where the data are one batch, no layer runs twice
    and there is no batch norm, that takes one forward; elsewhere one per layer.

    What is corrected are the outputs of linear and convolution layers that a group of the spec permutes. A layer
    without a bias is only rescaled, and a unit that does not vary on the data only shifted. Batch-norm layers
    have their running statistics measured anew, and layers right in front of one are left alone; with batch norm
    everywhere this is all of REPAIR, and :func:`batch_norm_statistics` does it in one forward. Layers that share
    their weight with another, or have a forward of their own, are left alone; those that run several times are
    corrected by what all their runs have in common, which does not make each exact. A layer that fewer than two
    values reach, such as an expert that gets no tokens, stays as it is.

    With ``rescale_only`` means stay what they are in the merged network, :math:`\mu^* = \mu`, and standard
    deviations alone are corrected.

    It mends networks whose units match. Of one that guesses because they do not, it makes one that is sure of
    its guesses: the loss may rise.

    Args:
        merged: the network to correct, for example ``rebasin.merge(at)``.
        reference: the network at λ=1.
        target: the network at λ=0, its units in the order of the reference: ``rebasin.to_model()``.
        spec: the symmetries, which say which units are hidden.
        data: batches of (inputs, labels) or of inputs alone, of training data; all are kept in memory. Some
            hundred samples are enough.
        at: λ, the position of the merged network.
        batches: read at most this many batches; None reads all.
        rescale_only: correct standard deviations alone.

    Returns:
        A new network of the merged one's class and mode. Nothing passed in changes.

    Raises:
        DataError: no batch, a single sample, activations that are not finite, a position outside [0, 1].
        ArchitectureError: the three networks differ in names, shapes or types of their tensors.
        SpecError: the spec is of another network.

    Example:
        >>> from sinkhorn_rebasin import LinearPath, discover_symmetry
        >>> reference, target = (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(2))
        >>> x = torch.randn(64, 4)
        >>> merged = LinearPath.between(target, reference).module_at(0.5)
        >>> repaired = repair(merged, reference, target, discover_symmetry(reference, x), [x])
        >>> goal = (reference[0](x).std(0) + target[0](x).std(0)) / 2
        >>> torch.allclose(repaired[0](x).std(0), goal, atol=1e-4)
        True

    Reference: Jordan, Sedghi, Saukh, Entezari, Neyshabur, "REPAIR: REnormalizing Permuted Activations for
    Interpolation Repair", 2023. There the statistics are those of single batches; here of all data. Without the
    means: Qu, Horváth, "Rethink Model Re-Basin and the Linear Mode Connectivity", 2024.
    """
    if not 0 <= at <= 1:
        raise DataError(f"Expected a position from 0 (target) to 1 (reference) but got {at}.")
    check_comparable(merged, reference)
    repaired = standalone_copy(merged)
    correction = Repair(reference, target, spec, data, batches=batches, rescale_only=rescale_only)
    corrected = correction.state_at(merged, tensors_of(merged), at)
    repaired.load_state_dict(corrected, strict=False)
    return repaired


class Repair:
    r"""The ``prepare`` of :func:`evaluate_path` that applies :func:`repair` at every position.

    Data and endpoints are read once, when it is made. The position is read off the state as the nearest one on
    the segment, :math:`\lambda = \langle\theta - \theta_T, \theta_R - \theta_T\rangle / \|\theta_R - \theta_T\|^2`.

    Args:
        reference, target, spec, data, batches, rescale_only: see :func:`repair`; the target is the path's start.

    Raises:
        DataError, ArchitectureError, SpecError: as :func:`repair`.

    Example:
        >>> from sinkhorn_rebasin import discover_symmetry, evaluate_path
        >>> reference, target = (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(2))
        >>> data = [(torch.randn(64, 4), torch.randint(3, (64,)))]
        >>> prepare = Repair(reference, target, discover_symmetry(reference, data[0][0]), data)
        >>> path = evaluate_path((target, reference), data, points=3, prepare=prepare)
        >>> plain = evaluate_path((target, reference), data, points=3)
        >>> torch.allclose(path.losses[[0, 2]], plain.losses[[0, 2]], atol=1e-4)    # the ends stay
        True
    """

    def __init__(
        self,
        reference: nn.Module,
        target: nn.Module,
        spec: PermutationSpec,
        data: Iterable[Any],
        *,
        batches: int | None = None,
        rescale_only: bool = False,
    ) -> None:
        check_comparable(reference, target)
        self.rescale_only = rescale_only
        self.spec = spec
        self.start, self.end = tensors_of(target), tensors_of(reference)
        self.network = evaluation_copy(reference)
        spec.check_state(self.end)
        # Kept, so that a shuffling or augmenting loader shows every network and layer the same samples.
        with untouched_randomness():
            self.inputs = [split_batch(batch, labelled=False)[0] for batch in islice(iter(data), batches)]
        if not self.inputs:
            raise DataError("Expected at least one batch to measure activations on but got none.")
        self.start_moments, self.end_moments = (
            _endpoint_moments(network, spec, self.inputs) for network in (target, reference)
        )

    def __call__(self, module: nn.Module, state: StateLike) -> State:
        return self.state_at(module, state, self.position_of(state))

    def position_of(self, state: StateLike) -> float:
        """λ of the point on the segment that is nearest to a state."""
        along = total = 0.0
        for name in self.spec.parameters:
            if self.start[name].is_floating_point() and self.start[name].layout == torch.strided:
                start = self.start[name].double()
                step = self.end[name].double() - start
                moved = state[name].to(start) - start
                finite = step.isfinite() & moved.isfinite()
                along += (moved * step)[finite].sum().item()
                total += step[finite].square().sum().item()
        return min(max(along / total, 0.0), 1.0) if total else 0.0

    @torch.no_grad()
    def state_at(self, module: nn.Module, state: StateLike, position: float) -> State:
        """Return the state with the statistics of this position; tensors that need no correction are shared.

        Args:
            module: the architecture; unchanged.
            state: parameters and buffers of the merged network; unchanged.
            position: λ.
        """
        check_same(self.start, state)
        network = evaluation_copy(module)
        stages = stages_of(network, self.spec, state, self.inputs[0])
        if not any(isinstance(stage, AffineLayer) for stage in stages.values()):
            return batch_norm_statistics(module, state, [(inputs, None) for inputs in self.inputs])
        repaired = self._in_one_forward(network, stages, state, position)
        if repaired is None:
            repaired = self._layer_by_layer(network, stages, state, position)
        for first, *others in tied_names(module):
            # Buffers that are not saved are in no state.
            repaired.update({name: repaired[first] for name in others if name in repaired})
        return repaired

    def _in_one_forward(
        self, network: nn.Module, stages: Stages, state: StateLike, position: float
    ) -> State | None:
        """All layers in one forward of the data; None where that is not the same."""

        def correction(layer: AffineLayer, now: Moments) -> tuple[Tensor, Tensor] | None:
            return self._correction(layer, now, position)

        return corrected_in_one_forward(network, stages, state, self.inputs, correction)

    def _layer_by_layer(self, network: nn.Module, stages: Stages, state: StateLike, position: float) -> State:
        """Forward all data for one layer after the other."""
        repaired = dict(state)
        for layer, stage in stages.items():
            moments = measured(network, {layer: stage}, repaired, self.inputs)
            if isinstance(stage, AffineLayer):
                correction = self._correction(stage, moments[stage.name], position)
                if correction is not None:
                    repaired.update(stage.transformed(repaired, *correction))
            elif moments[stage].count > 1:
                repaired.update(measured_buffers(repaired, moments))
        return repaired

    def _correction(self, layer: AffineLayer, now: Moments, position: float) -> tuple[Tensor, Tensor] | None:
        """Scale and shift, each (outputs,), that give a layer's hidden units the interpolated statistics.

        None where fewer than two values reached the layer in one of the three networks.
        """
        start, end = self.start_moments[layer.name], self.end_moments[layer.name]
        if min(found.count for found in (now, start, end)) < 2:
            return None
        mean = now.mean if self.rescale_only else torch.lerp(start.mean, end.mean, position)
        deviation = torch.lerp(start.deviation(), end.deviation(), position)
        found = now.deviation()
        # Below this the variation is round-off, and nothing to divide by.
        varies = found > 1e-6 * now.mean.abs()
        scale = torch.where(varies, deviation / found, 1.0)
        # In this order of operations a network that already has the statistics keeps its very bias.
        shift = mean - now.mean * scale
        hidden = torch.zeros(layer.outputs, dtype=torch.bool, device=scale.device)
        hidden[list(layer.units)] = True
        return torch.where(hidden, scale, 1.0), torch.where(hidden, shift, 0.0)


def _endpoint_moments(network: nn.Module, spec: PermutationSpec, inputs: Sequence[Any]) -> dict[str, Moments]:
    twin = evaluation_copy(network)
    moments = measured(twin, affine_layers(twin, spec), tensors_of(network), inputs)
    if max((found.count for found in moments.values()), default=0) == 1:
        raise DataError("Expected at least two values of every hidden unit but got one; pass more samples.")
    return moments
