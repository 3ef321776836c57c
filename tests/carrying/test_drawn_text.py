from __future__ import annotations

import torch
from torch import Tensor, nn

from sinkhorn_rebasin.carrying.drawn_text import class_axis, drawn_text, position_axis

TOKENS = torch.zeros(2, 4, dtype=torch.long)


class Chain(nn.Module):
    """Every token is followed by the next one; scores along the last axis, or along the second."""

    def __init__(self, last: bool, *, looks_ahead: bool = False) -> None:
        super().__init__()
        self.words, self.last, self.looks_ahead = nn.Embedding(6, 6), last, looks_ahead
        self.words.weight.data = 50.0 * torch.eye(6).roll(1, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        scores = self.words(tokens)
        if self.looks_ahead:
            scores = scores + scores.mean(1, keepdim=True)
        return scores if self.last else scores.mT


def test_the_axis_of_positions_is_told_by_what_a_change_of_the_last_token_reaches() -> None:
    assert position_axis(Chain(True), TOKENS) == 1
    assert position_axis(Chain(False), TOKENS) == 2
    assert position_axis(Chain(True, looks_ahead=True), TOKENS) is None
    assert position_axis(nn.Linear(4, 2), torch.zeros(2, 4)) is None


def test_each_token_is_drawn_from_the_scores_of_those_before_it() -> None:
    for last in (True, False):
        text = drawn_text(Chain(last), TOKENS, seed=0)
        assert torch.equal((text[:, :-1] + 1) % 6, text[:, 1:])
        assert len(text[:, 0].unique()) == 6
        assert torch.equal(text, drawn_text(Chain(last), TOKENS, seed=0))
        assert not torch.equal(text, drawn_text(Chain(last), TOKENS, seed=1))


def test_classes_lie_along_the_other_axis_than_positions() -> None:
    for last in (True, False):
        assert class_axis(Chain(last), TOKENS, Chain(last)(TOKENS)) == (2 if last else 1)
    assert class_axis(nn.Identity(), torch.zeros(1, 2), torch.zeros(1, 2)) == -1
    assert class_axis(nn.Identity(), torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)) == 1
