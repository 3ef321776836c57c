"""One trunk with several heads."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import ArchitectureError


class Net(nn.Module):
    """A head of two layers behind a trunk that counts its runs; the way out after it can be chosen."""

    def __init__(self, classes: int, after: Callable[[Tensor], Any] = lambda out: out) -> None:
        super().__init__()
        self.trunk, self.norm = nn.Linear(4, 6), nn.BatchNorm1d(6)
        self.head = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, classes))
        self.after, self.runs, self.again = after, 0, [self.head]

    def forward(self, x: Tensor, scale: float = 1.0) -> Any:
        self.runs += 1
        hidden = torch.relu(self.norm(self.trunk(x))) * scale
        return self.after(self.again[0](hidden.to(self.head[0].weight.dtype)))


def pair(after: Callable[[Tensor], Any] = lambda out: out) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    first, second = Net(3, after), Net(7, after)
    trunk = {n: t for n, t in first.state_dict().items() if not n.startswith("head")}
    second.load_state_dict(trunk, strict=False)
    return {"three": first.eval(), "seven": second.eval()}


@pytest.mark.parametrize("after", [lambda out: out, lambda out: {"logits": out.log_softmax(1)}])
def test_every_head_gives_what_its_network_gave(after: Callable[[Tensor], Any]) -> None:
    networks, x = pair(after), torch.randn(5, 4)
    both = sr.SeparateHeads(networks, ["head"])
    found = both(x, scale=0.5)
    assert list(found) == ["three", "seven"]
    for name, network in networks.items():
        torch.testing.assert_close(found[name], network(x, scale=0.5))
        alone = both.alone(name)
        torch.testing.assert_close(alone(x, scale=0.5), network(x, scale=0.5))
        assert alone.state_dict().keys() == network.state_dict().keys()
    assert type(alone.head) is nn.Sequential


def test_the_trunk_runs_once_where_nothing_follows_its_head() -> None:
    for after, runs in ((lambda out: out, 1), (lambda out: out * 2, 2)):
        both = sr.SeparateHeads(pair(after), ["head"])
        both(torch.randn(5, 4))
        assert both.network.runs == runs


def test_it_is_saved_loaded_copied_and_trained_as_any_module() -> None:
    both, x = sr.SeparateHeads(pair(), ["head"]), torch.randn(5, 4)
    fresh = sr.SeparateHeads({"three": Net(3), "seven": Net(7)}, ["head"]).eval()
    torch.save(both.state_dict(), file := io.BytesIO())
    fresh.load_state_dict(torch.load(io.BytesIO(file.getvalue())))
    torch.testing.assert_close(fresh(x), both(x))
    torch.testing.assert_close(copy.deepcopy(both)(x), both(x))
    sum(output.sum() for output in both.train()(x).values()).backward()
    assert all(parameter.grad is not None for parameter in both.parameters())
    names = [name for name, _ in both.named_parameters()]
    assert len(names) == len(set(names)) == 4 + 2 * 4  # one trunk, two heads
    assert both.double()(x.double())["seven"].dtype == torch.float64


def test_the_networks_are_left_as_they_were() -> None:
    networks, x = pair(), torch.randn(5, 4)
    before = {name: copy.deepcopy(network.state_dict()) for name, network in networks.items()}
    both = sr.SeparateHeads(networks, ["head"]).train()
    with torch.no_grad():
        for parameter in both.parameters():
            parameter.zero_()
    both(x)
    for name, network in networks.items():
        assert not network.training
        assert type(network.head) is nn.Sequential
        torch.testing.assert_close(network.state_dict(), before[name])


@pytest.mark.parametrize(
    ("apart", "told"),
    [
        (["head.0.weight"], "'head.0.weight' shares its module"),
        (["nowhere"], "0 tensors of 11"),
        (["trunk", "norm", "head"], "11 tensors of 11"),
    ],
)
def test_heads_that_are_no_modules_of_their_own_are_refused(apart: list[str], told: str) -> None:
    with pytest.raises(ArchitectureError, match=told):
        sr.SeparateHeads(pair(), apart)


def test_other_faults_are_named() -> None:
    networks = pair()
    with pytest.raises(ArchitectureError, match="at least two networks with heads but got 1"):
        sr.SeparateHeads({"three": networks["three"]}, ["head"])
    with pytest.raises(ArchitectureError, match=r"without a dot but got 'a\.b'"):
        sr.SeparateHeads({"a.b": networks["three"], "c": networks["seven"]}, ["head"])
    with pytest.raises(ArchitectureError, match="'state' is dict"):
        sr.SeparateHeads({"three": networks["three"], "state": {}}, ["head"])  # type: ignore[dict-item]
    with pytest.raises(ArchitectureError, match=r"'head.2.weight' has shape \(3, 5\) .* \(7, 5\) in 'seven'"):
        sr.SeparateHeads(networks, ["head.0"])
    with pytest.raises(ArchitectureError, match="one of the heads three, seven but got 'nine'"):
        sr.SeparateHeads(networks, ["head"]).alone("nine")
