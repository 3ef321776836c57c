"""Re-estimated statistics against recorded activations, and against PyTorch where the two must agree."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, TensorDataset

from sinkhorn_rebasin.activations import BatchNormReset, batch_norm_statistics, reset_batch_norm
from sinkhorn_rebasin.connectivity import LinearPath, evaluate_path
from sinkhorn_rebasin.errors import DataError


def conv_net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3, momentum=None)
    )


def batches(*sizes: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [5 + index + torch.randn(n, 2, 6, 6, generator=generator) for index, n in enumerate(sizes)]


def test_equals_the_moments_of_the_recorded_activations() -> None:
    """The witness runs the layers by hand in float64, batch by batch, and pools what each norm is given."""
    net, data = conv_net(), batches(7, 3, 5)
    reset = reset_batch_norm(net, data)
    first_inputs, second_inputs = [], []
    double = copy.deepcopy(net).double()
    with torch.no_grad():
        for x in data:
            first_inputs.append(double[0](x.double()))
            hidden = F.batch_norm(first_inputs[-1], None, None, double[1].weight, double[1].bias, True)
            second_inputs.append(double[3](hidden.relu()))
    for layer, recorded in ((reset[1], first_inputs), (reset[4], second_inputs)):
        pooled = torch.cat([x.transpose(0, 1).flatten(1) for x in recorded], dim=1)
        torch.testing.assert_close(layer.running_mean.double(), pooled.mean(1), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(layer.running_var.double(), pooled.var(1), rtol=1e-5, atol=1e-6)
        assert layer.num_batches_tracked.item() == 3


def test_agrees_with_update_bn_on_one_batch() -> None:
    net, data = conv_net(), batches(16)
    expected = copy.deepcopy(net)
    update_bn(data, expected)
    torch.testing.assert_close(reset_batch_norm(net, data).state_dict(), expected.state_dict())


def test_large_offset_loses_nothing() -> None:
    x = 1e3 + torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    reset = reset_batch_norm(nn.BatchNorm1d(3), x.split(7)[:-1])
    kept = x[: 7 * (400 // 7)].double()
    torch.testing.assert_close(reset.running_var.double(), kept.var(0), rtol=1e-4, atol=0)


@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_changed(training: bool) -> None:
    net = conv_net().train(training)
    net[1].train(not training)
    modes = [child.training for child in net.modules()]
    before = copy.deepcopy(net.state_dict())
    hooks = [len(child._forward_pre_hooks) for child in net.modules()]
    state = net.state_dict()
    loader = DataLoader(TensorDataset(torch.cat(batches(12))), batch_size=4, shuffle=True)
    torch.manual_seed(5)
    random_state = torch.get_rng_state()
    new_state = batch_norm_statistics(net, state, loader)
    reset = reset_batch_norm(net, loader)
    assert torch.equal(torch.get_rng_state(), random_state)
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)
    torch.testing.assert_close(dict(state), dict(before), rtol=0, atol=0)
    assert [child.training for child in net.modules()] == modes
    assert [child.training for child in reset.modules()] == modes
    assert [len(child._forward_pre_hooks) for child in net.modules()] == hooks
    assert [len(child._forward_pre_hooks) for child in reset.modules()] == hooks
    assert reset[4].momentum is None
    assert new_state["1.running_mean"].ne(before["1.running_mean"]).all()
    assert all(
        torch.equal(new_state[name], before[name])
        for name in before
        if "running" not in name and "tracked" not in name
    )


def test_without_batch_norm_the_data_are_not_read() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.BatchNorm1d(2, track_running_stats=False))
    reset = reset_batch_norm(net, iter([None]))
    assert reset is not net
    torch.testing.assert_close(reset.state_dict(), net.state_dict(), rtol=0, atol=0)


def test_dropout_is_off() -> None:
    net = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm1d(3)).train()
    x = torch.randn(50, 3)
    torch.testing.assert_close(reset_batch_norm(net, [x])[1].running_var, x.var(0))


def test_shared_layer_pools_both_uses_and_an_unused_one_keeps_its_own() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.unused = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
            self.unused.running_mean.fill_(7.0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(x[:, :2]) + self.norm(x[:, 2:])

    x = torch.randn(20, 4)
    reset = reset_batch_norm(Shared(), [x])
    both = torch.cat([x[:, :2], x[:, 2:]])
    torch.testing.assert_close(reset.norm.running_mean, both.mean(0))
    torch.testing.assert_close(reset.norm.running_var, both.var(0))
    assert reset.unused.running_mean.tolist() == [7.0, 7.0]


def test_kinds_of_batches_and_their_number() -> None:
    net, (x, y) = conv_net(), batches(4, 4)
    plain = reset_batch_norm(net, [x])
    for data in ([(x, torch.zeros(4))], [[x]], [{"input": x}], [x, y]):
        reset = reset_batch_norm(net, data, batches=1)
        torch.testing.assert_close(reset.state_dict(), plain.state_dict(), rtol=0, atol=0)


def test_prepares_every_position_of_a_path() -> None:
    start, end = (nn.Sequential(conv_net(seed), nn.Flatten()) for seed in (0, 1))
    (x,), labels = batches(16), torch.randint(3, (16,))
    data = [(x, labels)]
    path = evaluate_path((start, end), data, points=3, prepare=BatchNormReset(data))
    middle = reset_batch_norm(LinearPath.between(start, end).module_at(0.5), data).eval()
    with torch.no_grad():
        assert path.midpoint_loss == pytest.approx(F.cross_entropy(middle(x), labels).item(), rel=1e-6)
    assert path.midpoint_loss != evaluate_path((start, end), data, points=3).midpoint_loss


def test_errors() -> None:
    with pytest.raises(DataError, match="at least one batch"):
        reset_batch_norm(conv_net(), [])
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    with pytest.raises(DataError, match=r"two values per channel at batch-norm layer '1' but got 1"):
        reset_batch_norm(net, [torch.randn(1, 2)])
