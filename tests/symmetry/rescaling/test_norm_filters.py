from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin.errors import SpecError
from sinkhorn_rebasin.symmetry import discover_norm_filters, normalize_filters


class Residual(nn.Module):
    """A block with a shortcut, a transposed convolution, and a convolution that two norms read."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.inner, self.inner_norm = nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.short, self.short_norm = nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6)
        self.up, self.up_norm = nn.ConvTranspose2d(6, 5, 2), nn.BatchNorm2d(5)
        self.twice, self.one, self.other = nn.Conv2d(5, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.plain, self.layer_norm = nn.Linear(4, 4), nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem_norm(self.stem(x)).relu()
        x = (self.inner_norm(self.inner(x)) + self.short_norm(self.short(x))).relu()
        x = self.twice(self.up_norm(self.up(x)).relu())
        return self.layer_norm(self.plain((self.one(x) + self.other(x.sin())).mean((2, 3))))


def network() -> nn.Module:
    torch.manual_seed(0)
    net = Residual()
    with torch.no_grad():
        for _ in range(3):
            net(torch.randn(8, 3, 5, 5) + 1)
    return net.eval()


def test_exactly_the_filters_that_one_norm_follows_are_found() -> None:
    found = discover_norm_filters(network(), torch.randn(2, 3, 5, 5))
    assert {(one.weight, one.axis, one.bias, one.norm) for one in found} == {
        ("stem.weight", 0, None, "stem_norm"),
        ("inner.weight", 0, "inner.bias", "inner_norm"),
        ("short.weight", 0, "short.bias", "short_norm"),
        ("up.weight", 1, "up.bias", "up_norm"),
    }


def test_filters_get_norm_one_and_the_function_stays_with_all_statistics() -> None:
    net, x = network(), torch.randn(3, 3, 5, 5)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    state = normalize_filters(net.state_dict(), discover_norm_filters(net, x))
    torch.testing.assert_close(state["inner.weight"].flatten(1).norm(dim=1), torch.ones(6))
    torch.testing.assert_close(state["up.weight"].movedim(1, 0).flatten(1).norm(dim=1), torch.ones(5))
    torch.testing.assert_close(torch.func.functional_call(net, state, x), net(x), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    # In training the statistics of a batch make the same of them, up to ε.
    net.train()
    again = torch.func.functional_call(net, {name: state[name] for name in dict(net.named_parameters())}, x)
    torch.testing.assert_close(again, net(x), rtol=1e-2, atol=1e-3)


def test_dead_filters_stay_and_states_of_other_networks_are_refused() -> None:
    net = network()
    with torch.no_grad():
        net.inner.weight[2] = 0
    filters = discover_norm_filters(net, torch.randn(2, 3, 5, 5))
    assert float(normalize_filters(net.state_dict(), filters)["inner.weight"][2].abs().sum()) == 0
    with pytest.raises(SpecError, match=r"stem\.weight"):
        normalize_filters({"inner.weight": torch.ones(1)}, filters)


def test_filters_that_the_output_does_not_depend_on_are_not_claimed() -> None:
    class Aside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.norm = nn.Linear(3, 4), nn.BatchNorm1d(4)
            self.unused, self.other = nn.Linear(3, 4), nn.BatchNorm1d(4)

        def forward(self, x: Tensor) -> Tensor:
            self.other(self.unused(x))
            return self.norm(self.used(x)).relu()

    assert [one.weight for one in discover_norm_filters(Aside().eval(), torch.randn(5, 3))] == ["used.weight"]
