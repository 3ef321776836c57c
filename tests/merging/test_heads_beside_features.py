"""Networks that return features of their trunk beside the logits of their head."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import ArchitectureError, DataError
from sinkhorn_rebasin.merging import BothOutputsLoss, PartialMerge, match_outputs


class Features(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Linear(5, 8), nn.Tanh()), nn.Linear(8, classes)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        hidden = self.body(x)
        return {"logits": self.head(hidden), "size": hidden.square().sum(1)}


class Pair(Features):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return tuple(super().forward(x).values())  # type: ignore[return-value]


def planted(kind: type[Features] = Features) -> tuple[nn.Module, nn.Module, sr.PermutationSpec, Tensor]:
    """Two heads on one trunk, whose units are in two orders."""
    torch.manual_seed(0)
    first, second, x = kind(3), kind(2), torch.randn(60, 5)
    spec = sr.discover_symmetry(first, x)
    order = sr.random_permutations(spec)["body/0"]
    with torch.no_grad():
        second.body[0].weight.copy_(first.body[0].weight[order])
        second.body[0].bias.copy_(first.body[0].bias[order])
    return first, second, spec, x


def averaged(
    first: nn.Module, second: nn.Module, spec: sr.PermutationSpec, data: list[Tensor]
) -> PartialMerge:
    found = match_outputs(first, second, spec, data=data, steps=2)
    return sr.merge_trunks(first, second, spec, found, data=data)


WAYS: dict[str, Callable[..., PartialMerge]] = {
    "zipit": lambda *pair, data: sr.zipit(*pair, data=data, beta=0.0),
    "pleas": lambda *pair, data: sr.pleas(*pair, data=data, budget=1.0),
    "trunks": lambda *pair, data: averaged(*pair, data),
}


@pytest.mark.parametrize("kind", [Features, Pair])
@pytest.mark.parametrize("way", ["zipit", "pleas", "trunks"])
def test_heads_are_merged_and_features_are_those_of_the_trunk(way: str, kind: type[Features]) -> None:
    first, second, spec, x = planted(kind)
    if (way, kind) == ("trunks", Pair):
        with pytest.raises(DataError, match="logits among other outputs, but got tuple: wrap it"):
            WAYS[way](first, second, spec, data=[x])
        return
    merged = WAYS[way](first, second, spec, data=[x])
    out, ours, theirs = (
        net(x) if kind is Pair else tuple(net(x).values()) for net in (merged.network, first, second)
    )
    for part, expected in zip(merged.split(out[0]), (ours[0], theirs[0]), strict=True):
        torch.testing.assert_close(part, expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(out[1], ours[1], rtol=0, atol=1e-4)


def test_features_that_more_units_change_are_refused() -> None:
    first, second, spec, x = planted()
    with pytest.raises(ArchitectureError, match="more of the groups 'body/0'"):
        sr.pleas(first, second, spec, data=[x], budget=2.0)


def test_a_loss_of_both_outputs_compares_the_logits() -> None:
    first, second, spec, x = planted()
    loss = BothOutputsLoss(first, second, spec)
    start = sr.weight_matching(first, second, spec, ignore=["head"])
    rebasin = sr.SinkhornRebasin(first, second, spec=spec.ignoring("head"), start=start).eval()
    assert float(loss(rebasin, x)) < 1e-10
