from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.resizing import resized


def state_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        (
            lambda n: nn.Sequential(
                nn.Conv2d(2, n, 3), nn.BatchNorm2d(n), nn.Conv2d(n, n, 1, groups=n), nn.Flatten()
            ),
            torch.randn(2, 2, 4, 4),
        ),
        (lambda n: nn.Sequential(nn.Embedding(5, n), nn.Linear(n, 3), nn.LayerNorm(3)), torch.tensor([1, 4])),
        (lambda n: nn.ConvTranspose1d(2, n, 3), torch.randn(2, 2, 4)),
        (lambda n: nn.GRU(3, n, batch_first=True), torch.randn(2, 5, 3)),
    ],
)
def test_a_network_of_other_widths_is_the_one_that_its_class_makes(make, inputs) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    narrow, wide = make(4).eval(), make(6).eval()
    before = state_of(narrow)
    made = resized(narrow, state_of(wide))
    expected, found = wide(inputs), made(inputs)
    for ours, theirs in zip(_tensors(found), _tensors(expected), strict=True):
        assert torch.equal(ours, theirs)
    assert repr(made) == repr(wide)
    assert all(torch.equal(before[name], tensor) for name, tensor in narrow.state_dict().items())


def test_ties_stay_and_parameters_keep_whether_they_are_trained() -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    first.bias.requires_grad_(False)
    made = resized(nn.Sequential(first, second), state_of(nn.Sequential(first, second)))
    assert made[0].weight is made[1].weight
    assert made[0].weight is not first.weight
    assert [p.requires_grad for p in (made[0].weight, made[0].bias)] == [True, False]


def test_what_does_not_fit_is_refused_by_name() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    state = state_of(net)
    with pytest.raises(ArchitectureError, match=r"tensor '1\.bias' with 1 axes but got none"):
        resized(net, {name: tensor for name, tensor in state.items() if name != "1.bias"})
    with pytest.raises(ArchitectureError, match=r"'0\.bias' with 1 axes but got shape \(2, 2\)"):
        resized(net, {**state, "0.bias": torch.ones(2, 2)})


def wider(network: nn.Module, **shapes: tuple[int, ...]) -> dict[str, Tensor]:
    named = {name.replace("__", "."): shape for name, shape in shapes.items()}
    return {
        name: torch.ones(named.get(name, tensor.shape), dtype=tensor.dtype)
        for name, tensor in network.state_dict().items()
    }


def test_counters_may_be_left_out_and_statistics_not() -> None:
    net = nn.Sequential(nn.BatchNorm1d(3))
    state = {name: tensor for name, tensor in state_of(net).items() if "num_batches" not in name}
    assert resized(net, state)[0].num_batches_tracked is not net[0].num_batches_tracked
    with pytest.raises(ArchitectureError, match=r"'0\.running_mean' with 1 axes but got none"):
        resized(net, {name: tensor for name, tensor in state.items() if "running_mean" not in name})


def test_layers_know_their_new_sizes() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, groups=4), nn.ConvTranspose2d(4, 2, 1)
    )
    sizes = {"0__weight": (7, 3, 3, 3), "0__bias": (7,), "2__weight": (7, 1, 3, 3), "2__bias": (7,)}
    sizes |= {f"1__{name}": (7,) for name in ("weight", "bias", "running_mean", "running_var")}
    before = copy.deepcopy(net.state_dict())
    twin = resized(net, wider(net, **sizes, **{"3__weight": (7, 2, 1, 1)}))
    assert (twin[0].out_channels, twin[1].num_features, twin[2].groups, twin[2].in_channels) == (7, 7, 7, 7)
    assert (twin[3].in_channels, twin[3].out_channels) == (7, 2)
    assert twin(torch.ones(2, 3, 8, 8)).shape == (2, 2, 4, 4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert net[0].out_channels == 4


def test_norms_embeddings_and_ties_go_along() -> None:
    net = nn.Sequential(nn.Embedding(5, 4), nn.LayerNorm(4), nn.Linear(4, 5, bias=False))
    net[2].weight = net[0].weight
    twin = resized(net, wider(net, **{"0__weight": (5, 6), "1__weight": (6,), "1__bias": (6,)}))
    assert twin[2].weight is twin[0].weight
    assert (twin[0].embedding_dim, twin[1].normalized_shape, twin[2].in_features) == (6, (6,), 6)
    assert twin(torch.tensor([1, 2])).shape == (2, 5)


@pytest.mark.parametrize(
    ("network", "sizes", "said"),
    [
        (
            nn.Sequential(nn.Conv2d(4, 4, 1, groups=2)),
            {"0__weight": (6, 2, 1, 1)},
            "'0' has 2 groups of several",
        ),
        (nn.Sequential(nn.GroupNorm(2, 4)), {"0__weight": (6,)}, "'0' is GroupNorm"),
    ],
)
def test_layers_of_one_size_are_refused_by_name(
    network: nn.Module, sizes: dict[str, tuple[int, ...]], said: str
) -> None:
    with pytest.raises(ArchitectureError, match=said):
        resized(network, wider(network, **sizes))


def _tensors(outputs: object) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else [outputs[0], outputs[1]]  # type: ignore[index]
