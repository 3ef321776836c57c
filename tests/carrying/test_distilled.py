"""Updates that are carried by answers: followed on data, or on text that the tuned network writes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.carrying import ByWeights, Distilled
from sinkhorn_rebasin.carrying.scale import followed
from sinkhorn_rebasin.errors import DataError, LossError
from tests.carrying.networks import at, difference, farthest, mlp, tuned_from

DATA = list(torch.randn(200, 4, generator=torch.Generator().manual_seed(0)).split(50))
TOKENS = torch.arange(6).reshape(2, 3) % 5


class Bigrams(nn.Module):
    """Scores of the next token by the last one, along the last axis or along the second."""

    def __init__(self, seed: int, last: bool = True) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.words, self.scores, self.last = nn.Embedding(5, 8), nn.Linear(8, 5), last
        for parameter in self.parameters():
            parameter.data.normal_(generator=generator)
        self.eval()

    def forward(self, tokens: Tensor) -> Tensor:
        scores = self.scores(torch.tanh(self.words(tokens)))
        return scores if self.last else scores.mT


def far(first: nn.Module, second: nn.Module) -> float:
    """How far answers are from each other, by the table of all tokens' probabilities."""
    logs = []
    for network in (first, second):
        scores = network(torch.arange(5)[None])[0].detach()
        logs.append((scores if network.last else scores.T).log_softmax(1))
    return float((logs[0].exp() * (logs[0] - logs[1])).sum(1).mean())


@pytest.mark.parametrize("last", [True, False])
def test_a_language_model_follows_what_the_tuned_one_writes_without_data(last: bool) -> None:
    base, new_base = Bigrams(0, last), Bigrams(1, last)
    tuned = tuned_from(base, size=1.0)
    way = Distilled(steps=100, learning_rate=0.05, drawn=64)
    update = sr.carry(tuned, base, new_base, way=way, example_inputs=TOKENS)
    assert far(tuned, update.apply(new_base)) < 0.1 * far(tuned, new_base)
    assert set(update.scales.values()) == {1.0}
    assert any("drew 64 windows" in note for note in update.notes)


def test_given_text_is_looked_at_beside_what_is_written() -> None:
    base, new_base = Bigrams(0), Bigrams(1)
    data = [TOKENS + number for number in range(-1, 2)]
    seen = [(tokens.remainder(5), tokens) for tokens in data]
    way = Distilled(steps=5, drawn=16)
    update = sr.carry(
        tuned_from(base), base, new_base, way=way, data=seen, criterion=lambda out, _: out.sum()
    )
    assert any("drew 16 windows" in note and "beside 2 batches" in note for note in update.notes)
    alone = sr.carry(
        tuned_from(base), base, new_base, way=Distilled(steps=5, drawn=0), data=[d % 5 for d in data]
    )
    assert not any("drew" in note for note in alone.notes)


def test_what_the_fine_tune_left_alone_stays() -> None:
    base, tuned, new_base = mlp(0), mlp(0), mlp(1)
    with torch.no_grad():
        tuned[4].weight.add_(
            0.5 * torch.randn(tuned[4].weight.shape, generator=torch.Generator().manual_seed(2))
        )
    update = sr.carry(tuned, base, new_base, way=Distilled(start=None, steps=20), data=DATA, scale=1.0)
    assert [name for name, tensor in update.state.items() if tensor.any()] == ["4.weight"]


def test_an_exact_start_is_kept_where_nothing_that_follows_is_better() -> None:
    base, tuned = mlp(0), tuned_from(mlp(0))
    spec = sr.discover_symmetry(base, DATA[0])
    planted = sr.random_permutations(spec, generator=torch.Generator().manual_seed(1))
    new_base = at(base, sr.permute_state(base.state_dict(), spec, planted))
    expected = sr.permute_state(difference(tuned, base), spec, planted)
    for way in (Distilled(steps=0), Distilled(steps=3, learning_rate=1.0)):
        update = sr.carry(tuned, base, new_base, way=way, data=DATA, scale=1.0)
        assert farthest(update.state, expected) < 1e-6


def test_it_goes_further_than_its_start_and_changes_nothing_that_is_given() -> None:
    networks = tuned_from(mlp(0)), mlp(0), mlp(1)
    before = [{n: t.clone() for n, t in net.state_dict().items()} for net in networks]
    state = torch.get_rng_state()
    update = sr.carry(*networks, way=Distilled(steps=100, learning_rate=0.01), data=DATA)
    started = sr.carry(*networks, way=ByWeights(), data=DATA)
    assert min(update.judged.values()) < 0.5 * min(started.judged.values())
    assert torch.equal(state, torch.get_rng_state())
    for network, kept in zip(networks, before, strict=True):
        assert all(torch.equal(kept[name], tensor) for name, tensor in network.state_dict().items())
        assert all(p.requires_grad and p.grad is None for p in network.parameters())


def test_what_it_needs_is_said() -> None:
    with pytest.raises(LossError, match=r"same labels, .*'4.weight'"):
        sr.carry(tuned_from(mlp(0, labels=5)), mlp(0), mlp(1), way=Distilled(), data=DATA)
    base, new_base = (nn.Sequential(nn.Conv2d(2, 4, 4, 4), nn.Flatten(), nn.Linear(16, 3)) for _ in range(2))
    images = torch.arange(256.0).view(2, 2, 8, 8)
    with pytest.raises(DataError, match="'distilled'"):
        sr.carry(tuned_from(base), base, new_base, way=Distilled(), example_inputs=images)


def test_answers_are_compared_along_the_axis_of_the_classes() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs, wanted = (torch.randn(2, 3, 4, generator=generator) for _ in range(2))
    first, second = outputs.softmax(1), wanted.softmax(1)
    by_hand = (second * (second / first).log()).sum(1).mean()
    assert torch.allclose(followed(outputs, wanted, 1), by_hand)
    assert not torch.allclose(followed(outputs, wanted), by_hand)
