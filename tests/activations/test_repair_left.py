"""Repair names the layers with hidden units that it leaves as they are, and why."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from sinkhorn_rebasin import RepairAlongPath, SinkhornRebasin, discover_symmetry, evaluate_path, repair
from sinkhorn_rebasin.errors import RebasinWarning
from tests.activations.repair_problems import attention, batches, layer_norm_mlp, merge, mlp, pair
from tests.zoo.case import Function


def recurrent(cell: Callable[..., nn.Module]) -> Callable[[], nn.Module]:
    """A recurrent layer over one step, and a plain layer behind it that is corrected."""

    def run(net: Function, x: Tensor) -> Tensor:
        return net.last(net.plain(net.cell(x[:, None])[0][:, 0]).relu())

    def make() -> nn.Module:
        layers = {"cell": cell(5, 6, batch_first=True), "plain": nn.Linear(6, 7), "last": nn.Linear(7, 2)}
        return Function(run, **layers)

    return make


def computed() -> nn.Module:
    """A weight that is computed from others."""
    return nn.Sequential(parametrizations.weight_norm(nn.Linear(5, 6)), nn.ReLU(), nn.Linear(6, 2))


def never_called() -> nn.Module:
    """A layer whose weight is read without calling it."""
    layers = {"read": nn.Linear(5, 6), "last": nn.Linear(6, 2)}
    return Function(
        lambda n, x: n.last(torch.nn.functional.linear(x, n.read.weight, n.read.bias).relu()), **layers
    )


LEFT = [
    (recurrent(nn.LSTM), {"cell": "it is recurrent"}),
    (recurrent(nn.GRU), {"cell": "it is recurrent"}),
    (computed, {"0": "its weight is computed from other tensors"}),
    (never_called, {"read": "the first batch does not call it"}),
    (
        attention,
        {
            "2.self_attn": "its projections are packed in one weight",
            "2.self_attn.out_proj": "the first batch does not call it",
        },
    ),
    (mlp, {}),
    (layer_norm_mlp, {}),
]


@pytest.mark.parametrize(("make", "left"), LEFT)
def test_layers_that_stay_are_named_with_the_reason(
    make: Callable[[], nn.Module], left: dict[str, str]
) -> None:
    reference, target = pair(make)
    data = batches(20)
    spec = discover_symmetry(reference, data[0])
    prepare = RepairAlongPath(reference, target, spec, data)
    merged = merge(reference, target)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        state = prepare.state_at(merged, merged.state_dict(), 0.5)
    said = [str(warning.message) for warning in seen if isinstance(warning.message, RebasinWarning)]
    assert prepare.left == left
    assert len(said) == bool(left)
    for name, reason in left.items():
        assert f"{name!r}: {reason}" in said[0]
        kept = {key: tensor for key, tensor in merged.state_dict().items() if key.startswith(f"{name}.")}
        assert all(torch.equal(state[key], tensor) for key, tensor in kept.items())


def test_a_path_names_each_layer_once() -> None:
    reference, target = pair(recurrent(nn.LSTM))
    data = [(batches(20)[0], torch.zeros(20, dtype=torch.long))]
    prepare = RepairAlongPath(reference, target, discover_symmetry(reference, data[0][0]), data)
    with pytest.warns(RebasinWarning) as seen:
        evaluate_path((target, reference), data, points=5, prepare=prepare)
    assert len([w for w in seen if "stay as they are" in str(w.message)]) == 1


def test_a_network_in_which_nothing_is_corrected_says_so() -> None:
    reference, target = pair(mlp)
    data = batches(20)
    spec = discover_symmetry(reference, data[0])
    nothing = spec.without(*spec.names)
    merged = merge(reference, target)
    with pytest.warns(RebasinWarning, match="nothing is corrected"):
        repaired = repair(merged, reference, target, nothing, data)
    torch.testing.assert_close(repaired.state_dict(), merged.state_dict(), rtol=0, atol=0)


def test_merges_of_a_rebasin_say_it_too() -> None:
    reference, target = pair(recurrent(nn.GRU))
    (x,) = batches(20)
    rebasin = SinkhornRebasin(reference, target, x)
    with pytest.warns(RebasinWarning, match="'cell': it is recurrent"):
        rebasin.merge(0.5, repair=[x])
