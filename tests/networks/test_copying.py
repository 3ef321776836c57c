"""Copies are networks of their own: trained, moved and run at other weights, they reach nothing of the original."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from sinkhorn_rebasin import LinearPath, SinkhornRebasin, diagonal_fisher, evaluate_path
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.copying import evaluation_copy, standalone_copy
from sinkhorn_rebasin.networks.execution import run_at
from sinkhorn_rebasin.networks.frozen import frozen_copy, thawed_copy, traits_of
from sinkhorn_rebasin.training.continual import FineTuning
from tests.reaching_networks import REFUSED, RIGHT, Holder, InLists, View
from tests.training.fitting import trainer


def pair(name: str) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return RIGHT[name](), RIGHT[name]()


def batch(outputs: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(9, 4, generator=generator), torch.randint(outputs, (9,), generator=generator)


def spoiled(net: nn.Module) -> None:
    """No value of the network is left."""
    with torch.no_grad():
        for tensor in [*net.parameters(), *net.buffers()]:
            tensor.fill_(torch.nan)


@pytest.mark.parametrize("name", RIGHT)
def test_copies_hold_nothing_of_the_original(name: str) -> None:
    (net, _), (x, _) = pair(name), batch()
    expected = net(x).detach()
    twins = [
        standalone_copy(net),
        thawed_copy(frozen_copy(net), {}, traits_of(net)),
        standalone_copy(standalone_copy(net)),
    ]
    spoiled(net)
    for twin in twins:
        torch.testing.assert_close(twin(x), expected)


@pytest.mark.parametrize("name", RIGHT)
def test_copies_follow_their_own_weights(name: str) -> None:
    (net, other), (x, _) = pair(name), batch()
    for twin in (standalone_copy(net), thawed_copy(frozen_copy(net), {}, traits_of(net))):
        twin.load_state_dict(other.state_dict())
        torch.testing.assert_close(twin(x), other(x))
    torch.testing.assert_close(thawed_copy(frozen_copy(net), other.state_dict(), traits_of(net))(x), other(x))


@pytest.mark.parametrize("name", RIGHT)
def test_runs_at_other_weights(name: str) -> None:
    (net, other), (x, _) = pair(name), batch()
    expected, state = other(x).detach(), {k: v.clone() for k, v in other.state_dict().items()}
    for module in (net, evaluation_copy(net), standalone_copy(net), frozen_copy(net)):
        for _ in range(3):
            torch.testing.assert_close(run_at(module, state, x), expected)
    assert torch.equal(LinearPath.between(net, other)(x, at=1.0), other(x))


@pytest.mark.parametrize("name", RIGHT)
def test_gradients_at_other_weights(name: str) -> None:
    (net, other), (x, _) = pair(name), batch()
    net, other, x = net.double(), other.double(), x.double()
    if isinstance(net, View):
        net.decode, other.decode = (one.encode.weight.detach().t() for one in (net, other))
    if hasattr(net, "rows"):
        net.rows, other.rows = (list(one.b.weight.detach()) for one in (net, other))
    state = {k: v.detach().clone().requires_grad_() for k, v in other.state_dict().items()}
    network = frozen_copy(net)
    run_at(network, state, x).square().sum().backward()
    for key, value in state.items():
        with torch.no_grad():
            flat = value.view(-1)
            kept, losses = flat[0].item(), []
            for step in (1e-5, -1e-5):
                flat[0] = kept + step
                losses.append(run_at(network, state, x).square().sum().item())
            flat[0] = kept
        found = 0.0 if value.grad is None else value.grad.view(-1)[0].item()
        assert found == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-5, abs=1e-6), key


@pytest.mark.parametrize("name", RIGHT)
def test_learners_train_layers_of_their_own(name: str, tmp_path: Path) -> None:
    (net, _), (x, y) = pair(name), batch()
    before, kept = net(x).detach(), {k: v.clone() for k, v in net.state_dict().items()}
    loss = F.cross_entropy if net(x).shape[1] == 3 else lambda outputs, _: outputs.square().mean()
    learner = FineTuning(net, tasks=1, criterion=loss)
    witness = copy.deepcopy(learner.network.state_dict())
    torch.manual_seed(0)
    trainer(tmp_path).fit(learner, DataLoader(TensorDataset(x, y % 3), 9))
    torch.testing.assert_close(net(x), before)
    assert all(torch.equal(value, kept[key]) for key, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    unmoved = [k for k, v in learner.network.state_dict().items() if torch.equal(v, witness[k])]
    assert unmoved == []
    net.load_state_dict(learner.network.state_dict())
    torch.testing.assert_close(learner.network.eval()(x), net.eval()(x))


@pytest.mark.parametrize("name", RIGHT)
def test_paths_merges_and_curvature(name: str) -> None:
    (net, other), (x, y) = pair(name), batch()
    loss = F.cross_entropy if net(x).shape[1] == 3 else lambda outputs, _: outputs.square().mean()
    losses = evaluate_path((net, other), [(x, y % 3)], loss, points=3).losses
    torch.testing.assert_close(losses[-1].item(), loss(other(x), y % 3).item())
    rebasin = SinkhornRebasin(net, other, x, start="identity", noise=1.0).eval()
    for function, expected in ((rebasin, other), (rebasin.to_model(), other), (rebasin.merge(1.0), net)):
        torch.testing.assert_close(function(x), expected(x), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(rebasin(x, at=1.0), net(x))
    fisher = diagonal_fisher(net, [(x, y % 3)], loss, labels="observed")
    assert all(bool(value.any()) for value in fisher.diagonal.values())


@pytest.mark.parametrize("name", REFUSED)
def test_networks_whose_copies_reach_the_original_are_refused(name: str, tmp_path: Path) -> None:
    make, told = REFUSED[name]
    torch.manual_seed(0)
    net, (x, y) = make(), batch()
    state = {key: value * 2 for key, value in net.state_dict().items()}
    kept = {k: v.clone() for k, v in net.state_dict().items()}
    learner = FineTuning(net, tasks=1)
    with pytest.raises(ArchitectureError) as raised:
        trainer(tmp_path).fit(learner, DataLoader(TensorDataset(x, y), 9))
    assert told in str(raised.value)
    for network in (evaluation_copy(net), frozen_copy(net)):
        with pytest.raises(ArchitectureError) as raised:
            run_at(network, state, x)
        assert told in str(raised.value)
    assert all(torch.equal(value, kept[key]) for key, value in net.state_dict().items())


def test_weights_that_lists_hold_and_a_move_leaves_behind_are_refused() -> None:
    torch.manual_seed(0)
    first, second, (x, _) = InLists(), InLists(), batch()
    rebasin = SinkhornRebasin(first, second, x).eval()
    rebasin(x)
    with pytest.raises(ArchitectureError, match="'weights'"):
        rebasin.double()(x.double())
    assert torch.equal(rebasin.float().reference_state()["a.weight"], first.a.weight)
    with pytest.raises(ArchitectureError, match="'weights'"):
        rebasin(x)


def test_setting_the_data_of_a_shared_copy_leaves_the_original_alone() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 3))
    net[1].weight.requires_grad_(False)
    twin = evaluation_copy(net)
    before = net[0].weight.clone()
    assert [p.requires_grad for p in twin.parameters()] == [p.requires_grad for p in net.parameters()]
    assert all(p.data_ptr() == q.data_ptr() for p, q in zip(twin.parameters(), net.parameters(), strict=True))
    twin[0].weight.data = torch.zeros(4, 3)
    twin[0].weight.requires_grad_(False)
    twin[0].weight.grad = torch.zeros(4, 3)
    assert torch.equal(net[0].weight, before)
    assert net[0].weight.requires_grad
    assert net[0].weight.grad is None


@pytest.mark.parametrize("share", [True, False])
def test_ties_and_memory_in_common_stay(share: bool) -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    net[2].weight = nn.Parameter(net[0].weight.detach().t())
    net.row = net[0].bias.detach()[1:]
    twin = standalone_copy(net, share_parameters=share)
    assert twin[0].weight is twin[1].weight
    assert twin[2].weight.data_ptr() == twin[0].weight.data_ptr()
    assert twin[2].weight.stride() == (1, 3)
    assert twin.row.data_ptr() == twin[0].bias.data_ptr() + 4
    assert (twin.row.data_ptr() == net.row.data_ptr()) is share
    with torch.no_grad():
        twin[0].weight.zero_()
    assert not twin[2].weight.any()
    assert bool(net[0].weight.any()) is not share


def test_functions_that_do_not_reach_the_network_stay_the_same() -> None:
    table, records = torch.ones(3), []
    net = nn.Linear(4, 3)
    net.scale = lambda x: x * table
    net.register_forward_hook(lambda module, inputs, output: records.append(output.shape))
    twin = standalone_copy(net)
    assert twin.scale is not None
    twin(torch.ones(2, 4))
    assert records == [(2, 3)]


def test_originals_keep_their_functions() -> None:
    net, (x, _) = RIGHT["function in a list"](), batch()
    before: Any = (net.heads, net.heads[0], net.heads[0].__closure__[0].cell_contents)
    run_at(standalone_copy(net), net.state_dict(), x)
    assert (net.heads, net.heads[0], net.heads[0].__closure__[0].cell_contents) == before


def test_functions_keep_what_is_known_of_them() -> None:
    net = nn.Linear(2, 2)

    @functools.wraps(Holder.run)
    def run(x: Tensor) -> Tensor:
        """Run."""
        return net(x)

    run.note = [net]  # type: ignore[attr-defined]
    net.run = run
    twin = standalone_copy(net)
    assert twin.run is not run
    assert (twin.run.__name__, twin.run.__doc__) == (run.__name__, run.__doc__)
    assert twin.run.note[0] is twin
    assert run.note[0] is net  # type: ignore[attr-defined]
