"""States that name a tied tensor once, lack buffers, or carry the prefix of a wrapper."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin import discover_symmetry, permute_state, random_permutations, weight_matching
from sinkhorn_rebasin.connectivity import LinearPath
from sinkhorn_rebasin.errors import RebasinWarning, SpecError
from tests.rebasin.rebasin_problems import TiedLayers

State = dict[str, Tensor]


def normed() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)
    )


def moments(net: nn.Module) -> State:
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.randn(9, 4)).pow(2).sum().backward()
    optimizer.step()
    return {name: optimizer.state[p]["exp_avg"] for name, p in net.named_parameters()}


@pytest.mark.parametrize("kept", ["second.weight", "third.weight"])
def test_either_name_of_a_tied_tensor_is_enough(kept: str) -> None:
    first, second = TiedLayers(), TiedLayers()
    spec = discover_symmetry(first, torch.randn(3, 4))
    moves, whole = random_permutations(spec), second.state_dict()
    other = {"second.weight": "third.weight", "third.weight": "second.weight"}[kept]
    once = {name: value for name, value in whole.items() if name != other}
    expected, moved = permute_state(whole, spec, moves), permute_state(once, spec, moves)
    assert moved.keys() == once.keys()
    assert all(torch.equal(moved[name], expected[name]) for name in once)
    found = weight_matching(once, first, spec).permutations
    assert all(
        torch.equal(found[name], p) for name, p in weight_matching(whole, first, spec).permutations.items()
    )
    assert weight_matching(once, once, spec).apply(once).keys() == once.keys()


@pytest.mark.parametrize(
    "made",
    [
        moments,
        lambda net: {name: torch.rand_like(p) for name, p in net.named_parameters()},
        lambda net: dict(torch.optim.swa_utils.AveragedModel(net).module.named_parameters()),
    ],
    ids=["moments", "fisher", "average"],
)
def test_states_of_parameters_alone_move_without_a_word(made: Callable[[nn.Module], State]) -> None:
    net = normed()
    spec = discover_symmetry(net, torch.randn(9, 4))
    moves, state = random_permutations(spec), made(net)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        moved = permute_state(state, spec, moves)
    whole = permute_state({**net.state_dict(), **state}, spec, moves)
    assert moved.keys() == state.keys()
    assert all(torch.equal(moved[name], whole[name]) for name in state)
    assert any(not torch.equal(moved[name], state[name]) for name in state)


def test_a_state_with_a_part_of_the_buffers_names_the_rest() -> None:
    net = normed()
    spec = discover_symmetry(net, torch.randn(9, 4))
    part = {name: value for name, value in net.state_dict().items() if name != "4.running_var"}
    with pytest.warns(RebasinWarning, match=r"'4\.running_var'"):
        moved = permute_state(part, spec, random_permutations(spec))
    assert moved.keys() == part.keys()


def test_a_missing_parameter_is_still_refused() -> None:
    net = normed()
    spec = discover_symmetry(net, torch.randn(9, 4))
    part = {name: value for name, value in net.state_dict().items() if name != "1.bias"}
    with pytest.raises(SpecError, match=r"'1\.bias', which this spec permutes, but it is missing"):
        permute_state(part, spec, random_permutations(spec))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "network."])
def test_the_prefix_of_a_wrapper_is_named(prefix: str) -> None:
    net = normed()
    spec = discover_symmetry(net, torch.randn(9, 4))
    wrapped = {prefix + name: value for name, value in net.state_dict().items()}
    named = rf"'{prefix}'"
    with pytest.raises(SpecError, match=named):
        permute_state(wrapped, spec, random_permutations(spec))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "network."])
def test_the_prefix_of_a_wrapper_is_taken_off_networks_that_are_given(prefix: str) -> None:
    net, other = normed(), normed()
    spec = discover_symmetry(net, torch.randn(9, 4))
    wrapped = {prefix + name: value for name, value in other.state_dict().items()}
    expected = weight_matching(net, other, spec).permutations
    for pair in ((net, wrapped), (net.state_dict(), wrapped)):
        found = weight_matching(*pair, spec).permutations
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert list(LinearPath(net, net.state_dict(), wrapped).end) == list(net.state_dict())


def test_the_prefix_of_one_compiled_layer_is_named() -> None:
    net = normed()
    spec = discover_symmetry(net, torch.randn(9, 4))
    inner = {name.replace("3.", "3._orig_mod."): value for name, value in net.state_dict().items()}
    with pytest.raises(SpecError, match=r"'_orig_mod\.'"):
        permute_state(inner, spec, random_permutations(spec))
