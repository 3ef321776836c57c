from __future__ import annotations

import itertools

import pytest
import torch

from sinkhorn_rebasin.merging import match_by_frank_wolfe, match_to_mean
from sinkhorn_rebasin.merging.frank_wolfe import _best_share, _Problem
from sinkhorn_rebasin.merging.states import states_of, sum_of_products
from sinkhorn_rebasin.permutations import permute_state, random_permutations
from sinkhorn_rebasin.symmetry import discover_symmetry
from tests.merging.test_merge_many import unrelated


def soft_start(spec: object, count: int) -> list[dict[str, torch.Tensor]]:
    """Doubly stochastic matrices inside of the polytope."""
    torch.manual_seed(3)
    means = []
    for _ in range(count):
        draws = [random_permutations(spec) for _ in range(3)]  # type: ignore[arg-type]
        means.append(
            {
                name: sum(torch.nn.functional.one_hot(draw[name], draw[name].shape[-1]) for draw in draws) / 3
                for name in draws[0]
            }
        )
    return means


def test_slopes_and_values_are_those_of_finite_differences() -> None:
    networks = [net.double() for net in unrelated(3)]
    states, spec = states_of(networks, discover_symmetry(networks[0], torch.ones(2, 5, dtype=torch.float64)))
    problem, place = _Problem(states, spec), soft_start(spec, 3)
    place = [{name: matrix.double() for name, matrix in each.items()} for each in place]
    moved = [permute_state(state, spec, each) for state, each in zip(states, place, strict=True)]
    assert problem.value(place) == pytest.approx(sum_of_products(moved, spec.parameters))
    slopes = problem._slopes(place)
    for number, name, i, j in [(0, "0", 1, 2), (1, "2", 0, 8), (2, "0", 11, 4)]:
        values = []
        for step in (1e-4, -1e-4):
            there = [dict(each) for each in place]
            there[number][name] = there[number][name].clone()
            there[number][name][i, j] += step
            # Of the square of its own size, which is no product of two networks, the slope knows nothing.
            values.append(problem.value(there))
        slope = float(slopes[number][name][i, j])
        assert slope == pytest.approx((values[0] - values[1]) / 2e-4, rel=1e-4, abs=1e-6)


def test_the_share_of_a_step_is_the_best_of_a_fine_grid() -> None:
    states, spec = states_of(unrelated(3), discover_symmetry(unrelated(1)[0], torch.ones(2, 5)))
    problem, place = _Problem(states, spec), soft_start(spec, 3)
    vertex = [
        {n: torch.nn.functional.one_hot(order, order.shape[-1]).float() for n, order in each.items()}
        for each in (random_permutations(spec) for _ in range(3))
    ]

    def value(share: float) -> float:
        pairs = zip(place, vertex, strict=True)
        return problem.value([{n: (1 - share) * a[n] + share * b[n] for n in a} for a, b in pairs])

    best = _best_share(value, problem.degree)
    assert value(best) >= max(value(number / 200) for number in range(201)) - 1e-5


def test_every_step_goes_uphill_and_refining_lowers_nothing() -> None:
    networks = unrelated(4)
    spec = discover_symmetry(networks[0], torch.ones(2, 5))
    found = match_by_frank_wolfe(networks, spec)
    steps = found.objective[:-2]
    assert all(later >= before - 1e-6 for before, later in itertools.pairwise(steps))
    assert found.objective[-1] >= found.objective[-2] - 1e-9
    assert found.cycle_error() == 0
    one_by_one = match_to_mean(networks, spec, max_rounds=0)
    assert found.objective[-1] > one_by_one.objective[-1]
    published = match_by_frank_wolfe(networks, spec, refine=False)
    assert published.objective == found.objective[:-1]
    assert not match_by_frank_wolfe(networks, spec, seconds=1e-9).converged


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_programs_without_gradients_match_all_the_same(mode: type) -> None:
    networks = unrelated(3)
    spec = discover_symmetry(networks[0], torch.ones(2, 5))
    expected = match_by_frank_wolfe(networks, spec)
    with mode():
        found = match_by_frank_wolfe(networks, spec)
    assert found.objective == expected.objective


def test_networks_without_hidden_units_stay_as_they_are() -> None:
    networks = [torch.nn.Linear(4, 3) for _ in range(3)]
    spec = discover_symmetry(networks[0], torch.randn(2, 4))
    many = match_by_frank_wolfe(networks, spec)
    assert spec.groups == ()
    assert many.converged
    for network, state in zip(networks, many.apply(networks), strict=True):
        assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
