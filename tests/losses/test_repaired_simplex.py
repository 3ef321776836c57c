"""The repaired loss of a mean of several networks, against REPAIR itself and finite differences."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sinkhorn_rebasin import RepairAlongPath, RepairSimplexLoss, SimplexLoss
from sinkhorn_rebasin.errors import LossError
from sinkhorn_rebasin.merging import JointRebasin

MIDDLE = float("inf")


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6, bias=False), nn.ReLU(), nn.Linear(6, 3))


def _cnn() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 3, 2, bias=False), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(3 * 25, 6), nn.ReLU(), nn.Linear(6, 3)),
    )


def _normed() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))


def _tanh() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def _three(make: Callable[[], nn.Module]) -> list[nn.Module]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [make().eval() for _ in range(3)]


def _power(outputs: Tensor, labels: Tensor) -> Tensor:
    """A criterion that sees any change of the outputs."""
    return outputs.square().mean()


def _data(make: Callable[[], nn.Module]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (40, 4) if make in (_mlp, _tanh) else (40, 2, 6, 6)
    return torch.randn(shape, generator=generator), torch.randint(3, (40,), generator=generator)


def _scaled(joint: JointRebasin) -> JointRebasin:
    """Other scales than ones."""
    with torch.no_grad():
        for number, scale in enumerate(joint.log_scales.parameters()):
            scale.copy_(torch.linspace(-0.4, 0.6, scale.numel()).roll(number).view_as(scale))
    return joint


@pytest.mark.parametrize("make", [_mlp, _cnn])
@pytest.mark.parametrize("rescale", [False, True])
def test_at_hard_permutations_it_is_the_loss_of_the_repaired_mean(
    make: Callable[[], nn.Module], rescale: bool
) -> None:
    networks, (x, labels), shares = _three(make), _data(make), [0.5, 0.2, 0.3]
    joint = _scaled(JointRebasin(networks, x[:2], rescale=rescale)).eval()
    assert bool(joint.log_scales) is rescale
    statistics = RepairAlongPath(networks[0], networks[1:], joint.spec, [x])
    found = RepairSimplexLoss(_power, statistics, MIDDLE, middle=shares)(joint, (x, labels))
    merged = joint.merge(shares, repair=[x])
    assert found.item() == pytest.approx(_power(merged(x), labels).item(), rel=1e-4)
    assert abs(found.item() / _power(joint.merge(shares)(x), labels).item() - 1) > 0.01


def test_the_gradient_is_that_of_finite_differences() -> None:
    networks, (x, labels) = [network.double() for network in _three(_mlp)], _data(_mlp)
    x = x.double()
    joint = _scaled(JointRebasin(networks, x[:2], rescale=True)).double()
    for rebasin in joint.rebasins:
        rebasin.tolerance = 1e-12
    joint.tolerance = 1e-12
    statistics = RepairAlongPath(networks[0], networks[1:], joint.spec, [x])
    loss = RepairSimplexLoss(F.cross_entropy, statistics, MIDDLE)
    loss(joint, (x, labels)).backward()
    for learned in (joint.rebasins[1].scores["0"], joint.rebasins[0].log_scales["0"]):
        values, step = [], 1e-5
        for sign in (1, -1):
            with torch.no_grad():
                learned[0, 5] += sign * step
                values.append(loss(joint, (x, labels)).item())
                learned[0, 5] -= sign * step
        slope = (values[0] - values[1]) / (2 * step)
        assert slope != 0
        assert learned.grad[0, 5].item() == pytest.approx(slope, rel=1e-4, abs=1e-9)


def test_with_batch_norm_it_is_the_plain_loss() -> None:
    networks, (x, labels) = _three(_normed), _data(_normed)
    joint = JointRebasin(networks, x[:2])
    statistics = RepairAlongPath(networks[0], networks[1:], joint.spec, [x])
    found = RepairSimplexLoss(F.cross_entropy, statistics, MIDDLE)(joint, (x, labels))
    assert found.item() == pytest.approx(
        SimplexLoss(F.cross_entropy, MIDDLE)(joint, (x, labels)).item(), rel=1e-6
    )


def test_signs_and_statistics_of_others_are_refused() -> None:
    networks, (x, labels) = _three(_tanh), _data(_tanh)
    joint = JointRebasin(networks, x[:2], rescale=True)
    statistics = RepairAlongPath(networks[0], networks[1:], joint.spec, [x])
    with pytest.raises(LossError, match="rescale=False"):
        RepairSimplexLoss(F.cross_entropy, statistics)(joint, (x, labels))
    joint = JointRebasin(networks, x[:2])
    pair = RepairAlongPath(networks[0], networks[1], joint.spec, [x])
    with pytest.raises(LossError, match=r"repair= of 3 networks but got one of 2"):
        RepairSimplexLoss(F.cross_entropy, pair)(joint, (x, labels))
    with pytest.raises(LossError, match=r"RepairAlongPath.* but got NoneType"):
        RepairSimplexLoss(F.cross_entropy)
