"""REPAIR: giving the units of a merged network the mean and variance they have in the networks it was made of."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import BatchAdapter, NetworkLike, State, StateLike
from sinkhorn_rebasin.activations.affine_layers import AffineLayer, affine_layers, fixed_layers
from sinkhorn_rebasin.activations.batch_norm import batch_norm_statistics
from sinkhorn_rebasin.activations.endpoints import Endpoints, nearest_weights, weights_of_endpoints
from sinkhorn_rebasin.activations.layer_by_layer import corrected_layer_by_layer
from sinkhorn_rebasin.activations.moments import Moments
from sinkhorn_rebasin.activations.repair_in_one_forward import corrected_in_one_forward
from sinkhorn_rebasin.activations.repair_sites import Stages, measured, stages_of
from sinkhorn_rebasin.errors import DataError, RebasinWarning, listed
from sinkhorn_rebasin.files.given_networks import networks_of
from sinkhorn_rebasin.networks.architecture import check_same, tensors_of, tied_names
from sinkhorn_rebasin.networks.batches import batches_in, read_batch
from sinkhorn_rebasin.networks.comparison import check_comparable
from sinkhorn_rebasin.networks.copying import evaluation_copy, standalone_copy
from sinkhorn_rebasin.networks.observed_run import TensorReads
from sinkhorn_rebasin.networks.randomness import untouched_randomness
from sinkhorn_rebasin.networks.support import check_module
from sinkhorn_rebasin.permutations import PermutationSpec
from sinkhorn_rebasin.permutations.completeness import check_spec, check_state


def repair(
    merged: nn.Module,
    reference: NetworkLike,
    target: NetworkLike | Sequence[NetworkLike],
    spec: PermutationSpec,
    data: Iterable[Any],
    *,
    at: float | Sequence[float] | None = None,
    batches: int | None = None,
    rescale_only: bool = False,
    batch: BatchAdapter | None = None,
) -> nn.Module:
    r"""Restore a merged network's activation statistics.

    They become those of its endpoints. Units of a mixture vary less than those of either network, the more so the
    deeper they lie. For every hidden unit, :math:`y` its value before the activation function,

    .. math:: y \leftarrow \frac{\sigma^*}{\sigma}\,(y - \mu) + \mu^*, \qquad
        \mu^* = (1 - \lambda)\,\mu_T + \lambda\,\mu_R, \quad \sigma^* = (1 - \lambda)\,\sigma_T + \lambda\,\sigma_R

    with mean and standard deviation over the data (and over positions, for convolutions and sequences) in the
    merged network and in both endpoints; of several targets, the weighted means over all endpoints. The correction
    becomes part of the weight and bias of the layer that computes :math:`y`. Layers are corrected one by one in the
    order in which they run, each measured with all before it corrected: the statistics then agree to round-off. All
    batches go together from layer to layer, so that the data are read once; once per layer only where a layer runs
    several times, the batches take the layers in different orders, or their activations do not fit the memory.

    What is corrected are the outputs of linear and convolution layers that a group of the spec permutes. A layer
    without a bias is only rescaled, and a unit that does not vary on the data only shifted. Batch-norm layers
    have their running statistics measured anew, and layers right in front of one are left alone; with batch norm
    everywhere this is all of REPAIR, and :func:`batch_norm_statistics` does it in one forward. Layers that share
    their weight with another, or have a forward of their own, are left alone; those that run several times are
    corrected by what all their runs have in common, which does not make each exact. A layer that fewer than two
    values reach, such as an expert that gets no tokens, stays as it is, and so do recurrent layers and packed
    attention. What stays is named in a warning.

    With ``rescale_only`` means stay what they are in the merged network, :math:`\mu^* = \mu`, and standard
    deviations alone are corrected.

    Note:
        The units of the networks must match. Where they do not, the repaired network is sure of wrong guesses, and
        the loss may rise.

    Args:
        merged: the network to correct, for example ``rebasin.merge(at)``.
        reference: the network at λ=1.
        target: the network at λ=0, its units in the order of the reference: ``rebasin.to_model()``. Of a merge of
            more than two networks, all others, as a list.
        spec: the symmetries, which say which units are hidden.
        data: batches of (inputs, labels) or of inputs alone, of training data; all are kept in memory. Some
            hundred samples are enough.
        at: λ, the position of the merged network; or one weight for each network, the reference first, which add
            up to 1. Without it the networks have equal parts.
        batches: read at most this many batches; None reads all.
        rescale_only: correct standard deviations alone.
        batch: a function from a batch to (inputs, labels), for data that yield something else.

    Returns:
        A new network of the merged one's class and mode. Nothing passed in changes.

    Raises:
        DataError: no batch, a single sample, activations that are not finite, a position outside [0, 1], weights
            that are no parts of one or not one for each network.
        ArchitectureError: the networks differ in names, shapes or types of their tensors.
        SpecError: the spec is of another network.

    Warns:
        RebasinWarning: layers with hidden units stay as they are; they are named with the reason.

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
    check_module(merged)
    check_spec(spec)
    reference, *targets = networks_of(reference, target, merged)
    weights = weights_of_endpoints(at, 1 + len(targets))
    check_comparable(merged, reference, apart=spec.ignored)
    repaired = standalone_copy(merged)
    correction = RepairAlongPath(
        reference, targets, spec, data, batches=batches, rescale_only=rescale_only, batch=batch
    )
    corrected = correction.state_at(merged, tensors_of(merged), weights)
    repaired.load_state_dict(corrected, strict=False)
    return repaired


class RepairAlongPath:
    r"""Repair a network at every position of a path.

    It is a ``prepare`` of :func:`evaluate_path` that applies :func:`repair`. Data and endpoints are read once, when
    it is made. The position is read off the state as the nearest one on the segment,
    :math:`\lambda = \langle\theta - \theta_T, \theta_R - \theta_T\rangle / \|\theta_R - \theta_T\|^2`.

    Args:
        reference, target, spec, data, batches, rescale_only, batch: see :func:`repair`; the target is the path's
            start.

    Attributes:
        left: layers with hidden units that stay as they are, by name, and why; of all positions so far.

    Raises:
        DataError, ArchitectureError, SpecError: as :func:`repair`.

    Example:
        >>> from sinkhorn_rebasin import discover_symmetry, evaluate_path
        >>> reference, target = (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(2))
        >>> data = [(torch.randn(64, 4), torch.randint(3, (64,)))]
        >>> prepare = RepairAlongPath(reference, target, discover_symmetry(reference, data[0][0]), data)
        >>> path = evaluate_path((target, reference), data, points=3, prepare=prepare)
        >>> plain = evaluate_path((target, reference), data, points=3)
        >>> torch.allclose(path.losses[[0, 2]], plain.losses[[0, 2]], atol=1e-4)    # the ends stay
        True
    """

    def __init__(
        self,
        reference: NetworkLike,
        target: NetworkLike | Sequence[NetworkLike],
        spec: PermutationSpec,
        data: Iterable[Any],
        *,
        batches: int | None = None,
        rescale_only: bool = False,
        batch: BatchAdapter | None = None,
    ) -> None:
        check_spec(spec)
        networks = networks_of(reference, target)
        for other in networks[1:]:
            check_comparable(networks[0], other, apart=spec.ignored)
        reference = networks[0]
        self.rescale_only = rescale_only
        self.spec = spec
        self.end, self.start, *_ = self._states = [tensors_of(network) for network in networks]
        self.network = evaluation_copy(reference)
        check_state(spec, self.end)
        example = spec.validity.arguments if spec.validity else ()
        # Kept, so that a shuffling or augmenting loader shows every network and layer the same samples.
        with untouched_randomness():
            self.inputs = [
                read_batch(found, batch, network=reference, labelled=False, example=example)[0]
                for found in islice(batches_in(data), batches)
            ]
        if not self.inputs:
            raise DataError("Expected at least one batch to measure activations on but got none.")
        self._endpoints = Endpoints([_endpoint_moments(network, spec, self.inputs) for network in networks])
        self.end_moments, self.start_moments = self._endpoints.moments[:2]
        self.left = fixed_layers(self.network, spec)
        self._warned: set[str] = set()

    @property
    def moments(self) -> Sequence[Mapping[str, Moments]]:
        """Return the moments of every network's layers.

        The reference comes first.
        """
        return self._endpoints.moments

    def __repr__(self) -> str:
        left = f", leaves {listed(self.left)}" if self.left else ""
        networks = f"{len(self._states)} networks of {type(self.network).__name__}"
        return f"RepairAlongPath({networks}, {len(self.inputs)} batches{left})"

    def __call__(self, module: nn.Module, state: StateLike) -> State:
        return self.state_at(module, state, self.weights_of(state))

    def position_of(self, state: StateLike) -> float:
        """Return λ of the segment's point nearest a state."""
        return self.weights_of(state)[0]

    def weights_of(self, state: StateLike) -> tuple[float, ...]:
        """Find the mixture of networks nearest to a state.

        Returns the part of each network in it, the reference first.
        """
        return nearest_weights(self._states, state, self.spec.compared)

    @torch.no_grad()
    def state_at(self, module: nn.Module, state: StateLike, at: float | Sequence[float]) -> State:
        """Return the state with this position's statistics.

        Tensors that need no correction are shared.

        Args:
            module: the architecture; unchanged.
            state: parameters and buffers of the merged network; unchanged.
            at: λ, or the weight of each network, the reference first.

        Warns:
            RebasinWarning: layers with hidden units stay as they are; each is named once.
        """
        check_same(self.start, state, apart=self.spec.ignored)
        weights = weights_of_endpoints(at, len(self._states))
        network = evaluation_copy(module)
        stages, missed = stages_of(network, self.spec, state, self.inputs[0])
        self.left.update(dict.fromkeys(missed, "the first batch does not call it"))
        if any(isinstance(stage, AffineLayer) for stage in stages.values()):
            repaired = self._corrected(network, stages, state, weights)
            for first, *others in tied_names(module):
                # Buffers that are not saved are in no state.
                repaired.update({name: repaired[first] for name in others if name in repaired})
        else:
            data = [(inputs, None) for inputs in self.inputs]
            repaired = batch_norm_statistics(module, state, data)
        self._say_what_is_left(bool(stages))
        return repaired

    def _corrected(
        self, network: nn.Module, stages: Stages, state: StateLike, weights: Sequence[float]
    ) -> State:
        """Correct all layers in one forward, where possible."""

        def correction(layer: AffineLayer, now: Moments) -> tuple[Tensor, Tensor] | None:
            """Return a layer's correction, or note its absence."""
            found = self._endpoints.correction(layer, now, weights, self.rescale_only)
            if found is None:
                self.left[layer.name] = "fewer than two values reach it"
            return found

        repaired = corrected_in_one_forward(network, stages, state, self.inputs, correction)
        if repaired is None:
            repaired = corrected_layer_by_layer(network, stages, state, self.inputs, correction)
        return repaired

    def _say_what_is_left(self, anything: bool) -> None:
        """Warn of layers left alone, once each."""
        new = {name: reason for name, reason in self.left.items() if name not in self._warned}
        self._warned.update(new)
        if not anything and not self._warned:
            self._warned.add("")
            warnings.warn(
                "Expected a layer whose outputs are hidden units, or a batch norm, but repair found none in "
                f"{type(self.network).__name__}: nothing is corrected.",
                RebasinWarning,
                stacklevel=5,
            )
        if new:
            shown = "; ".join(f"{name!r}: {reason}" for name, reason in list(new.items())[:5])
            more = f"; and {len(new) - 5} more, in Repair(...).left" if len(new) > 5 else ""
            warnings.warn(
                f"Expected to correct every layer with hidden units but {len(new)} stay as they are: {shown}{more}.",
                RebasinWarning,
                stacklevel=5,
            )


def _endpoint_moments(network: nn.Module, spec: PermutationSpec, inputs: Sequence[Any]) -> dict[str, Moments]:
    twin, state = evaluation_copy(network), tensors_of(network)
    # A run that is watched for stray reads may round otherwise than the merged network's, which is not.
    with TensorReads(state):
        moments = measured(twin, affine_layers(twin, spec), state, inputs)
    if max((found.count for found in moments.values()), default=0) == 1:
        raise DataError("Expected at least two values of every hidden unit but got one; pass more samples.")
    return moments
