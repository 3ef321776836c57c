from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from experiments.models import LSTM
from sinkhorn_rebasin.errors import ArchitectureError, RebasinError, SpecError
from sinkhorn_rebasin.merging import UnitPrior, fedma, pfnm
from tests.merging.owned_networks import permuted_copies, with_units_more

SHARP = UnitPrior(sigma=1e-3, sigma_0=10.0)


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def cnn() -> nn.Sequential:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    norm.running_mean, norm.running_var = torch.randn(4), torch.rand(4) + 0.5
    head = [nn.Flatten(), nn.Linear(4 * 9, 5), nn.ReLU(), nn.Linear(5, 2)]
    return nn.Sequential(nn.Conv2d(2, 4, 3), norm, nn.ReLU(), *head).eval()


@pytest.mark.parametrize(
    ("network", "inputs"),
    [
        (mlp, torch.randn(3, 4)),
        (cnn, torch.randn(3, 2, 5, 5)),
        (lambda: LSTM(vocabulary=7, embedded=3, width=5, depth=1), torch.arange(6).reshape(2, 3)),
    ],
)
def test_permuted_copies_come_together_exactly(network, inputs) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(1)
    net = network()
    merged = fedma(permuted_copies(net, inputs, 3), inputs, shares=[0.5, 0.2, 0.3], prior=SHARP)
    torch.testing.assert_close(merged(inputs), net(inputs))
    assert {name: t.shape for name, t in merged.state_dict().items()} == {
        name: t.shape for name, t in net.state_dict().items()
    }


def test_units_more_of_one_owner_are_all_that_the_width_grows_by() -> None:
    net, x = mlp(), torch.randn(3, 4)
    merged = fedma([*permuted_copies(net, x, 2), with_units_more(net, 0, 2)], x, prior=UnitPrior(sigma=0.1))
    assert [layer.out_features for layer in merged if isinstance(layer, nn.Linear)] == [8, 5, 3]
    # What comes in is the owner's alone; what goes out counts by its share.
    norms = merged[0].weight.norm(dim=1).sort().values
    rows = with_units_more(net, 0, 2)[0].weight.norm(dim=1).sort().values
    torch.testing.assert_close(norms[-2:], rows[-2:])


def test_recurrent_units_of_two_owners_become_one_wider_layer() -> None:
    torch.manual_seed(0)
    small, large = LSTM(7, 3, 4, 1), LSTM(7, 3, 4, 1)
    tokens = torch.arange(6).reshape(2, 3)
    merged = fedma([small, large], tokens, prior=UnitPrior(sigma=1e-3, sigma_0=10.0, most=None))
    hidden = merged.layers.hidden_size
    assert 4 < hidden <= 8
    assert merged.layers.weight_hh_l0.shape == (4 * hidden, hidden)
    assert merged(tokens).shape == (2, 7, 3)
    merged(tokens).sum().backward()


def test_what_is_held_stays_while_owners_train_on() -> None:
    net, x = mlp(), torch.randn(3, 4)
    seen: list[tuple[int, frozenset[str]]] = []

    def retrain(number: int, network: nn.Module, held: frozenset[str]) -> nn.Module:
        seen.append((number, held))
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if name not in held:
                    parameter.add_(0.01)
        return network

    before = copy.deepcopy(net.state_dict())
    merged = fedma(permuted_copies(net, x, 2), x, prior=SHARP, retrain=retrain)
    first = {"0.weight", "0.bias"}
    assert seen == [(n, frozenset(held)) for held in (first, {*first, "2.weight", "2.bias"}) for n in (0, 1)]
    torch.testing.assert_close(merged[4].bias, net[4].bias + 0.02)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())

    def careless(number: int, network: nn.Module, held: frozenset[str]) -> nn.Module:
        network[0].bias.data.add_(1.0)  # type: ignore[index, operator]
        return network

    with pytest.raises(ArchitectureError, match=r"hold '0\.bias' of network 0"):
        fedma([net, net], x, prior=SHARP, retrain=careless)
    with pytest.raises(ArchitectureError, match="retrain to return a network but got int"):
        fedma([net, net], x, prior=SHARP, retrain=lambda *_: 3)  # type: ignore[arg-type, return-value]


def test_what_cannot_be_wider_is_refused_by_name() -> None:
    x = torch.randn(3, 4)
    torch.manual_seed(0)

    def normed() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 2))

    with pytest.raises(RebasinError, match="norm"):
        fedma([normed(), normed()], x, prior=SHARP)
    attention = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    with pytest.raises(SpecError, match=r"without nesting for fedma .* by sr\.align_many\."):
        fedma([attention, attention], torch.randn(2, 3, 4))
    stacked = [LSTM(7, 3, 4, 2) for _ in range(2)]
    with pytest.raises(ArchitectureError, match="one hidden width in all layers of 'layers'"):
        fedma(stacked, torch.arange(6).reshape(2, 3), prior=SHARP)


@pytest.mark.parametrize("merge", [fedma, pfnm])
def test_heads_of_other_classes_are_refused_by_name(merge: Callable[..., nn.Module]) -> None:
    owners = [nn.Sequential(nn.Linear(4, w), nn.ReLU(), nn.Linear(w, n)) for w, n in ((5, 3), (6, 2))]
    with pytest.raises(ArchitectureError, match=r"'2\.weight' .* shapes \(3, 5\) and \(2, 6\): .* one head"):
        merge(owners, torch.randn(3, 4))
