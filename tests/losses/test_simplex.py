from __future__ import annotations

import pytest
import torch

from sinkhorn_rebasin import SimplexLoss
from sinkhorn_rebasin.errors import LossError


def test_shares_are_drawn_around_the_middle() -> None:
    loss = SimplexLoss(concentration=20.0, middle=[0.7, 0.2, 0.1], generator=torch.Generator().manual_seed(0))
    drawn = torch.tensor([loss.shares(3) for _ in range(500)])
    torch.testing.assert_close(drawn.mean(0), torch.tensor([0.7, 0.2, 0.1]), atol=0.02, rtol=0)
    # The variance of Dirichlet shares with 60 in all.
    torch.testing.assert_close(drawn[:, 0].var(), torch.tensor(0.7 * 0.3 / 61), atol=1e-3, rtol=0)
    assert SimplexLoss(concentration=float("inf"), middle=[0.7, 0.3]).shares(2) == [0.7, 0.3]


def test_middles_that_are_none_are_refused() -> None:
    for middle in ([0.5, 0.6], [1.0, 0.0]):
        with pytest.raises(LossError, match="shares above 0 that add up to 1"):
            SimplexLoss(middle=middle)
    with pytest.raises(LossError, match="a middle of 3 networks but got 2"):
        SimplexLoss(middle=[0.5, 0.5]).shares(3)
