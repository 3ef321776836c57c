from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from sinkhorn_rebasin.errors import ArchitectureError, DataError, LossError
from sinkhorn_rebasin.losses import RandomPointLoss, WeightDistance
from sinkhorn_rebasin.matching import Alignment, weight_matching
from sinkhorn_rebasin.matching.midpoint import Midpoint
from sinkhorn_rebasin.permutations import PermutationSpec, identity_permutations
from sinkhorn_rebasin.rebasin import SinkhornRebasin, sinkhorn_matching
from sinkhorn_rebasin.symmetry import discover_symmetry
from tests.matcher_contract import MatcherContract, equal
from tests.planted import planted_case, planted_wide
from tests.rebasin.rebasin_problems import mlp


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
    found = sinkhorn_matching(problem.reference, target, problem.spec, loss=loss, start="identity", steps=100)
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
        start="identity",
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
    with pytest.raises(DataError, match="None"):
        sinkhorn_matching(*pair, loss="midpoint", criterion=F.mse_loss)
    with pytest.raises(DataError, match="at least one batch"):
        sinkhorn_matching(*pair, loss="midpoint", criterion=F.mse_loss, data=[])
    with pytest.raises(ArchitectureError, match="module, which can be run"):
        sinkhorn_matching(problem.target, problem.target, problem.spec)


class Drawing(RandomPointLoss):
    """Notes its positions and the samples it is given."""

    def __init__(self) -> None:
        super().__init__(F.cross_entropy)
        self.positions: list[float] = []
        self.samples: list[list[int]] = []

    def __call__(self, rebasin: Any, batch: Any) -> Tensor:
        self.samples.append(batch[0][:, 0].int().tolist())
        return super().__call__(rebasin, batch)

    def position(self) -> float:
        self.positions.append(super().position())
        return self.positions[-1]


def test_every_step_draws_anew_and_leaves_the_global_state() -> None:
    torch.manual_seed(0)
    reference, target = (nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3)) for _ in range(2))
    x = torch.arange(12.0)[:, None].expand(12, 2)
    loader = DataLoader(TensorDataset(x, torch.randint(3, (12,))), 6, shuffle=True)
    loss, before = Drawing(), torch.get_rng_state()
    sinkhorn_matching(reference, target, discover_symmetry(reference, x), data=loader, loss=loss, steps=6)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(set(loss.positions)) == 6
    passes = [loss.samples[step] + loss.samples[step + 1] for step in (0, 2, 4)]
    assert [sorted(one) for one in passes] == [list(range(12))] * 3
    assert len({tuple(one) for one in passes}) == 3


def test_an_endless_iterator_is_read_as_far_as_it_is_needed() -> None:
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3)), torch.randn(6, 2)
    read: list[int] = []
    endless = (read.append(number) or (x, torch.zeros(6, dtype=torch.long)) for number in itertools.count())
    found = sinkhorn_matching(
        net, net, discover_symmetry(net, x), data=endless, loss="midpoint", criterion=F.cross_entropy, steps=4
    )
    assert read == [0, 1, 2, 3]
    again = sinkhorn_matching(
        *(net, net, discover_symmetry(net, x)),
        data=itertools.islice(endless, 1),
        loss="midpoint",
        criterion=F.cross_entropy,
        steps=4,
    )
    assert again.objective == found.objective
    assert len(read) == 5


def test_without_data_the_optimum_of_weight_matching_is_not_left_for_a_worse_one() -> None:
    torch.manual_seed(0)
    pair = [mlp(24) for _ in range(2)]
    spec = discover_symmetry(pair[0], torch.zeros(2, 5))

    def distance(start: Alignment) -> float:
        rebasin = SinkhornRebasin(*pair, spec=spec, start=start, check=False).eval()
        return float(WeightDistance("l2")(rebasin).detach())

    matched = distance(weight_matching(*pair, spec))
    assert distance(sinkhorn_matching(*pair, spec, steps=30)) <= matched + 1e-7
    assert distance(sinkhorn_matching(*pair, spec, steps=30, loss="l2")) > matched
