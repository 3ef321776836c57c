from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sinkhorn_rebasin.activations.statistics import PairedMoments, find_sites, paired_moments
from sinkhorn_rebasin.permutations import Group, Layout, PermutationSpec, Slot
from sinkhorn_rebasin.symmetry import discover_symmetry


@pytest.mark.parametrize("sizes", [(10,), (3, 7), (1, 1, 8)])
def test_moments_are_those_of_all_samples_at_once(sizes: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(4, 1, 10, generator=generator, dtype=torch.float64) + 1000 for _ in range(2))
    moments = PairedMoments()
    for one, two in zip(x.split(sizes, -1), y.split(sizes, -1), strict=True):
        moments.update(one, two)
    whole = np.corrcoef(x[:, 0].numpy(), y[:, 0].numpy())[:4, 4:]
    np.testing.assert_allclose(moments.correlation().numpy(), whole, atol=1e-9)
    np.testing.assert_allclose(moments.means[1][0].numpy(), y[:, 0].mean(-1).numpy())
    np.testing.assert_allclose(moments.deviations()[0][0].numpy(), x[:, 0].numpy().std(-1), rtol=1e-9)
    np.testing.assert_allclose(moments.uncentred().numpy(), (x[:, 0] @ y[:, 0].T / 10).numpy())


def test_positions_of_one_unit_add_up_and_constants_are_zero() -> None:
    x = torch.randn(3, 2, 20, generator=torch.Generator().manual_seed(0))
    x[2] = 7.1
    moments = PairedMoments()
    moments.update(x, 2 * x + 1)
    assert torch.allclose(moments.correlation().diagonal(), torch.tensor([2.0, 2.0, 0.0]).double())


def test_values_are_those_of_the_layer_even_when_written_over() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(inplace=True), nn.Linear(5, 2))
    inputs = torch.randn(7, 3)
    spec = discover_symmetry(net, inputs)
    state = net.state_dict()
    ((site, moments),) = paired_moments(net, state, state, spec, [inputs[:3], inputs[3:]]).values()
    assert (site.module, site.axis, moments.count) == ("0", -1, 7)
    assert torch.allclose(moments.means[0][0], net[0](inputs).double().mean(0), atol=1e-6)
    assert not net[0]._forward_hooks


@pytest.mark.parametrize(
    ("layers", "shape", "site"),
    [
        ([nn.Conv1d(3, 4, 2), nn.Tanh(), nn.Conv1d(4, 2, 2)], (2, 3, 9), ("0", -2)),
        ([nn.ConvTranspose2d(3, 4, 2), nn.Tanh(), nn.Conv2d(4, 2, 2)], (2, 3, 5, 5), ("0", -3)),
        ([nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)], (6, 3), ("1", -1)),
        ([nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 2)], (2, 3, 5, 5), ("1", 1)),
    ],
    ids=["conv1d", "transposed", "layer norm", "batch norm"],
)
def test_the_last_layer_that_carries_the_group_is_read(
    layers: list[nn.Module], shape: tuple[int, ...], site: tuple[str, int]
) -> None:
    net, inputs = nn.Sequential(*layers).eval(), torch.randn(shape)
    (found,) = find_sites(net, net.state_dict(), discover_symmetry(net, inputs), inputs).values()
    assert (found.module, found.axis) == site


class Chosen(nn.Module):
    """Rows with a positive first entry take one way, the others the other; an empty way is not gone."""

    def __init__(self) -> None:
        super().__init__()
        self.choose, self.one, self.two, self.last = (nn.Linear(3, 3) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        chosen = self.choose(x)[:, 0] > 0
        out = torch.zeros_like(x)
        for layer, rows in ((self.one, chosen), (self.two, ~chosen)):
            if rows.any():
                out = out.index_put((rows,), layer(x[rows]).relu())
        return self.last(out)


@pytest.mark.parametrize("bias", [0.3, 1e9])
def test_layers_that_saw_other_samples_are_left_out(bias: float) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net, other, inputs = Chosen(), Chosen(), torch.randn(30, 3)
    for network in (net, other):
        torch.nn.init.eye_(network.choose.weight)
        torch.nn.init.zeros_(network.choose.bias)
    layout = Layout(1, 3)
    spec = PermutationSpec(
        (Group("one", 3), Group("two", 3)),
        (Slot("one", "one.weight", (0,), layout), Slot("two", "two.weight", (0,), layout)),
        {"one.weight": (3, 3), "two.weight": (3, 3)},
    )
    assert set(paired_moments(net, net.state_dict(), other.state_dict(), spec, [inputs])) == {"one", "two"}
    with torch.no_grad():
        other.choose.bias.fill_(bias)
    assert not paired_moments(net, net.state_dict(), other.state_dict(), spec, [inputs])


@pytest.mark.filterwarnings("error:Casting complex")
def test_imaginary_parts_tell_units_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(40, 3, generator=generator)
    layer = nn.Linear(3, 5, bias=False, dtype=torch.complex64)
    with torch.no_grad():
        layer.weight.copy_(1 + 1j * torch.randn(5, 3, generator=generator))  # real parts are alike
    order = torch.tensor([3, 0, 4, 1, 2])
    values = layer(inputs.to(torch.complex64)).detach().T[:, None]
    moments = PairedMoments()
    for part in values.split(13, -1):
        moments.update(part, part[order])
    found = moments.correlation()
    by_hand = sum(
        torch.from_numpy(np.corrcoef(part[:, 0].double().numpy())) for part in (values.real, values.imag)
    )
    torch.testing.assert_close(found, by_hand[:, order], rtol=1e-5, atol=1e-6)
    assert torch.equal(found.argmax(0), order)
