"""How much a network's error rises when its weights are shaken."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import BatchAdapter, State
from sinkhorn_rebasin.connectivity.evaluate_path import Prepare, evaluate_state
from sinkhorn_rebasin.errors import DataError, SpecError
from sinkhorn_rebasin.landscape.plane import others_of, weights_of
from sinkhorn_rebasin.landscape.random_plane import filter_normalised, normal_like
from sinkhorn_rebasin.networks.architecture import double_precision, real_view, tensors_of
from sinkhorn_rebasin.networks.batches import batches_in
from sinkhorn_rebasin.networks.copying import evaluation_copy
from sinkhorn_rebasin.networks.randomness import untouched_randomness
from sinkhorn_rebasin.permutations import PermutationSpec, RescalingSpec, normalize_state_scales

Noise: TypeAlias = Literal["weights", "units"]


def local_energy(
    network: nn.Module,
    data: Iterable[Any],
    *,
    scales: Sequence[float] = (0.05, 0.1, 0.2, 0.3, 0.5),
    draws: int = 10,
    noise: Noise = "weights",
    spec: PermutationSpec | None = None,
    rescaling: RescalingSpec | None = None,
    generator: torch.Generator | None = None,
    prepare: Prepare | None = None,
    batch: BatchAdapter | None = None,
) -> Tensor:
    r"""Return how much the error rises around a network.

    .. math:: \mathbb E_{z \sim N(0, I)} \bigl[ E(\theta + \sigma\, \theta \odot z) \bigr] - E(\theta)

    E is the share of samples classified wrongly. With spec and rescalings the network is normalised first.

    - ``"weights"``: noise as large as each weight. No scale of units changes this energy, as noise scales with them.
    - ``"units"``: noise as long as each unit's weights; it is the network's normal form that this is measured at.

    Args:
        network: never changed; it runs in eval mode.
        data: batches of (inputs, labels) with integer classes; read once and held in memory.
        scales: σ.
        draws: noises for each σ; the same ones for all.
        noise: ``"weights"`` or ``"units"``.
        spec, rescaling: the network's symmetries.
        generator: draws z; without it a fixed one of its own.
        prepare: called with the network and each state, as for :func:`evaluate_path`.
        batch: a function from a batch to (inputs, labels), for data that yield something else.

    Returns:
        (scales,), in double precision, a fraction.

    Raises:
        DataError: no batch, labels that are no classes, no draw, or another kind of noise.
        SpecError: rescalings of another network, or a spec without rescalings.

    Example:
        >>> net, x = nn.Linear(3, 2), torch.randn(200, 3)
        >>> energy = local_energy(net, [(x, net(x).argmax(1))], scales=(0.0, 0.5))
        >>> energy[0].item(), bool(energy[1] > 0)
        (0.0, True)

    Source: Pittorino, Lucibello, Feinauer, Perugini, Baldassi, Demyanenko, Zecchina, "Entropic gradient descent
    algorithms and wide flat minima" (2021).
    """
    if noise not in get_args(Noise) or draws < 1:
        raise DataError(
            f"Expected noise of {' or '.join(map(repr, get_args(Noise)))} and at least one draw but got {noise!r} "
            f"and {draws} draws."
        )
    if (spec is None) != (rescaling is None):
        raise SpecError(
            "Expected a spec and its rescalings, to normalise the network with, or neither, but got one of the two."
        )
    with untouched_randomness():
        batches = list(batches_in(data))
    generator = generator or torch.Generator().manual_seed(0)
    state: State = dict(tensors_of(network))
    if spec is not None and rescaling is not None:
        state = normalize_state_scales(state, spec, rescaling)
    module, weights, others = evaluation_copy(network), weights_of(network, state), others_of(network, state)

    def error(moved: State) -> float:
        """Return the share of samples that weights classify wrongly."""
        with torch.no_grad(), untouched_randomness():
            at = {**others, **moved}
            at = at if prepare is None else prepare(module, at)
            accuracy = evaluate_state(module, at, batches, _no_loss, batch=batch)[1]
        if accuracy is None:
            raise DataError("Expected outputs (samples, classes) and integer classes, which have an error.")
        return 1 - accuracy

    noises = [_drawn(weights, noise, generator) for _ in range(draws)]
    raised = [
        sum(error(_shaken(weights, drawn, scale)) for drawn in noises) / draws - error(weights)
        for scale in scales
    ]
    return torch.tensor(raised, dtype=torch.float64)


def _drawn(weights: State, noise: Noise, generator: torch.Generator) -> State:
    if noise == "units":
        return filter_normalised(weights, generator)
    drawn = {}
    for name, tensor in weights.items():
        shaken = real_view(double_precision(tensor)) * real_view(normal_like(tensor, generator))
        drawn[name] = torch.view_as_complex(shaken) if tensor.is_complex() else shaken
    return drawn


def _shaken(weights: State, drawn: State, scale: float) -> State:
    return {
        name: (double_precision(tensor) + scale * drawn[name]).to(tensor.dtype)
        for name, tensor in weights.items()
    }


def _no_loss(outputs: Any, labels: Any) -> Tensor:
    return torch.zeros(())
