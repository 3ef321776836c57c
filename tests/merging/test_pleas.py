from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sinkhorn_rebasin import Alignment, activation_matching, identity_permutations
from sinkhorn_rebasin.errors import ArchitectureError, DataError, SpecError
from sinkhorn_rebasin.merging import pleas
from sinkhorn_rebasin.merging.partial.two_networks import TwoNetworks
from sinkhorn_rebasin.merging.partial.width_budget import WidthCost, pairs_apart
from tests.merging.zipped_networks import images, mlp, permuted_copy, residual, spec_of


def test_twice_the_width_is_the_ensemble() -> None:
    first, second, x = residual(0), residual(1, outputs=5), images()
    merged = pleas(first, second, spec_of(first, x), data=[x], budget=2.0)
    expected = torch.cat([first(x), second(x)], 1)
    torch.testing.assert_close(merged.network(x), expected, rtol=0, atol=1e-12)


def test_recurrent_units_of_both_networks_stand_side_by_side() -> None:
    class Reader(nn.Module):
        def __init__(self, outputs: int) -> None:
            super().__init__()
            self.cell, self.head = nn.GRU(3, 6, batch_first=True), nn.Linear(6, outputs)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            states: torch.Tensor = self.cell(x)[0]
            output: torch.Tensor = self.head(states[:, -1])
            return output

    torch.manual_seed(0)
    first, second, x = Reader(3).double(), Reader(4).double(), torch.randn(40, 5, 3).double()
    merged = pleas(first, second, spec_of(first, x), data=[x], budget=2.0)
    assert merged.network.cell.hidden_size == 12
    torch.testing.assert_close(merged.network(x), torch.cat([first(x), second(x)], 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("matching", ["weights", "activations"])
@pytest.mark.parametrize("inputs", ["ensemble", "merged"])
def test_two_orders_of_one_network_are_merged_without_loss(matching: str, inputs: str) -> None:
    network, x = mlp().double(), torch.randn(90, 5).double()
    spec = spec_of(network, x)
    twin = permuted_copy(network, spec)
    merged = pleas(network, twin, spec, data=[x], matching=matching, inputs=inputs)  # type: ignore[arg-type]
    torch.testing.assert_close(merged.network(x), network(x).repeat(1, 2), rtol=0, atol=1e-9)


def test_layers_are_the_least_squares_of_numpy() -> None:
    torch.manual_seed(0)
    first, second, x = mlp().double(), mlp(2).double(), torch.randn(200, 5).double()
    spec = spec_of(first, x)
    order = activation_matching(first, second, spec, data=[x], ignore=["4"]).permutations
    merged = pleas(first, second, spec, data=[x[:90], x[90:]], ridge=0.0).network
    with torch.no_grad():
        means = []
        for depth in range(5):
            ours, theirs = first[: depth + 1](x), second[: depth + 1](x)
            places = order["0" if depth < 2 else "2"]
            means.append(torch.cat([ours, theirs], 1) if depth == 4 else (ours + theirs[:, places]) / 2)
    for depth in (0, 2, 4):
        inputs = x if depth == 0 else means[depth - 1]
        ones = np.concatenate([inputs.numpy(), np.ones((200, 1))], 1)
        expected = np.linalg.lstsq(ones, means[depth].numpy(), rcond=None)[0].T
        found = torch.cat([merged[depth].weight, merged[depth].bias[:, None]], 1).detach()
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_pairs_that_differ_most_stay_two_units() -> None:
    first, x = mlp().double(), torch.randn(200, 5).double()
    spec = spec_of(first, x)
    second = permuted_copy(first, spec)
    order = activation_matching(first, second, spec, data=[x], ignore=["4"])
    with torch.no_grad():
        second[0].weight[order.permutations["0"][2]] *= -1
    merged = pleas(first, second, spec, data=[x], matching=order, budget=1.3)
    assert (2,) in merged.merges["0"].clusters
    assert merged.merges["0"].size > 8


def test_the_budget_is_kept_and_used() -> None:
    first, second, x = residual(0), residual(1), images()
    networks = TwoNetworks.of(first, second, spec_of(first, x))
    cost = WidthCost(networks, {"stem.weight": 36, "inner.weight": 36, "outer.weight": 36})

    def counted(stem: int, inner: int) -> int:
        """Nonzero multiplications of the layers and the head, with so many pairs of units apart."""
        stem_units = ["both"] * (4 - stem) + ["a", "b"] * stem
        inner_units = ["both"] * (6 - inner) + ["a", "b"] * inner
        meet = sum({one, other} != {"a", "b"} for one in stem_units for other in inner_units)
        return 36 * (18 * len(stem_units) + (9 + 1) * meet) + 3 * len(stem_units)

    for apart in ((0, 0), (1, 4), (4, 6), (3, 0)):
        expected = counted(*apart) / counted(0, 0)
        assert cost({"stem": apart[0], "inner": apart[1]}) == pytest.approx(expected)
    distances = {"stem": torch.rand(4), "inner": torch.rand(6)}
    for budget in (1.0, 1.2, 1.6):
        apart = {name: len(units) for name, units in pairs_apart(distances, cost, budget).items()}
        assert cost(apart) <= budget
        more = [name for name, count in apart.items() if count < len(distances[name])]
        assert all(cost({**apart, name: apart[name] + 1}) > budget for name in more)
        assert budget == 1 or sum(apart.values())
    worst = pairs_apart({"stem": torch.tensor([1.0, 9.0, 2.0, 3.0]), "inner": torch.zeros(6)}, cost, 1.4)
    assert worst["stem"][0] == 1


def test_bad_input_is_refused_by_name() -> None:
    first, second, x = mlp(norm=True), mlp(norm=True), torch.randn(60, 5)
    spec = spec_of(first, x)
    with pytest.raises(DataError, match="but got None"):
        pleas(first, second, spec)
    for budget in (0.9, 2.1, float("nan")):
        with pytest.raises(SpecError, match=f"a budget from 1.0, .* to 2.0, as both, but got {budget}"):
            pleas(first, second, spec, data=[x], budget=budget)
    with pytest.raises(ArchitectureError, match=r"with more of the groups '.*': norms over all units"):
        pleas(first, second, spec, data=[x], budget=2.0)
    with pytest.raises(SpecError, match="'activations', 'weights' or an Alignment but got 'guess'"):
        pleas(first, second, spec, data=[x], matching="guess")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="inputs to be 'ensemble' or 'merged' but got 'mine'"):
        pleas(first, second, spec, data=[x], inputs="mine")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="a ridge of zero or more but got -1"):
        pleas(first, second, spec, data=[x], ridge=-1.0)
    other = spec_of(nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)), x)
    with pytest.raises(SpecError, match="it lacks groups"):
        pleas(first, second, spec, data=[x], matching=Alignment(identity_permutations(other), other))
