from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from sinkhorn_rebasin.errors import ArchitectureError, DataError, LossError
from sinkhorn_rebasin.matching import Alignment, straight_through, weight_matching
from sinkhorn_rebasin.matching.midpoint import Midpoint
from sinkhorn_rebasin.permutations import PermutationSpec, permute_state, random_permutations
from sinkhorn_rebasin.symmetry import discover_symmetry
from tests.cases import case, randomise
from tests.matcher_contract import MatcherContract
from tests.planted import planted_case
from tests.symmetry.witness import difference


class TestStraightThrough(MatcherContract):
    def match(
        self,
        reference: nn.Module,
        target: nn.Module,
        spec: PermutationSpec,
        inputs: Tensor,
        generator: torch.Generator,
    ) -> Alignment:
        with torch.no_grad():
            data = DataLoader(TensorDataset(inputs, reference(inputs)), batch_size=len(inputs), shuffle=True)
        return straight_through(
            reference, target, spec, data=data, generator=generator, criterion=F.mse_loss, epochs=2
        )


def trained(seed: int, inputs: Tensor, labels: Tensor) -> nn.Module:
    """A small classifier that has learned its data."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 2))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        F.cross_entropy(net(inputs), labels).backward()
        optimizer.step()
    return net


def test_it_finds_a_lower_midpoint_loss_than_weight_matching() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        inputs = torch.randn(128, 4)
        labels = (inputs[:, 0] * inputs[:, 1] > inputs[:, 2]).long()
        reference, target = (trained(seed, inputs, labels) for seed in (0, 1))
    spec, seen = discover_symmetry(reference, inputs), []
    batches = list(zip(inputs.split(32), labels.split(32), strict=True))
    found = straight_through(
        *(reference, target, spec),
        data=iter(batches),
        criterion=F.cross_entropy,
        epochs=10,
        lr=0.01,
        progress=lambda epoch, loss: seen.append((epoch, loss)),
    )
    midpoint = Midpoint(reference, target, spec, batches, F.cross_entropy)
    start = midpoint.loss(weight_matching(reference, target, spec).permutations)
    assert found.objective[0] == pytest.approx(start)
    assert midpoint.loss(found.permutations) == pytest.approx(min(found.objective))
    assert min(found.objective) < 0.8 * start
    assert seen == list(enumerate(found.objective[1:]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_learns_what_single_precision_does(dtype: torch.dtype) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        inputs = torch.randn(128, 4)
        labels = (inputs[:, 0] * inputs[:, 1] > inputs[:, 2]).long()
        networks = [trained(seed, inputs, labels) for seed in (0, 1)]
    spec, objectives = discover_symmetry(networks[0], inputs), []
    for type_ in (torch.float32, dtype):
        batches = list(zip(inputs.to(type_).split(32), labels.split(32), strict=True))
        pair = (copy.deepcopy(net).to(type_) for net in networks)
        found = straight_through(*pair, spec, data=batches, criterion=F.cross_entropy, epochs=10, lr=0.01)
        objectives.append(found.objective)
    for objective in objectives:
        assert min(objective) < 0.8 * objective[0]


@pytest.mark.parametrize("name", ["grouped", "heads", "tied_decoder", "tied_layers"])
def test_nested_and_tied_networks_keep_their_function(name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        reference, target = (randomise(case(name).make()).eval().double() for _ in range(2))
        inputs = case(name).make_inputs().double()
    spec = discover_symmetry(reference, inputs)
    found = straight_through(
        reference, target, spec, data=[(inputs, reference(inputs).detach())], criterion=F.mse_loss, lr=0.05
    )
    assert difference(target, found.apply(target), inputs) < 1e-10
    assert min(found.objective) <= found.objective[0]


def test_the_midpoint_is_halfway() -> None:
    problem = planted_case("mlp_relu")
    drawn = random_permutations(problem.spec, generator=torch.Generator().manual_seed(3))
    state = permute_state(problem.target, problem.spec, drawn)
    middle = {name: (tensor + state[name]) / 2 for name, tensor in problem.reference.state_dict().items()}
    with torch.no_grad():
        outputs = torch.func.functional_call(problem.reference, middle, problem.inputs)
        labels = problem.reference(problem.inputs)
    midpoint = Midpoint(
        problem.reference, problem.target, problem.spec, [(problem.inputs, labels)], F.mse_loss
    )
    assert midpoint.loss(drawn) == pytest.approx(float(F.mse_loss(outputs, labels)), rel=1e-5)
    assert midpoint.loss(problem.answer) < 1e-10


def test_what_is_missing_is_told() -> None:
    problem = planted_case("mlp_relu")
    pair, data = (problem.reference, problem.target, problem.spec), [(problem.inputs, problem.inputs)]
    with pytest.raises(DataError, match="None"):
        straight_through(*pair, criterion=F.mse_loss)
    with pytest.raises(DataError, match="at least one batch"):
        straight_through(*pair, data=[], criterion=F.mse_loss)
    with pytest.raises(LossError, match="one finite number"):
        straight_through(*pair, data=data, criterion=lambda outputs, _: outputs * torch.nan)
    with pytest.raises(ArchitectureError, match="two states"):
        straight_through(
            problem.reference.state_dict(), problem.target, problem.spec, data=data, criterion=F.mse_loss
        )
