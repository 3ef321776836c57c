from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import SpecError
from tests.carrying.networks import at, convolutions, mlp
from tests.carrying.test_carry import IMAGES, X, random_alignment
from tests.matching.rotations.turned_networks import moved_at_random, problem

LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def gradients(network: nn.Module, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """What the loss says of every parameter."""
    names = [name for name, _ in network.named_parameters()]
    values = torch.autograd.grad(F.cross_entropy(network(inputs), labels), list(network.parameters()))
    return dict(zip(names, values, strict=True))


@pytest.mark.parametrize("kind", ["relu", "tanh", "convolutions"])
def test_gradients_and_their_squares_are_those_of_the_aligned_network(kind: str) -> None:
    network = (
        convolutions(0)
        if kind == "convolutions"
        else mlp(0, activation=nn.Tanh if kind == "tanh" else nn.ReLU)
    )
    inputs = IMAGES if kind == "convolutions" else X
    labels = LABELS[: len(inputs)]
    alignment = random_alignment(network, inputs)
    there = at(network, alignment.apply(network))
    expected = gradients(there, inputs, labels)
    given = gradients(network, inputs, labels)
    moved = alignment.carry(given, "gradient")
    squares = alignment.carry({n: g.square() for n, g in given.items()}, "squared_gradient")
    for name, value in expected.items():
        assert torch.allclose(moved[name], value, atol=1e-5), name
        assert torch.allclose(squares[name], value.square(), atol=1e-5), name
        assert moved[name].dtype == value.dtype


def test_gradients_move_by_the_inverse_transpose_of_maps() -> None:
    given = problem("linear")
    labels = torch.tensor([0, 1, 2])
    found = sr.weight_matching(
        at(given.network, moved_at_random(given)), given.network, given.spec, symmetry=given.continuous
    )
    expected = gradients(at(given.network, found.apply(given.network)), given.inputs, labels)
    moved = found.carry(gradients(given.network, given.inputs, labels), "gradient")
    for name, value in expected.items():
        assert torch.allclose(moved[name], value, atol=1e-8), name


def test_kronecker_factors_are_those_of_the_aligned_network() -> None:
    network = convolutions(0)
    alignment = random_alignment(network, IMAGES)
    there = at(network, alignment.apply(network))
    data = [(IMAGES, LABELS[:4])]
    ours, expected = (sr.kronecker_fisher(net, data, criterion=F.cross_entropy) for net in (network, there))
    moved = alignment.carry_fisher(ours)
    for name, layer in expected.layers.items():
        assert torch.allclose(moved.layers[name].inputs, layer.inputs, rtol=1e-3, atol=1e-5), name
        assert torch.allclose(moved.layers[name].outputs, layer.outputs, rtol=1e-3, atol=1e-5), name
    assert all(
        torch.allclose(moved.diagonal[n], value, rtol=1e-3, atol=1e-5)
        for n, value in expected.diagonal.items()
    )


def test_masks_are_permuted_alone_and_units_by_group() -> None:
    network = mlp(0)
    alignment = random_alignment(network, X)
    mask = {"2.weight": torch.rand(8, 8, generator=torch.Generator().manual_seed(0)) > 0.5}
    rows, columns = (alignment.permutations[group] for group in ("2", "0"))
    assert torch.equal(alignment.carry(mask, "mask")["2.weight"], mask["2.weight"][rows][:, columns])
    means = {"0": torch.arange(8.0)}
    assert torch.equal(alignment.carry(means, "units")["0"], columns.float())
    with pytest.raises(SpecError, match="'nothing'"):
        alignment.carry({"nothing": torch.ones(1)}, "mask")
    with pytest.raises(SpecError, match="kind to be one of"):
        alignment.carry(mask, "masks")


def test_a_direction_steers_and_a_probe_reads_alike_in_both_networks() -> None:
    network = mlp(0)
    alignment = random_alignment(network, X)
    there = at(network, alignment.apply(network))
    direction, probe = torch.randn(2, 8, generator=torch.Generator().manual_seed(2)).unbind()
    steered = network[4](F.relu(network[2](F.relu(network[0](X))) + direction))
    moved = alignment.carry_activation(direction, at="2")
    assert torch.allclose(there[4](F.relu(there[2](F.relu(there[0](X))) + moved)), steered, atol=1e-5)
    read = network[2](F.relu(network[0](X))) @ probe
    reading = alignment.carry_activation(probe, at="2", kind="probe")
    assert torch.allclose(there[2](F.relu(there[0](X))) @ reading, read, atol=1e-5)
    assert not torch.allclose(moved, direction, atol=1e-2)
    with pytest.raises(SpecError, match="Expected 8 numbers along dimension"):
        alignment.carry_activation(torch.ones(3), at="2")
    with pytest.raises(SpecError, match="path of a module"):
        alignment.carry_activation(direction, at="1")
