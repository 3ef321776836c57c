from __future__ import annotations

import subprocess
import sys
from itertools import permutations as orders

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin.errors import SpecError
from sinkhorn_rebasin.matching import Alignment, ot_fusion
from sinkhorn_rebasin.permutations import PermutationSpec
from sinkhorn_rebasin.symmetry import discover_symmetry
from tests.matcher_contract import DeterministicMatcherContract
from tests.planted import planted_case


class TestOptimalTransport(DeterministicMatcherContract):
    cases = (*DeterministicMatcherContract.cases, "resnet_option_a", "glu", "shared_layer")

    def match(
        self,
        reference: nn.Module,
        target: nn.Module,
        spec: PermutationSpec,
        inputs: Tensor,
        generator: torch.Generator,
    ) -> Alignment:
        return ot_fusion(reference, target, spec, data=[inputs], generator=generator)


def test_nested_groups_are_refused_by_name() -> None:
    problem = planted_case("grouped")
    nested = next(group.name for group in problem.spec.groups if group.parent is not None)
    with pytest.raises(SpecError, match=f"{nested!r} inside"):
        ot_fusion(problem.reference, problem.target, problem.spec)


def test_blocks_whose_parent_was_dropped_are_refused_by_name() -> None:
    problem = planted_case("grouped")
    parent = next(group.parent for group in problem.spec.groups if group.parent is not None)
    with pytest.raises(SpecError, match=r"but got '.*' of 2 blocks"):
        ot_fusion(problem.reference, problem.target, problem.spec.without(parent))


@pytest.mark.parametrize("seed", range(5))
def test_no_order_of_one_hidden_layer_costs_less(seed: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        reference, target = (nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)) for _ in range(2))
    found = ot_fusion(reference, target, discover_symmetry(reference, torch.randn(2, 3)))
    ours, theirs = (
        torch.cat([net[0].weight, net[0].bias[:, None]], 1).detach() for net in (reference, target)
    )
    costs = [float((ours - theirs[list(order)]).norm(dim=1).mean()) for order in orders(range(5))]
    assert found.objective[0] == pytest.approx(min(costs), rel=1e-6)
    assert float((ours - theirs[found.permutations["0"]]).norm(dim=1).mean()) == pytest.approx(min(costs))


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ot", None)
    problem = planted_case("mlp_relu")
    with pytest.raises(ImportError, match="pip install POT"):
        ot_fusion(problem.reference, problem.target, problem.spec)


def test_the_first_import_of_pot_leaves_the_random_states_alone() -> None:
    """In a process of its own, as a module is imported once in each."""
    code = (
        "import random, numpy, torch\n"
        "from sinkhorn_rebasin.matching.across_widths.transport_plan import transport_plan\n"
        "states = lambda: (random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist())\n"
        "before = states()\n"
        "transport_plan(torch.eye(3, dtype=torch.double))\n"
        "assert states() == before\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
