"""The loss that repairs its mixture, against REPAIR itself, and its gradient against finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sinkhorn_rebasin import RandomPointLoss, RepairAlongPath, RepairLoss, SinkhornRebasin
from sinkhorn_rebasin.errors import LossError


def _pair(make, seed: int = 0) -> tuple[nn.Module, nn.Module]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make().eval(), make().eval()


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6, bias=False), nn.Tanh(), nn.Linear(6, 3))


def _cnn() -> nn.Module:
    return nn.Sequential(
        *(
            nn.Conv2d(2, 4, 3),
            nn.ReLU(),
            nn.ConvTranspose2d(4, 3, 2, bias=False),
            nn.ReLU(),
            nn.Conv2d(3, 4, 2),
        ),
        *(nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 3)),
    )


def _normed() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))


def _power(outputs: Tensor, labels: Tensor) -> Tensor:
    """A criterion that sees any change of the outputs."""
    return outputs.square().mean()


def _data(make, samples: int = 40) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (samples, 4) if make is _mlp else (samples, 2, 6, 6)
    return torch.randn(shape, generator=generator), torch.randint(3, (samples,), generator=generator)


@pytest.mark.parametrize("make", [_mlp, _cnn])
@pytest.mark.parametrize("position", [0.3, 0.5])
@pytest.mark.parametrize("rescale_only", [False, True])
def test_hard_permutations_give_the_loss_of_the_repaired_network(
    make, position: float, rescale_only: bool
) -> None:
    reference, target = _pair(make)
    x, labels = _data(make)
    rebasin = SinkhornRebasin(reference, target, x[:2]).eval()
    statistics = RepairAlongPath(reference, target, rebasin.spec, [x], rescale_only=rescale_only)
    found = RepairLoss(_power, statistics, position, position)(rebasin, (x, labels))
    merged = rebasin.merge(position, repair=[x], rescale_only=rescale_only)
    plain = _power(rebasin.merge(position)(x), labels)
    assert found.item() == pytest.approx(_power(merged(x), labels).item(), rel=1e-4)
    assert abs(found.item() / plain.item() - 1) > 0.01


@pytest.mark.parametrize("make", [_mlp, _cnn])
def test_in_mixed_precision_it_is_the_same_up_to_rounding(make) -> None:
    reference, target = _pair(make)
    x, labels = _data(make)
    rebasin = SinkhornRebasin(reference, target, x[:2])
    loss = RepairLoss(_power, RepairAlongPath(reference, target, rebasin.spec, [x]), 0.5, 0.5)
    gradients, values = [], []
    for mixed in (False, True):
        rebasin.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            found = loss(rebasin, (x, labels))
        found.backward()
        gradients.append([scores.grad.clone() for scores in rebasin.scores.values()])
        values.append(found.item())
    assert values[1] == pytest.approx(values[0], rel=0.03)
    for exact, rounded in zip(*gradients, strict=True):
        assert (rounded - exact).norm() < 0.2 * exact.norm()


def test_with_batch_norm_it_is_the_plain_loss() -> None:
    reference, target = _pair(_normed)
    x, labels = _data(_normed)
    rebasin = SinkhornRebasin(reference, target, x[:2])
    statistics = RepairAlongPath(reference, target, rebasin.spec, [x])
    found = RepairLoss(F.cross_entropy, statistics, 0.5, 0.5)(rebasin, (x, labels))
    assert found.item() == pytest.approx(
        RandomPointLoss(F.cross_entropy, 0.5, 0.5)(rebasin, (x, labels)).item(), rel=1e-6
    )


def test_the_gradient_is_that_of_finite_differences() -> None:
    reference, target = (network.double() for network in _pair(_mlp))
    x, labels = _data(_mlp)
    x = x.double()
    rebasin = SinkhornRebasin(reference, target, x[:2], tolerance=1e-12, noise=0.3)
    loss = RepairLoss(F.cross_entropy, RepairAlongPath(reference, target, rebasin.spec, [x]), 0.5, 0.5)
    loss(rebasin, (x, labels)).backward()
    scores, step = rebasin.scores["0"], 1e-5
    for index in ((0, 0), (2, 5), (7, 1)):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                scores[index] += sign * step
                values.append(loss(rebasin, (x, labels)).item())
                scores[index] -= sign * step
        assert scores.grad[index].item() == pytest.approx(
            (values[0] - values[1]) / (2 * step), rel=1e-4, abs=1e-9
        )


def test_nothing_is_changed_and_no_hook_stays() -> None:
    reference, target = _pair(_mlp)
    x, labels = _data(_mlp)
    rebasin = SinkhornRebasin(reference, target, x[:2])
    before = {name: tensor.clone() for name, tensor in rebasin.state_dict().items() if "scalings" not in name}
    statistics, random = RepairAlongPath(reference, target, rebasin.spec, [x]), torch.get_rng_state()
    draws = torch.Generator().manual_seed(0)
    loss = RepairLoss(F.cross_entropy, statistics, 0.5, 0.5, generator=draws)
    first, second = loss(rebasin, (x, labels)), loss(rebasin, (x, labels))
    assert first.item() == pytest.approx(second.item(), rel=1e-6)
    assert torch.equal(random, torch.get_rng_state())
    assert not any(module._forward_hooks for module in statistics.network.modules())
    assert all(torch.equal(tensor, rebasin.state_dict()[name]) for name, tensor in before.items())


def test_scales_are_refused() -> None:
    reference, target = _pair(_mlp)
    x, labels = _data(_mlp)
    rebasin = SinkhornRebasin(reference, target, x[:2], rescale=True)
    loss = RepairLoss(F.cross_entropy, RepairAlongPath(reference, target, rebasin.spec, [x]))
    with pytest.raises(LossError, match="rescale=False"):
        loss(rebasin, (x, labels))


def test_a_single_sample_is_not_taken_for_the_mean() -> None:
    reference, target = _pair(_mlp)
    x, labels = _data(_mlp)
    rebasin = SinkhornRebasin(reference, target, x[:2])
    loss = RepairLoss(_power, RepairAlongPath(reference, target, rebasin.spec, [x]), 0.5, 0.5)
    plain = RandomPointLoss(_power, 0.5, 0.5)
    for sample in (x[:1], x[1:2]):
        found = loss(rebasin, (sample, labels[:1]))
        assert found.item() == pytest.approx(plain(rebasin, (sample, labels[:1])).item(), rel=1e-5)
