"""Scores on candidates inside a re-basin: what they stand for, how they change, what is kept."""

from __future__ import annotations

import copy
import io
import itertools
import pickle

import pytest
import torch
from torch import nn

from sinkhorn_rebasin import SinkhornRebasin, WeightDistance
from sinkhorn_rebasin.permutations import (
    Group,
    Layout,
    PermutationSpec,
    Slot,
    identity_permutations,
    permute_state,
    random_permutations,
)
from sinkhorn_rebasin.permutations.sparse_permutation import SparsePermutation
from sinkhorn_rebasin.rebasin.candidates import learned_tensors, restore_learned, sparse_groups


def network(width: int, depth: int = 1) -> nn.Sequential:
    torch.manual_seed(0)
    hidden = [layer for _ in range(depth) for layer in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), *hidden, nn.Linear(width, 3))


def spec_of(net: nn.Sequential) -> PermutationSpec:
    """Written down, so that no test waits for a discovery."""
    linear = [name for name, layer in net.named_children() if isinstance(layer, nn.Linear)]
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    groups, slots = [], []
    for name, after in itertools.pairwise(linear):
        size = shapes[f"{name}.bias"][0]
        groups.append(Group(name, size))
        places = ((f"{name}.weight", 0), (f"{name}.bias", 0), (f"{after}.weight", 1))
        slots += [Slot(name, tensor, (axis,), Layout(1, size)) for tensor, axis in places]
    return PermutationSpec(tuple(groups), tuple(slots), shapes)


def planted(
    width: int, depth: int = 1
) -> tuple[nn.Module, nn.Module, PermutationSpec, dict[str, torch.Tensor]]:
    """A network, itself in another order with noise, its symmetries, and the way back."""
    net = network(width, depth)
    spec, generator = spec_of(net), torch.Generator().manual_seed(1)
    there = random_permutations(spec, generator=generator)
    target = copy.deepcopy(net)
    target.load_state_dict(permute_state(net.state_dict(), spec, there))
    with torch.no_grad():
        for parameter in target.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return net, target, spec, {name: order.argsort() for name, order in there.items()}


def train(rebasin: SinkhornRebasin, steps: int, scale: float = 1e3) -> None:
    optimizer = torch.optim.Adam(rebasin.parameters(), lr=0.3)
    for step in range(steps):
        rebasin.temperature.fill_(0.1 ** (step / steps))
        optimizer.zero_grad()
        (scale * WeightDistance()(rebasin)).backward()
        optimizer.step()


def test_loss_and_gradient_are_those_of_all_scores() -> None:
    net, target, spec, _ = planted(12)
    sparse = SinkhornRebasin(
        net, target, spec=spec, start="identity", candidates=11, noise=0.3, tolerance=1e-7
    )
    dense = SinkhornRebasin(net, target, spec=spec, start="identity", candidates="all", tolerance=1e-7)
    for name, indices in sparse.candidates.indices.named_buffers():
        dense.scores[name].data = torch.zeros(12, 12).scatter(1, indices, sparse.scores[name].detach())
    losses = [WeightDistance()(rebasin) for rebasin in (sparse, dense)]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)
    for loss in losses:
        loss.backward()
    for name, indices in sparse.candidates.indices.named_buffers():
        ours, theirs = sparse.scores[name].grad, dense.scores[name].grad
        assert ours is not None
        assert theirs is not None
        assert torch.allclose(ours, theirs.gather(1, indices), atol=1e-6)
    assert all(isinstance(p, SparsePermutation) for p in sparse.soft_permutations().values())
    for name, order in sparse.hard_permutations().items():
        theirs = dense.hard_permutations()[name]
        scores = dense.scores[name].detach()
        assert float(scores[range(12), order].sum()) == pytest.approx(float(scores[range(12), theirs].sum()))


def test_a_few_candidates_find_what_was_planted() -> None:
    net, target, spec, back = planted(48)
    rebasin = SinkhornRebasin(net, target, spec=spec, start="identity", candidates=6)
    train(rebasin, 40)
    for name, order in rebasin.hard_permutations().items():
        assert torch.equal(order, back[name])
    assert rebasin.eval().merge(0.0)(torch.ones(1, 6)).shape == (1, 3)


def test_newcomers_change_no_permutation() -> None:
    net, target, spec, _ = planted(32)
    rebasin = SinkhornRebasin(net, target, spec=spec, start="identity", candidates=4, tolerance=1e-7)
    before = {name: p.to_dense().detach() for name, p in rebasin.soft_permutations().items()}
    WeightDistance()(rebasin).backward()
    first = {name: value.clone() for name, value in rebasin.candidates.indices.named_buffers()}
    after = rebasin.soft_permutations()
    for name, value in rebasin.candidates.indices.named_buffers():
        assert not torch.equal(value, first[name])
        assert bool((value.sort(-1).values.diff(dim=-1) > 0).all())
        assert bool((value == torch.arange(32)[:, None]).any(-1).all())  # the best score stays
        assert torch.allclose(after[name].to_dense(), before[name], atol=1e-6)


def test_candidates_are_looked_up_every_so_many_steps_of_training() -> None:
    net, target, spec, _ = planted(32)
    rebasin = SinkhornRebasin(net, target, spec=spec, candidates=4)
    looked_up = []
    for step in range(13):
        rebasin.candidates.share = lambda proposal, step=step: looked_up.append(step) or proposal
        WeightDistance()(rebasin).backward()
    assert looked_up == [1, 1, 12, 12]  # two groups, before the step after each look-up
    WeightDistance()(rebasin.eval())
    with torch.no_grad():
        WeightDistance()(rebasin.train())
    assert len(looked_up) == 4


def test_which_groups_have_candidates() -> None:
    spec = PermutationSpec((Group("narrow", 8), Group("wide", 2048), Group("signed", 4096)), (), {})
    assert sparse_groups(spec, None, {"signed"}) == {"wide": 32}
    assert sparse_groups(spec, 8, {"signed"}) == {"wide": 8}
    assert sparse_groups(spec, "all", ()) == {}


def test_wide_groups_have_candidates_by_themselves() -> None:
    net = nn.Sequential(nn.Linear(2, 2048), nn.ReLU(), nn.Linear(2048, 2))
    rebasin = SinkhornRebasin(net, copy.deepcopy(net), spec=spec_of(net), start="identity")
    assert rebasin.scores["0"].shape == (2048, 32)
    assert torch.equal(rebasin.hard_permutations()["0"], torch.arange(2048))


def test_a_checkpoint_keeps_candidates() -> None:
    net, target, spec, _ = planted(24)
    rebasin = SinkhornRebasin(net, target, spec=spec, start="identity", candidates=4)
    train(rebasin, 5)
    file = io.BytesIO()
    torch.save(rebasin.state_dict(), file)
    file.seek(0)
    again = SinkhornRebasin(net, target, spec=spec, start="identity", candidates=4)
    again.load_state_dict(torch.load(file))
    for name, order in rebasin.hard_permutations().items():
        assert torch.equal(again.hard_permutations()[name], order)
        assert torch.equal(
            again.soft_permutations()[name].to_dense(), rebasin.soft_permutations()[name].to_dense()
        )


def test_what_was_learned_comes_back_with_its_candidates() -> None:
    net, target, spec, _ = planted(24)
    rebasin = SinkhornRebasin(net, target, spec=spec, start="identity", candidates=4)
    train(rebasin, 3)
    kept, hard = learned_tensors(rebasin), rebasin.hard_permutations()
    train(rebasin, 15)
    assert any(not torch.equal(order, hard[name]) for name, order in rebasin.hard_permutations().items())
    restore_learned(rebasin, kept)
    assert all(torch.equal(order, hard[name]) for name, order in rebasin.hard_permutations().items())
    rebasin.candidates.place(rebasin.scores, identity_permutations(spec))
    assert all(torch.equal(order, torch.arange(24)) for order in rebasin.hard_permutations().values())


def test_several_processes_take_the_proposals_of_one() -> None:
    net, target, spec, _ = planted(24)
    rebasin = SinkhornRebasin(net, target, spec=spec, start="identity", candidates=4)
    shared = []
    rebasin.candidates.share = lambda proposal: shared.append(proposal) or proposal
    train(rebasin, 2)
    assert [proposal.shape for proposal in shared] == [(24, 4)] * len(spec.groups)


def test_blocks_are_aligned_each_by_itself() -> None:
    torch.manual_seed(0)
    weights = {"up": torch.randn(2, 16, 20), "down": torch.randn(20, 2, 16)}
    layout = Layout(2, 16, block_stride=16)
    slots = Slot("a", "up", (0, 1), layout), Slot("a", "down", (1, 2), layout)
    spec = PermutationSpec((Group("a", 16, 2),), slots, {n: tuple(w.shape) for n, w in weights.items()})
    there = random_permutations(spec, generator=torch.Generator().manual_seed(0))
    net, target = Experts(weights), Experts(permute_state(weights, spec, there))
    rebasin = SinkhornRebasin(net, target, spec=spec, start="identity", candidates=4, check=False)
    train(rebasin, 40)
    assert torch.equal(rebasin.hard_permutations()["a"], there["a"].argsort(-1))


class Experts(nn.Module):
    """Two blocks of units, side by side."""

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.up, self.down = nn.Parameter(weights["up"]), nn.Parameter(weights["down"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("deh,beh->bd", self.down, torch.einsum("ehd,bd->beh", self.up, x).relu())


def test_steps_that_are_added_up_have_no_gradient_for_newcomers() -> None:
    net, target, spec, _ = planted(32)
    rebasin = SinkhornRebasin(net, target, spec=spec, start="identity", candidates=4, noise=0.3)
    WeightDistance()(rebasin).backward()
    learned = {name: (score.grad.clone(), score) for name, score in rebasin.scores.items()}
    before = {name: indices.clone() for name, indices in rebasin.candidates.indices.named_buffers()}
    rebasin.soft_permutations()
    for name, indices in rebasin.candidates.indices.named_buffers():
        new, (first, score) = indices != before[name], learned[name]
        assert bool(first[new].any())
        assert torch.equal(score.grad, first.masked_fill(new, 0.0))


def test_copies_and_saved_ones_look_their_candidates_up_themselves() -> None:
    net, target, spec, _ = planted(12)
    rebasin = SinkhornRebasin(net, target, spec=spec, candidates=3)
    rebasin.soft_permutations()
    for other in (copy.deepcopy(rebasin), pickle.loads(pickle.dumps(rebasin))):
        assert not other.candidates._patterns
        assert torch.equal(WeightDistance()(other), WeightDistance()(rebasin))
