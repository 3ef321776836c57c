from __future__ import annotations

from itertools import permutations as orders
from itertools import product

import pytest
import torch
from torch import nn

from experiments.find_permutation.problems import PROBLEMS, plant
from sinkhorn_rebasin.matching import weight_matching
from sinkhorn_rebasin.matching.weights.nested_groups import place_blocks
from sinkhorn_rebasin.matching.weights.standing import Standing
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.permutations import (
    Group,
    Layout,
    PermutationSpec,
    Slot,
    identity_permutations,
    permute_state,
)
from sinkhorn_rebasin.symmetry import discover_symmetry
from tests.planted import planted

SPEC = PermutationSpec(
    groups=(Group("heads", 3), Group("inside", 2, blocks=3, parent="heads")),
    slots=(
        Slot("heads", "w", (0,), Layout(1, 3, stride=2, inner=2)),
        Slot("inside", "w", (0,), Layout(3, 2, block_stride=2)),
        Slot("heads", "scale", (0,), Layout(1, 3)),
    ),
    shapes={"w": (6, 4), "scale": (3,)},
)


@pytest.mark.parametrize("seed", range(5))
def test_blocks_and_insides_are_the_best_of_all_pairs(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    reference, target = (
        {"w": torch.randn(6, 4, generator=generator), "scale": torch.randn(3, generator=generator)}
        for _ in range(2)
    )

    def worth(candidate: dict[str, torch.Tensor]) -> float:
        moved = permute_state(target, SPEC, candidate)
        return sum(float((reference[name] * moved[name]).sum()) for name in reference)

    everything = [
        {"heads": torch.tensor(heads), "inside": torch.tensor(inside)}
        for heads in orders(range(3))
        for inside in product(([0, 1], [1, 0]), repeat=3)
    ]
    standing = Standing(reference, target, SPEC, identity_permutations(SPEC))
    found = place_blocks(standing, SPEC["heads"]).permutations
    assert worth(found) == pytest.approx(max(worth(candidate) for candidate in everything), abs=1e-5)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 16), nn.Linear(16, 3)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = self.first(tokens)
        return self.last(tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0])


def grouped() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 48, 3, groups=4),
        nn.GroupNorm(4, 48),
        nn.ReLU(),
        nn.Conv2d(48, 5, 1),
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("make", "shape"), [(Attention, (2, 6, 5)), (grouped, (2, 3, 8, 8))], ids=["attention", "grouped"]
)
def test_planted_nested_permutations_are_recovered(
    make: type[nn.Module], shape: tuple[int, ...], seed: int
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model, example = make(), torch.randn(shape)
    spec = discover_symmetry(model, example)
    assert any(group.parent for group in spec.groups)
    target, _ = planted(model, spec, torch.Generator().manual_seed(seed))
    found = weight_matching(model, target, spec, restarts=5)
    moved = found.apply(target)
    assert all(torch.equal(moved[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", ["GPT 2x64, 4 heads", "ViT 2x64, 4 heads"])
def test_heads_are_found_while_nothing_else_is_known(name: str) -> None:
    reference, target, spec, answer = plant(PROBLEMS[name], 0)
    states, names = (tensors_of(reference), tensors_of(target)), frozenset(spec.names)
    standing = Standing(*states, spec, identity_permutations(spec), unknown=names)
    for group in spec.groups:
        children = [one.name for one in spec.groups if one.parent == group.name]
        if children:
            found = place_blocks(standing, group).permutations
            assert all(torch.equal(found[one], answer[one]) for one in (group.name, *children))
