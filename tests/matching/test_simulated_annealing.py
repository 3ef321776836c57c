from __future__ import annotations

from collections.abc import Callable
from itertools import permutations as orders

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sinkhorn_rebasin.assignment.temperature import geometric
from sinkhorn_rebasin.errors import LossError, SpecError
from sinkhorn_rebasin.matching import Alignment, simulated_annealing, weight_matching
from sinkhorn_rebasin.matching.midpoint import Midpoint
from sinkhorn_rebasin.permutations import PermutationSpec, check_permutations
from sinkhorn_rebasin.symmetry import discover_symmetry
from tests.matcher_contract import MatcherContract, equal
from tests.planted import planted_case, planted_network


def tiny() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


class TestByWeightDistance(MatcherContract):
    cases = ("mlp_relu", "conv2d", "grouped")
    # As many proposals as a planted permutation needs; what holds after any number is asked after fewer.
    steps_to_recover = 1000
    steps = 150
    temperature: Callable[[float], float] | None = None

    def match(
        self,
        reference: nn.Module,
        target: nn.Module,
        spec: PermutationSpec,
        inputs: Tensor,
        generator: torch.Generator,
    ) -> Alignment:
        return simulated_annealing(
            reference, target, spec, generator=generator, steps=self.steps, temperature=self.temperature
        )

    @pytest.mark.parametrize("name", ["tiny"])
    def test_a_planted_permutation_is_recovered(self, name: str, seed: int) -> None:
        # The wide networks of the other methods have far too many orders to be searched at random.
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            problem = planted_network(tiny(), torch.randn(8, 4), seed)
        generator = torch.Generator().manual_seed(seed)
        target = tiny()
        target.load_state_dict(problem.target)
        self.steps = self.steps_to_recover
        found = self.match(problem.reference, target, problem.spec, problem.inputs, generator)
        assert equal(found.permutations, problem.answer)

    def test_two_calls_with_the_same_generator_agree(self, seed: int) -> None:
        # Hot enough that what is drawn decides what is accepted in every run, however few its proposals.
        self.temperature = geometric(5e-2, 1e-3)
        super().test_two_calls_with_the_same_generator_agree(seed)


class TestByMidpointLoss(TestByWeightDistance):
    # Without batch norm, which runs on batch statistics: equal networks then have the lowest loss there is.
    cases = ("mlp_relu", "grouped")
    steps_to_recover = 250
    steps = 60

    def match(
        self,
        reference: nn.Module,
        target: nn.Module,
        spec: PermutationSpec,
        inputs: Tensor,
        generator: torch.Generator,
    ) -> Alignment:
        with torch.no_grad():
            data = [(inputs, reference(inputs))]
        return simulated_annealing(
            *(reference, target, spec),
            data=data,
            criterion=F.mse_loss,
            generator=generator,
            steps=self.steps,
            temperature=self.temperature,
        )


@pytest.mark.parametrize("seed", range(3))
def test_one_hidden_layer_reaches_the_best_of_all_orders(seed: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        reference, target = (nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)) for _ in range(2))
        inputs, labels = torch.randn(16, 3), torch.randn(16, 2)
    spec = discover_symmetry(reference, inputs)
    midpoint = Midpoint(reference, target, spec, [(inputs, labels)], F.mse_loss)
    best = min(midpoint.loss({"0": torch.tensor(order)}) for order in orders(range(4)))
    found = simulated_annealing(
        *(reference, target, spec),
        data=[(inputs, labels)],
        criterion=F.mse_loss,
        steps=300,
        temperature=lambda share: 0.1 * (1 - share) + 1e-6,
    )
    assert midpoint.loss(found.permutations) == pytest.approx(best)
    assert found.objective[-1] == pytest.approx(best)


def test_the_energy_is_the_weight_distance_and_never_rises() -> None:
    one, two = planted_case("conv2d", 0), planted_case("conv2d", 1)
    found = simulated_annealing(one.reference, two.reference, one.spec, steps=300)
    moved = found.apply(two.reference)
    distance = sum(
        float((parameter.detach() - moved[name]).square().sum())
        for name, parameter in one.reference.named_parameters()
    )
    assert found.objective[-1] == pytest.approx(distance, rel=1e-5)
    assert list(found.objective) == sorted(found.objective, reverse=True)
    assert found.objective[-1] < found.objective[0]


def test_from_weight_matching_it_is_never_worse() -> None:
    one, two = planted_case("conv2d", 0), planted_case("conv2d", 1)
    start = weight_matching(one.reference, two.reference, one.spec)
    found = simulated_annealing(one.reference, two.reference, one.spec, steps=0, start="weight_matching")
    check_permutations(one.spec, found.permutations)
    identity = simulated_annealing(one.reference, two.reference, one.spec, steps=0)
    gain = sum(
        float((p.detach() * (start.apply(two.reference)[name] - two.reference.state_dict()[name])).sum())
        for name, p in one.reference.named_parameters()
    )
    assert identity.objective[0] - found.objective[0] == pytest.approx(2 * gain, rel=1e-4)


def test_what_does_not_fit_is_told() -> None:
    problem = planted_case("mlp_relu")
    pair = (problem.reference, problem.target, problem.spec)
    with pytest.raises(LossError, match="criterion without data"):
        simulated_annealing(*pair, criterion=F.mse_loss)
    with pytest.raises(SpecError, match="nowhere"):
        simulated_annealing(*pair, start="nowhere")
    empty = simulated_annealing(*pair[:2], problem.spec.without(*problem.spec.names))
    assert not empty.permutations
