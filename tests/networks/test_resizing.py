from __future__ import annotations

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
    grouped = nn.Sequential(nn.Conv2d(4, 4, 1, groups=2))
    with pytest.raises(ArchitectureError, match="'0' has 2 groups"):
        resized(grouped, {"0.weight": torch.ones(6, 3, 1, 1), "0.bias": torch.ones(6)})


def _tensors(outputs: object) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else [outputs[0], outputs[1]]  # type: ignore[index]
