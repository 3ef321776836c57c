"""What every matching method must do; subclass it and say which method it is."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.matching import Alignment
from sinkhorn_rebasin.permutations import PermutationSpec, check_permutations, identity_permutations
from tests.planted import WIDE, planted_case, planted_wide
from tests.symmetry.witness import difference, loaded


def equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    """Whether two mappings hold the same tensors."""
    return set(first) == set(second) and all(torch.equal(first[name], second[name]) for name in first)


class MatcherContract:
    """Equal networks give the identity, planted permutations are found, nothing else changes.

    A subclass gives :meth:`match`, and may choose its own :attr:`cases` of the zoo.
    """

    cases: tuple[str, ...] = ("mlp_relu", "mlp_batch_norm", "conv2d", "resnet_option_b")

    def match(
        self,
        reference: nn.Module,
        target: nn.Module,
        spec: PermutationSpec,
        inputs: Tensor,
        generator: torch.Generator,
    ) -> Alignment:
        """Align the target to the reference; ``inputs`` are for methods that look at activations."""
        raise NotImplementedError

    @pytest.fixture(params=range(2))
    def seed(self, request: pytest.FixtureRequest) -> int:
        return request.param

    def test_equal_networks_give_the_identity(self, seed: int) -> None:
        for name in self.cases:
            problem = planted_case(name, seed)
            same, generator = problem.reference, torch.Generator().manual_seed(seed)
            found = self.match(same, same, problem.spec, problem.inputs, generator)
            assert equal(found.permutations, identity_permutations(problem.spec)), name

    @pytest.mark.parametrize("name", sorted(WIDE))
    def test_a_planted_permutation_is_recovered(self, name: str, seed: int) -> None:
        problem = planted_wide(name, seed)
        target = loaded(problem.reference, problem.target)
        generator = torch.Generator().manual_seed(seed)
        found = self.match(problem.reference, target, problem.spec, problem.inputs, generator)
        assert equal(found.permutations, problem.answer)

    def test_the_rebased_target_is_the_same_function(self, seed: int) -> None:
        for name in self.cases:
            target = planted_case(name, seed + 100).reference.double()
            problem = planted_case(name, seed)
            reference = problem.reference.double()
            found = self.match(
                reference, target, problem.spec, problem.inputs.double(), torch.Generator().manual_seed(seed)
            )
            check_permutations(problem.spec, found.permutations)
            assert difference(target, found.apply(target), problem.inputs.double()) < 1e-10, name

    def test_nothing_passed_in_is_changed(self, seed: int) -> None:
        problem = planted_case("conv2d", seed)
        target = loaded(problem.reference, problem.target).train()
        before = [copy.deepcopy(model.state_dict()) for model in (problem.reference, target)]
        random_state = torch.get_rng_state()
        found = self.match(
            problem.reference, target, problem.spec, problem.inputs, torch.Generator().manual_seed(1)
        )
        found.apply(target)
        assert torch.equal(torch.get_rng_state(), random_state)
        assert equal(problem.reference.state_dict(), before[0])
        assert equal(target.state_dict(), before[1])
        assert target.training
        assert not problem.reference.training
        assert all(p.requires_grad and p.grad is None for p in target.parameters())

    def test_two_calls_with_the_same_generator_agree(self, seed: int) -> None:
        one, two = planted_case("resnet_option_b", seed), planted_case("resnet_option_b", seed + 100)

        def call() -> Alignment:
            generator = torch.Generator().manual_seed(seed)
            return self.match(one.reference, two.reference, one.spec, one.inputs, generator)

        first, second = call(), call()
        assert equal(first.permutations, second.permutations)
        assert first.objective == second.objective

    def test_networks_of_two_shapes_are_refused(self) -> None:
        problem = planted_case("mlp_relu")
        other = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
        with pytest.raises(ArchitectureError, match=r"0\.weight"):
            self.match(problem.reference, other, problem.spec, problem.inputs, torch.Generator())


class DeterministicMatcherContract(MatcherContract):
    """The contract of a method that draws nothing, on one set of random networks: a seed draws these alone."""

    @pytest.fixture(params=[0])
    def seed(self, request: pytest.FixtureRequest) -> int:
        return request.param
