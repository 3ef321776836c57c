"""Units that no layer shows are read at operations, in whatever way a network computes them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sinkhorn_rebasin.activations.operation_sites import OperationReader
from sinkhorn_rebasin.activations.recording import recorded
from sinkhorn_rebasin.matching import activation_matching
from sinkhorn_rebasin.permutations import (
    PermutationSpec,
    RescalingSpec,
    inverse,
    permute_state,
    random_permutations,
)
from sinkhorn_rebasin.permutations.rescaling import NO_RESCALING
from sinkhorn_rebasin.symmetry import discover_symmetry
from tests.recurrent_networks import recurrent, symmetries_of


class Packed(nn.Module):
    """Sequences of several lengths, packed."""

    def __init__(self) -> None:
        super().__init__()
        self.r, self.head = nn.GRU(3, 7, batch_first=True), nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        lengths = torch.arange(len(x)) % x.shape[1] + 1
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.head(pad_packed_sequence(self.r(packed)[0], batch_first=True)[0])


class LastState(nn.Module):
    """The last hidden and cell state alone are read."""

    def __init__(self) -> None:
        super().__init__()
        self.r, self.head = nn.LSTM(3, 7, 2), nn.Linear(14, 2)

    def forward(self, x: Tensor) -> Tensor:
        h, c = self.r(x.transpose(0, 1))[1]
        return self.head(torch.cat([h[-1], c[0]], -1))


class BareMatrices(nn.Module):
    """Two hidden layers of matrices, one of them written into a buffer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Parameter(torch.randn(n, m)) for n, m in ((3, 7), (7, 9), (9, 2)))

    def forward(self, x: Tensor) -> Tensor:
        hidden = x.new_zeros(*x.shape[:-1], 7)
        for step in range(x.shape[1]):
            hidden[:, step] = (x[:, step] @ self.a).tanh()
        return torch.einsum("bti,ij->btj", hidden, self.b).relu() @ self.c


class Convolved(nn.Module):
    """A convolution over time as a function, before a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.r, self.head = nn.Parameter(torch.randn(6, 3, 2)), nn.RNN(6, 7), nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.conv1d(x.mT, self.w).tanh()
        return self.head(self.r(x.permute(2, 0, 1))[0].mean(0))


class Checked(nn.Module):
    """Steps that run again in a backward pass, had there been one."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(3, 7), nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 7)
        for step in x.unbind(1):
            h = torch.utils.checkpoint.checkpoint(self.cell, step, h, use_reentrant=False)
        return self.head(h)


def planted(
    make: Callable[[], nn.Module],
) -> tuple[nn.Module, dict[str, Tensor], PermutationSpec, Tensor, dict[str, Tensor]]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, x = make().eval(), torch.randn(24, 5, 3)
    spec = discover_symmetry(net, x)
    shuffle = random_permutations(spec, generator=torch.Generator().manual_seed(2))
    return net, permute_state(net.state_dict(), spec, shuffle), spec, x, inverse(spec, shuffle)


@pytest.mark.parametrize("make", [Packed, LastState, BareMatrices, Convolved, Checked])
def test_planted_permutations_are_recovered(make: Callable[[], nn.Module]) -> None:
    net, target, spec, x, right = planted(make)
    assert spec.groups
    found = activation_matching(net, target, spec, data=[x[:12], x[12:]])
    assert found.weight_matched == ()
    assert all(torch.equal(found.permutations[name], one) for name, one in right.items())


def read(name: str, rescaling: bool = False) -> tuple[OperationReader, nn.Module, Tensor, RescalingSpec]:
    (net, x), (spec, found) = recurrent(name), symmetries_of(name)
    signs = found if rescaling else NO_RESCALING
    return OperationReader(net, net.state_dict(), spec, spec.names, x, signs), net, x, signs


def test_the_whole_sequence_of_a_layer_is_read() -> None:
    reader, net, x, _ = read("lstm")
    ((ours, theirs),) = reader.pairs(net.state_dict(), net.state_dict(), x).values()
    assert torch.equal(ours, theirs)
    expected = net.r(x)[0].flatten(0, 1).T
    torch.testing.assert_close(ours[:, 0].sort().values, expected.sort().values)


def test_every_step_of_a_loop_is_read() -> None:
    reader, net, x, _ = read("lstm_by_hand")
    ((ours, _),) = reader.pairs(net.state_dict(), net.state_dict(), x).values()
    assert ours.shape == (4, 1, len(x) * x.shape[1])


@pytest.mark.parametrize("name", ["lstm", "gru", "lstm_cell", "gru_cell", "lstm_by_hand", "peepholes"])
def test_what_is_read_of_a_cell_changes_its_sign(name: str) -> None:
    reader, *_ = read(name, rescaling=True)
    assert [site.parity for site in reader.sites.values()] == [(1,)]


def test_other_groups_stay_out_of_what_is_read() -> None:
    reader, net, x, _ = read("stacked_gru")
    assert set(reader.sites) == set(reader.spec.names)
    pairs = reader.pairs(net.state_dict(), net.state_dict(), x)
    assert {one.shape for pair in pairs.values() for one in pair} == {(4, 1, len(x) * x.shape[1])}


def test_what_is_made_of_weights_alone_is_no_activation() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    weight = net[0].weight

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            norm = self.net[0].weight.square().sum(1)
            return self.net(x) + 0 * norm.sum()

    module = Scaled()
    seen = recorded(module, module.state_dict(), torch.randn(5, 3), lambda *_: True)
    assert weight.shape[0] not in {tensor.numel() for _, tensor in seen}
    assert [tensor.shape[-1] for _, tensor in seen if tensor.ndim > 1][-1] == 2
