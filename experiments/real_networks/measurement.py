"""The figures of one network with its published weights."""

from __future__ import annotations

import time
from importlib import metadata
from typing import Any

import torch
from torch import Tensor, nn

from experiments.zoo.fresh_inputs import change_on_fresh_inputs
from experiments.zoo.measurement import FAILURES, SOUND, SOUND_IN_SINGLE_PRECISION
from experiments.zoo.packages_models.network import Network
from experiments.zoo.sensitivity import effect_of_a_wrong_permutation
from sinkhorn_rebasin import discover_symmetry
from sinkhorn_rebasin.permutations.views.coverage import share_of_what_could_move, what_holds

EXAMPLE, FRESH = 3, 5


def figures_of(network: Network) -> dict[str, Any]:
    """Discover a network's symmetry and check it on inputs of another number; an error is a figure too."""
    row: dict[str, Any] = {"network": network.name}
    try:
        row["version"] = metadata.version(network.distribution)
        torch.manual_seed(0)
        model = network.make().eval()
        inputs = network.inputs(EXAMPLE)
    except (ImportError, OSError) as error:
        return row | {"skipped": f"{type(error).__name__}: {error}"[:300]}
    try:
        return row | _measured(network, model, inputs)
    except FAILURES as error:
        return row | {"sound": False, "error": f"{type(error).__name__}: {error}"[:300]}


def _measured(network: Network, model: nn.Module, inputs: Any) -> dict[str, Any]:
    before = _state(model)
    started = time.perf_counter()
    spec = discover_symmetry(model, inputs)
    seconds = time.perf_counter() - started
    # The published weights themselves: ``make`` loads them whatever the seed.
    change, precision = change_on_fresh_inputs(
        model, network.make, spec, lambda: network.inputs(FRESH), seed=1
    )
    limit = SOUND if precision == torch.float64 else SOUND_IN_SINGLE_PRECISION
    untouched = all(torch.equal(old, _state(model)[name]) for name, old in before.items())
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "groups": len(spec.groups),
        "covered": spec.coverage,
        "covered of what could move": share_of_what_could_move(spec),
        "held": what_holds(spec),
        "seconds": seconds,
        "change on fresh inputs": change,
        "precision": str(precision).removeprefix("torch."),
        "change of a wrong one": effect_of_a_wrong_permutation(model, spec, inputs),
        "sound": change <= limit and untouched,
    }


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items() if isinstance(value, Tensor)}
