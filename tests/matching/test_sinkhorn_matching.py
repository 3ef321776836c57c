from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sinkhorn_rebasin.errors import ArchitectureError, DataError, LossError
from sinkhorn_rebasin.losses import WeightDistance
from sinkhorn_rebasin.matching import Alignment, sinkhorn_matching
from sinkhorn_rebasin.matching.midpoint import Midpoint
from sinkhorn_rebasin.permutations import PermutationSpec, identity_permutations
from sinkhorn_rebasin.symmetry import discover_symmetry
from tests.matcher_contract import MatcherContract, equal
from tests.planted import planted_case, planted_wide


class TestWithoutData(MatcherContract):
    loss = "l2"

    def match(
        self,
        reference: nn.Module,
        target: nn.Module,
        spec: PermutationSpec,
        inputs: Tensor,
        generator: torch.Generator,
    ) -> Alignment:
        return sinkhorn_matching(reference, target, spec, generator=generator, loss=self.loss, steps=5)


class TestOnData(MatcherContract):
    loss = "random_point"

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
        return sinkhorn_matching(
            *(reference, target, spec),
            data=data,
            generator=generator,
            loss=self.loss,
            criterion=F.mse_loss,
            steps=5,
        )


@pytest.mark.parametrize("loss", ["l1", "l2"])
def test_a_planted_permutation_is_learned_from_scratch(loss: str) -> None:
    # From the identity nothing is given away: what is found is what the gradients taught.
    problem = planted_wide("mlp")
    target = nn.Sequential(
        *(
            type(m)(m.in_features, m.out_features) if isinstance(m, nn.Linear) else nn.ReLU()
            for m in problem.reference
        )
    )
    target.load_state_dict(problem.target)
    found = sinkhorn_matching(problem.reference, target, problem.spec, loss=loss, init="identity", steps=100)
    assert equal(found.permutations, problem.answer)
    assert found.objective[-1] < 0.5 * found.objective[0]


def test_the_midpoint_loss_is_lowered() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        reference, target = (nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3)) for _ in range(2))
        inputs, labels = torch.randn(64, 4), torch.randint(3, (64,))
    spec = discover_symmetry(reference, inputs)
    batches = list(zip(inputs.split(32), labels.split(32), strict=True))
    midpoint = Midpoint(reference, target, spec, batches, F.cross_entropy)
    found = sinkhorn_matching(
        *(reference, target, spec),
        data=iter(batches),
        loss="midpoint",
        criterion=F.cross_entropy,
        init="identity",
        steps=60,
    )
    assert len(found.objective) == 60
    assert midpoint.loss(found.permutations) < midpoint.loss(identity_permutations(spec))


def test_any_loss_will_do() -> None:
    problem = planted_case("mlp_relu")
    seen: list[object] = []

    def loss(rebasin: object, batch: object) -> Tensor:
        seen.append(batch)
        return WeightDistance("cosine")(rebasin)

    sinkhorn_matching(problem.reference, problem.reference, problem.spec, data=["a", "b"], loss=loss, steps=3)
    assert seen == ["a", "b", "a"]


def test_what_does_not_fit_is_told() -> None:
    problem = planted_case("mlp_relu")
    pair = (problem.reference, problem.reference, problem.spec)
    with pytest.raises(LossError, match="cosine"):
        sinkhorn_matching(*pair, loss="cosine")
    with pytest.raises(LossError, match="criterion"):
        sinkhorn_matching(*pair, loss="midpoint")
    with pytest.raises(DataError, match="None"):
        sinkhorn_matching(*pair, loss="midpoint", criterion=F.mse_loss)
    with pytest.raises(DataError, match="at least one batch"):
        sinkhorn_matching(*pair, loss="midpoint", criterion=F.mse_loss, data=[])
    with pytest.raises(ArchitectureError, match="Module"):
        sinkhorn_matching(problem.reference, problem.target, problem.spec)
