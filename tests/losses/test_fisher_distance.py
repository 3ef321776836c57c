from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from sinkhorn_rebasin import (
    FisherDistance,
    SinkhornRebasin,
    WeightDistance,
    diagonal_fisher,
    discover_symmetry,
    kronecker_fisher,
    permute_state,
    random_permutations,
    sinkhorn_matching,
)
from sinkhorn_rebasin.curvature import DiagonalFisher, KroneckerFisher
from sinkhorn_rebasin.errors import ArchitectureError, LossError
from sinkhorn_rebasin.permutations import inverse
from tests.planted import planted_wide
from tests.rebasin.rebasin_problems import NETWORKS, built, inputs, network, planted

ESTIMATES = {"diagonal": diagonal_fisher, "kronecker": kronecker_fisher}


def measured(kind: str, net: nn.Module, name: str = "mlp", **options: Any) -> Any:
    return ESTIMATES[kind](net, [(inputs(name), None)], labels="expected", **options)


def uniform(net: nn.Module, value: float) -> DiagonalFisher:
    return DiagonalFisher({name: torch.full_like(p, value).detach() for name, p in net.named_parameters()}, 1)


def test_a_uniform_curvature_is_the_l2_distance_and_so_is_a_large_damping() -> None:
    reference, _, rebasin = built()
    plain = WeightDistance("l2")(rebasin)
    torch.testing.assert_close(FisherDistance(uniform(reference, 7.0))(rebasin), plain)
    torch.testing.assert_close(FisherDistance(uniform(reference, 7.0), damping=3.0)(rebasin), plain)
    for kind in ESTIMATES:
        damped = FisherDistance(measured(kind, reference), damping=1e7)
        torch.testing.assert_close(damped(rebasin), plain)
        assert not torch.isclose(FisherDistance(measured(kind, reference))(rebasin), plain, rtol=0.01)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_the_diagonal_is_a_weighted_mean_of_squared_differences(name: str, damping: float) -> None:
    reference, target, rebasin = built(name)
    fisher = measured("diagonal", reference, name)
    found = FisherDistance(fisher, damping=damping)(rebasin)
    moved = permute_state(target.state_dict(), rebasin.spec, rebasin.soft_permutations())
    mean = fisher.trace() / sum(p.numel() for p in reference.parameters())
    top, bottom = torch.zeros(()), 0.0
    for key, parameter in reference.named_parameters():
        weights = fisher.diagonal[key] + damping * mean
        top = top + (weights * (moved[key] - parameter.detach()) ** 2).sum()
        bottom += float(weights.sum())
    torch.testing.assert_close(found, top / bottom)


@pytest.mark.parametrize("kind", ESTIMATES)
@pytest.mark.parametrize("name", NETWORKS)
def test_soft_and_hard_and_without_a_batch(kind: str, name: str) -> None:
    reference, _, rebasin = built(name)
    loss = FisherDistance(measured(kind, reference, name))
    soft = loss(rebasin)
    soft.backward()
    assert all(bool(p.grad.isfinite().all()) and bool(p.grad.any()) for p in rebasin.scores.parameters())
    hard = loss(rebasin.eval(), "anything")
    assert not torch.isclose(soft, hard)
    assert not hard.requires_grad


@pytest.mark.parametrize("kind", ESTIMATES)
def test_with_learned_scales(kind: str) -> None:
    reference, target = network("mlp", 1), network("mlp", 2)
    rebasin = SinkhornRebasin(reference, target, inputs("mlp"), rescale=True)
    loss = FisherDistance(measured(kind, reference))
    rebasin.double()
    names = [*rebasin.log_scales]
    assert names == ["0"]

    def at(scales: Tensor) -> Tensor:
        return functional_call_loss(rebasin, loss, scales)

    scales = torch.randn_like(rebasin.log_scales["0"]).requires_grad_()
    assert torch.autograd.gradcheck(at, (scales,), eps=1e-6, atol=1e-6)


def functional_call_loss(rebasin: SinkhornRebasin, loss: FisherDistance, scales: Tensor) -> Tensor:
    """The loss at hard permutations and these log-scales."""
    moved = copy.copy(rebasin)
    moved._modules = {**rebasin._modules, "log_scales": _Values({"0": scales})}
    return loss(moved.eval())


class _Values(nn.Module):
    """Stands for a dictionary of parameters that are the outcome of something else."""

    def __init__(self, values: dict[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def items(self) -> Any:
        return self.values.items()


@pytest.mark.parametrize("kind", ESTIMATES)
@pytest.mark.parametrize("name", ["mlp", "residual", "grouped"])
def test_permuting_both_networks_leaves_the_distance(kind: str, name: str) -> None:
    reference, target = network(name, 1).double().eval(), network(name, 2).double().eval()
    given = inputs(name).double()
    spec = discover_symmetry(reference, given)
    shuffle = random_permutations(spec, generator=torch.Generator().manual_seed(7))
    values = []
    for order in (None, shuffle):
        pair = [copy.deepcopy(reference), copy.deepcopy(target)]
        if order is not None:
            for net in pair:
                net.load_state_dict(permute_state(net.state_dict(), spec, order))
        rebasin = SinkhornRebasin(*pair, given, spec=spec, start="identity").eval()
        fisher = ESTIMATES[kind](pair[0], [given], labels="expected")
        values.append(FisherDistance(fisher, damping=0.1)(rebasin))
    torch.testing.assert_close(*values)
    assert float(values[0]) > 1e-3


@pytest.mark.parametrize("kind", ESTIMATES)
def test_planted_permutations_are_at_distance_zero_and_found(kind: str) -> None:
    reference, target, answer = planted()
    fisher = measured(kind, reference)
    loss = FisherDistance(fisher, damping=0.1)
    at_answer = SinkhornRebasin(reference, target, inputs("mlp"), start=answer).eval()
    assert float(loss(at_answer)) == pytest.approx(0.0, abs=1e-10)
    problem = planted_wide("mlp")
    twin = copy.deepcopy(problem.reference)
    twin.load_state_dict(problem.target)
    fisher = ESTIMATES[kind](problem.reference, [problem.inputs])
    found = sinkhorn_matching(
        problem.reference,
        twin,
        problem.spec,
        loss=FisherDistance(fisher),
        steps=60,
        start="identity",
    )
    assert found.objective[-1] < found.objective[0]
    for group, indices in problem.answer.items():
        assert torch.equal(found.permutations[group], indices)


def test_near_a_minimum_half_the_quadratic_form_is_the_rise_of_the_loss() -> None:
    # Softmax regression on labels from its own distribution: there the Fisher information is the Hessian.
    torch.manual_seed(0)
    net, x = nn.Linear(4, 3).double(), torch.randn(1, 4, dtype=torch.float64)
    soft = net(x).detach().softmax(1)
    state = {name: p.detach() for name, p in net.named_parameters()}
    change = {name: 1e-3 * torch.randn_like(value) for name, value in state.items()}
    moved = {name: state[name] + change[name] for name in state}
    rise = F.cross_entropy(functional_call(net, moved, (x,)), soft) - F.cross_entropy(net(x), soft)
    fisher = kronecker_fisher(net, [x], labels="expected")
    torch.testing.assert_close(rise.detach(), fisher.quadratic(change) / 2, rtol=5e-3, atol=0)
    diagonal = diagonal_fisher(net, [x], labels="expected").quadratic(change) / 2
    assert abs(float(diagonal / rise.detach()) - 1) > 0.02
    single = {"weight": torch.zeros_like(change["weight"]), "bias": torch.zeros(3, dtype=torch.float64)}
    single["weight"][1, 2] = 1e-3
    moved = {name: state[name] + single[name] for name in state}
    rise = F.cross_entropy(functional_call(net, moved, (x,)), soft) - F.cross_entropy(net(x), soft)
    diagonal = diagonal_fisher(net, [x], labels="expected").quadratic(single) / 2
    torch.testing.assert_close(rise.detach(), diagonal, rtol=5e-3, atol=0)


@pytest.mark.parametrize("kind", ESTIMATES)
def test_half_precision_and_a_curvature_of_another_type(kind: str) -> None:
    reference, _, rebasin = built()
    fisher = measured(kind, reference)
    full = FisherDistance(fisher)(rebasin.eval())
    wide = FisherDistance(fisher.to(dtype=torch.float64))(rebasin)
    assert wide.dtype == torch.float64
    torch.testing.assert_close(wide.float(), full)
    half = FisherDistance(fisher)(rebasin.to(torch.bfloat16))
    torch.testing.assert_close(half.float(), full, rtol=0.05, atol=0)


def test_inverse_permutations_lead_back() -> None:
    reference = network("mlp", 1)
    spec = discover_symmetry(reference, inputs("mlp"))
    shuffle = random_permutations(spec, generator=torch.Generator().manual_seed(1))
    fisher = measured("diagonal", reference).diagonal
    twin = copy.deepcopy(reference)
    twin.load_state_dict(permute_state(reference.state_dict(), spec, shuffle))
    # The curvature of a network that was re-ordered is the curvature, re-ordered.
    back = permute_state(dict(measured("diagonal", twin).diagonal), spec, inverse(spec, shuffle))
    for name, value in fisher.items():
        torch.testing.assert_close(back[name], value)


def test_nothing_passed_in_changes() -> None:
    reference, _, rebasin = built("residual")
    fisher = measured("kronecker", reference, "residual")
    before = copy.deepcopy(fisher)
    scores = {name: value.detach().clone() for name, value in rebasin.scores.items()}
    FisherDistance(fisher, damping=0.1)(rebasin).backward()
    assert all(torch.equal(value, before.diagonal[name]) for name, value in fisher.diagonal.items())
    for name, layer in fisher.layers.items():
        assert torch.equal(layer.inputs, before.layers[name].inputs)
        assert torch.equal(layer.outputs, before.layers[name].outputs)
    assert all(torch.equal(value, scores[name]) for name, value in rebasin.scores.items())


def test_errors() -> None:
    reference, _, rebasin = built()
    with pytest.raises(LossError, match="damping"):
        FisherDistance(uniform(reference, 1.0), damping=-1)
    for value in (0.0, float("nan"), float("inf")):
        with pytest.raises(LossError, match="positive, finite trace"):
            FisherDistance(uniform(reference, value))
    other = FisherDistance(uniform(network("residual", 1), 1.0))
    with pytest.raises(ArchitectureError, match=r"'stem.weight'"):
        other(rebasin)
    assert repr(other) == "FisherDistance(DiagonalFisher, damping=1)"
    assert isinstance(measured("kronecker", reference), KroneckerFisher)
