from __future__ import annotations

import pytest
import torch
from torch import nn

from sinkhorn_rebasin.errors import ArchitectureError, DataError
from sinkhorn_rebasin.merging import known_classes, weigh_classes


def owner(sure: list[float]) -> nn.Sequential:
    """A network that gives classes these logarithms of probabilities, whatever it sees."""
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        net[2].weight.zero_()
        net[2].bias.copy_(torch.tensor(sure).log())
    return net


def test_what_owners_know_is_told_by_their_probabilities_and_shares() -> None:
    owners = [owner([0.9, 0.1]), owner([0.2, 0.8])]
    known = known_classes(owners, torch.randn(5, 3), shares=[0.25, 0.75])
    first, second = 0.25 * 0.9 / (0.25 * 0.9 + 0.75 * 0.2), 0.25 * 0.1 / (0.25 * 0.1 + 0.75 * 0.8)
    torch.testing.assert_close(known[0], torch.tensor([first, second]).double())
    torch.testing.assert_close(known.sum(0), torch.ones(2).double())


def test_a_mean_by_shares_of_weighed_heads_is_one_by_what_is_known() -> None:
    torch.manual_seed(0)
    owners = [nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)) for _ in range(2)]
    before = [each[2].weight.clone() for each in owners]
    known, shares = torch.tensor([[1.0, 0.3], [0.0, 0.7]]), [0.4, 0.6]
    weighed = weigh_classes(owners, known, "2", shares)
    mean = sum(share * each[2].weight for share, each in zip(shares, weighed, strict=True))
    expected = known[0][:, None] * owners[0][2].weight + known[1][:, None] * owners[1][2].weight
    torch.testing.assert_close(mean, expected)
    assert all(torch.equal(old, each[2].weight) for old, each in zip(before, owners, strict=True))
    assert all(torch.equal(a[0].weight, b[0].weight) for a, b in zip(owners, weighed, strict=True))


def test_other_heads_and_outputs_are_refused_by_name() -> None:
    owners = [owner([0.5, 0.5])] * 2
    known = torch.ones(2, 2) / 2
    with pytest.raises(ArchitectureError, match="a layer 'head' with one row a class"):
        weigh_classes(owners, known, "head")
    with pytest.raises(
        ArchitectureError, match=r"2 rows of '0\.weight', one a class, but got shape \(4, 3\)"
    ):
        weigh_classes(owners, known, "0")
    with pytest.raises(ArchitectureError, match=r"outputs \(N, classes\) for 5 inputs but got \(5, 3, 2\)"):
        known_classes([nn.Linear(3, 2)] * 2, torch.randn(5, 3, 3))


class Features(nn.Module):
    """A network that returns its logits beside features, and writes to its input."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(3, 4), nn.Linear(4, classes)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.body(x.relu_())
        return {"logits": self.head(hidden), "features": hidden}


def test_logits_among_other_outputs_count_and_inputs_stay() -> None:
    torch.manual_seed(0)
    owners, x = [Features(2), Features(2)], torch.randn(5, 3)
    before = x.clone()
    means = torch.stack([each(x.clone())["logits"].double().softmax(1).mean(0) for each in owners])
    torch.testing.assert_close(known_classes(owners, x), means / means.sum(0))
    assert torch.equal(x, before)
    with pytest.raises(ArchitectureError, match="one number of classes in all networks but got 2 and 3"):
        known_classes([Features(2), Features(3)], x)


@pytest.mark.parametrize("x", [torch.full((4, 3), torch.nan), torch.ones(0, 3)])
def test_outputs_that_say_nothing_are_refused(x: torch.Tensor) -> None:
    with pytest.raises(DataError, match="finite outputs for at least one input"):
        known_classes([owner([0.5, 0.5])] * 2, x)
