"""RegMean against least squares on inputs that are laid side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import ArchitectureError, DataError
from tests.merging.fusion_networks import convolutional, identity, images, mlp, moving, points, with_state


def least_squares(inputs: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """The weight (outputs, inputs) whose answers are nearest to each network's own, by a QR of all rows."""
    rows, answers = (
        torch.cat(list(inputs)),
        torch.cat([x @ w.T for x, w in zip(inputs, weights, strict=True)]),
    )
    return torch.linalg.lstsq(rows, answers).solution.T


def unaligned(networks: Sequence[nn.Module], x: Tensor) -> list[sr.Alignment]:
    return [identity(sr.discover_symmetry(networks[0], x))] * len(networks)


def test_every_linear_layer_is_the_least_squares_of_all_inputs() -> None:
    nets, data = [mlp(0), mlp(1)], [points(40, 1), points(40, 2)]
    found = sr.regmean(nets, unaligned(nets, data[0]), [[x] for x in data], alpha=1.0, ridge=0.0)
    for place in (0, 2, 4):
        inputs = [net[:place](x) for net, x in zip(nets, data, strict=True)]
        alive = (torch.cat(inputs).abs().max(0).values > 0).all()
        assert alive
        expected = least_squares(inputs, [net[place].weight for net in nets])
        torch.testing.assert_close(found[f"{place}.weight"], expected.detach(), rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(
            found[f"{place}.bias"], ((nets[0][place].bias + nets[1][place].bias) / 2).detach()
        )


def test_biases_are_weights_of_an_input_that_is_one_when_asked_for() -> None:
    nets, data = [mlp(0), mlp(1)], [points(40, 1), points(40, 2)]
    found = sr.regmean(nets, unaligned(nets, data[0]), [[x] for x in data], alpha=1.0, ridge=0.0, biases=True)
    inputs = [F.pad(net[:2](x), (0, 1), value=1.0) for net, x in zip(nets, data, strict=True)]
    wide = [torch.cat([net[2].weight, net[2].bias[:, None]], 1) for net in nets]
    expected = least_squares(inputs, wide).detach()
    torch.testing.assert_close(found["2.weight"], expected[:, :-1], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found["2.bias"], expected[:, -1], rtol=1e-8, atol=1e-8)
    assert "2.bias" in found.fitted


def test_shares_weight_the_squares() -> None:
    nets, data = [mlp(0), mlp(1)], [points(40, 1), points(40, 2)]
    shares = [0.8, 0.2]
    found = sr.regmean(nets, unaligned(nets, data[0]), [[x] for x in data], shares, alpha=1.0, ridge=0.0)
    inputs = [net[:2](x) * s**0.5 for net, x, s in zip(nets, data, shares, strict=True)]
    expected = least_squares(inputs, [net[2].weight for net in nets]).detach()
    torch.testing.assert_close(found["2.weight"], expected, rtol=1e-8, atol=1e-8)


def test_convolutions_are_linear_layers_on_patches_group_by_group() -> None:
    nets, data = [convolutional(0), convolutional(1)], [images(40, 1), images(40, 2)]
    found = sr.regmean(nets, unaligned(nets, data[0]), [[x] for x in data], alpha=1.0, ridge=0.0)
    hidden = [
        torch.relu(net.depth(torch.relu(net.norm(net.first(x))))) for net, x in zip(nets, data, strict=True)
    ]
    patches = [F.unfold(x, 2, dilation=2).reshape(40, 4, 8, -1) for x in hidden]
    for group in range(4):
        inputs = [each[:, group].movedim(1, 2).reshape(-1, 8) for each in patches]
        weights = [net.grouped.weight[3 * group : 3 * group + 3].flatten(1) for net in nets]
        expected = least_squares(inputs, weights).detach()
        actual = found["grouped.weight"][3 * group : 3 * group + 3].flatten(1)
        torch.testing.assert_close(actual, expected, rtol=1e-7, atol=1e-7)
    assert set(found.fitted) == {f"{name}.weight" for name in ("first", "depth", "grouped", "last", "flat")}
    assert "norm.weight" in found.averaged


def test_less_off_the_diagonal_is_the_formula_of_the_paper() -> None:
    nets, data = [mlp(0), mlp(1)], [points(40, 1), points(40, 2)]
    found = sr.regmean(nets, unaligned(nets, data[0]), [[x] for x in data], alpha=0.3, ridge=0.0)
    left, right = torch.zeros(6, 6).double(), torch.zeros(6, 5).double()
    for net, x in zip(nets, data, strict=True):
        gram = net[:2](x).T @ net[:2](x)
        gram = 0.3 * gram + 0.7 * gram.diag().diag()
        left, right = left + gram, right + gram @ net[2].weight.T
    expected = torch.linalg.solve(left, right).T.detach()
    torch.testing.assert_close(found["2.weight"], expected, rtol=1e-8, atol=1e-8)
    apart = sr.regmean(nets, unaligned(nets, data[0]), [[x] for x in data], alpha=1.0, ridge=0.0)
    assert not torch.allclose(apart["2.weight"], found["2.weight"])


@pytest.mark.parametrize(("make", "draw"), [(mlp, points), (convolutional, images)])
def test_a_network_and_itself_moved_give_the_network(make: Any, draw: Any) -> None:
    """Gram matrices that each owner measured, carried, fuse to the one function that both have."""
    network, x = make(0), draw()
    there = moving(network, x, scaled=True)
    other = with_state(network, there.apply(network))
    alignments = [identity(there.spec), there.invert()]
    grams = [sr.gram_matrices(net, [x]) for net in (network, other)]
    found = sr.regmean([network, other], alignments, grams)
    torch.testing.assert_close(dict(found), dict(network.state_dict()), rtol=1e-6, atol=1e-8)
    assert not found.not_fitted


def test_aligned_and_carried_is_what_the_moved_network_gives() -> None:
    nets, x = [convolutional(0), convolutional(1)], images()
    there = moving(nets[1], x, scaled=True)
    moved = with_state(nets[1], there.apply(nets[1]))
    stays = identity(there.spec)
    grams = [sr.gram_matrices(net, [x]) for net in nets]
    carried = sr.regmean(nets, [stays, there], grams)
    direct = sr.regmean([nets[0], moved], [stays, stays], [[x], [x]])
    torch.testing.assert_close(dict(carried), dict(direct), rtol=1e-6, atol=1e-9)


def test_inputs_that_never_move_leave_the_plain_mean() -> None:
    nets, x = [mlp(0), mlp(1)], torch.zeros(4, 3).double()
    found = sr.regmean(nets, unaligned(nets, points()), [[x], [x]])
    torch.testing.assert_close(found["0.weight"], ((nets[0][0].weight + nets[1][0].weight) / 2).detach())


class Mixed(nn.Module):
    """An embedding, attention with packed projections, and a layer that runs by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.attention = nn.Embedding(5, 4), nn.MultiheadAttention(4, 2, batch_first=True)
        self.by_hand, self.out = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens)
        x = self.attention(x, x, x)[0]
        out: Tensor = self.out(F.linear(x, self.by_hand.weight))
        return out


def test_what_cannot_be_fitted_is_a_plain_mean_and_named() -> None:
    torch.manual_seed(0)
    nets, tokens = [Mixed(), Mixed()], torch.randint(5, (6, 3))
    found = sr.regmean(nets, unaligned(nets, tokens), [[tokens], [tokens]])
    assert found.fitted == ("out.weight",)
    assert set(found.not_fitted) >= {"table.weight", "attention.in_proj_weight", "by_hand.weight"}
    torch.testing.assert_close(
        found["table.weight"], ((nets[0].table.weight + nets[1].table.weight) / 2).detach()
    )
    told = str(found)
    assert "fitted" in told
    assert "1 tensor: out.weight" in told
    assert "not fitted: by_hand.weight" in told


def test_nothing_that_is_passed_in_changes() -> None:
    nets, x = [mlp(0).train(), mlp(1)], points()
    before = [{n: t.clone() for n, t in net.state_dict().items()} for net in nets]
    grams = [sr.gram_matrices(net, [x]) for net in nets]
    kept = [each.layers["2"].matrix.clone() for each in grams]
    found = sr.regmean(nets, unaligned(nets, x), grams)
    found["0.weight"].zero_()
    for net, state, gram, matrix in zip(nets, before, grams, kept, strict=True):
        torch.testing.assert_close(dict(net.state_dict()), state)
        assert torch.equal(gram.layers["2"].matrix, matrix)
    assert nets[0].training


def faulty(change: Any) -> list[Any]:
    grams = [sr.gram_matrices(net, [points()]) for net in (mlp(0), mlp(1))]
    layers = dict(grams[1].layers)
    change(layers)
    return [grams[0], replace(grams[1], layers=layers)]


def changed(matrix: Any, name: str = "2") -> Any:
    def change(layers: dict[str, Any]) -> None:
        layers[name] = replace(layers[name], matrix=matrix(layers[name].matrix.clone()))

    return change


FAULTS: list[tuple[Any, str]] = [
    (lambda layers: layers.pop("2"), r"that of '2' of network 1 is missing"),
    (changed(lambda m: m * torch.nan), r"layer '2' of network 1 to be finite"),
    (changed(lambda m: m.tril()), r"layer '2' of network 1 to be symmetric"),
    (changed(lambda m: m[:, :-1, :-1]), r"layer '2' of network 1 in shape \(groups, 7, 7\).*got \(1, 6, 6\)"),
    (changed(lambda m: m[0]), r"layer '2' of network 1 in shape .*got \(7, 7\)"),
]


@pytest.mark.parametrize(("change", "told"), FAULTS)
def test_faulty_gram_matrices_are_refused_by_name(change: Any, told: str) -> None:
    nets = [mlp(0), mlp(1)]
    with pytest.raises(DataError, match=told):
        sr.regmean(nets, unaligned(nets, points()), faulty(change))


def test_other_faults_are_named() -> None:
    nets, x = [mlp(0), mlp(1)], points()
    fuse = partial(sr.regmean, nets, unaligned(nets, x))
    with pytest.raises(DataError, match=r"one source of data a network, 2 of them, but got 1: "):
        fuse([[x]])
    with pytest.raises(DataError, match=r"alpha from 0 to 1 but got 2"):
        fuse([[x], [x]], alpha=2)
    with pytest.raises(DataError, match=r"a ridge of zero or more but got -1"):
        fuse([[x], [x]], ridge=-1)
    with pytest.raises(ArchitectureError, match=r"add up to 1 but got a sum of 1.5"):
        fuse([[x], [x]], [1.0, 0.5])
    with pytest.raises(ArchitectureError, match=r"shares of zero and more .* got -1"):
        fuse([[x], [x]], [2.0, -1.0])
    with pytest.raises(DataError, match=r"network 1 is OrderedDict: pass what its owner measured"):
        sr.regmean([nets[0], nets[1].state_dict()], unaligned(nets, x), [[x], [x]])
    singular = torch.zeros(1, 3).double() + torch.tensor([1.0, 0.0, 0.0])
    with pytest.raises(DataError, match=r"layer '0.weight' .*singular ones of 3 inputs at ridge=0"):
        fuse([[singular], [singular]], ridge=0.0, alpha=1.0)


def test_heads_of_other_label_sets_are_refused_and_kept_apart_when_told() -> None:
    first, x = mlp(0), points()
    torch.manual_seed(1)
    second = nn.Sequential(*list(mlp(1))[:4], nn.Linear(5, 9)).double()
    spec = sr.discover_symmetry(first, x)
    with pytest.raises(
        ArchitectureError, match=r"'4.weight' .*label sets have no mean: keep them apart by ignore="
    ):
        sr.regmean([first, second], [identity(spec)] * 2, [[x], [x]])
    found = sr.regmean([first, second], [identity(spec.ignoring("4"))] * 2, [[x], [x]])
    torch.testing.assert_close(found["4.weight"], first.state_dict()["4.weight"])
    assert found.fitted == ("0.weight", "2.weight")
    assert found.kept == ("4.weight", "4.bias")
