from __future__ import annotations

import itertools

import torch
from torch import nn

from sinkhorn_rebasin.matching import weight_matching
from sinkhorn_rebasin.matching.weights import coordinate_ascent
from sinkhorn_rebasin.matching.weights.neighbors import Settled
from sinkhorn_rebasin.symmetry import discover_symmetry
from tests.cases import case, randomise, spec_of
from tests.matcher_contract import equal


def chain(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    widths = (6, 9, 8, 10, 7, 4)
    layers = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.Tanh())]
    return nn.Sequential(*layers[:-1])


class NothingSettled(Settled):
    def __contains__(self, group: str) -> bool:
        return False


def test_passing_over_settled_groups_changes_nothing_but_the_work(monkeypatch) -> None:
    assigned = []
    solve = coordinate_ascent.hard_assignment
    monkeypatch.setattr(
        coordinate_ascent, "hard_assignment", lambda scores: assigned.append(1) or solve(scores)
    )
    for make, spec in [
        (chain, discover_symmetry(chain(0), torch.ones(2, 6))),
        *((lambda seed, name=name: _random(name, seed), spec_of(case(name))) for name in ZOO),
    ]:
        counts, alignments = [], []
        for kind in (Settled, NothingSettled):
            monkeypatch.setattr(coordinate_ascent, "Settled", kind)
            assigned.clear()
            alignments.append(weight_matching(make(0), make(1), spec))
            counts.append(len(assigned))
        assert equal(alignments[0].permutations, alignments[1].permutations)
        assert alignments[0].objective == alignments[1].objective
        assert counts[0] <= counts[1]
        if make is chain:
            assert counts[0] < 0.8 * counts[1]


ZOO = ("residual_mlp", "shared_layer", "multihead_attention", "resnet_option_a", "lstm")


def _random(name: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return randomise(case(name).make())


def test_a_group_on_two_axes_of_one_tensor_is_placed_by_itself() -> None:
    spec = spec_of(case("shared_layer"))
    settled = Settled(spec)
    (name,) = (group.name for group in spec.groups if settled.depends([group.name], [group.name]))
    assert any(len({s.axes for s in spec.slots_on(tensor)}) > 1 for tensor in spec.shapes)
    settled.place([name])
    settled.move([name])
    assert name not in settled
