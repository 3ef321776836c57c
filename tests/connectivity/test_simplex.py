from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.connectivity import LearnedComplex, Simplex
from sinkhorn_rebasin.errors import ArchitectureError
from tests.front.pairs import samples, untrained


def conv(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
    net[1].running_mean.normal_()
    return net.eval()


def flat(network: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().double().flatten() for parameter in network.parameters()])


def cayley_menger(points: torch.Tensor) -> float:
    """The volume of a simplex from the distances of its corners alone."""
    count = len(points)
    matrix = torch.ones(count + 1, count + 1, dtype=torch.float64)
    matrix[1:, 1:], matrix[0, 0] = torch.cdist(points, points).square(), 0.0
    squared = (-1) ** count * torch.det(matrix) / (2 ** (count - 1) * math.factorial(count - 1) ** 2)
    return float(squared.sqrt())


@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_volume_is_that_of_cayley_and_menger(count: int) -> None:
    nets = [conv(seed) for seed in range(count)]
    expected = cayley_menger(torch.stack([flat(net) for net in nets]))
    assert float(Simplex(nets[0], nets).log_volume().exp()) == pytest.approx(expected, rel=1e-6)


def test_a_flat_simplex_has_no_volume_and_a_corner_has_one() -> None:
    nets = [conv(0), conv(1), conv(0)]
    assert float(Simplex(nets[0], nets).log_volume()) == -math.inf
    assert float(Simplex(nets[0], nets[:1]).log_volume()) == 0.0


def test_the_gradient_of_the_volume_is_that_of_differences() -> None:
    corner = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    others = [{"weight": torch.randn(2, 3, dtype=torch.float64)} for _ in range(2)]
    module = nn.Linear(3, 2, bias=False).double()
    assert torch.autograd.gradcheck(
        lambda weight: Simplex(module, [*others, {"weight": weight}]).log_volume(), (corner,)
    )


def test_points_are_means_with_their_statistics_and_corners_are_the_networks() -> None:
    nets = [conv(seed) for seed in range(3)]
    simplex, shares = Simplex(nets[0], nets), [0.2, 0.5, 0.3]
    state = simplex.state_at(shares)
    for name in ("0.weight", "1.running_mean", "4.bias"):
        mean = sum(share * net.state_dict()[name] for share, net in zip(shares, nets, strict=True))
        torch.testing.assert_close(state[name], mean)
    x = torch.randn(5, 1, 4)
    for number, net in enumerate(nets):
        torch.testing.assert_close(simplex(x, torch.eye(3)[number]), net(x))
        torch.testing.assert_close(simplex.module_at(torch.eye(3)[number].tolist())(x), net(x))


def test_buffers_that_are_no_statistics_are_those_of_the_largest_share() -> None:
    nets = [nn.Linear(2, 2) for _ in range(2)]
    for number, net in enumerate(nets):
        net.register_buffer("mask", torch.tensor([number]))
    assert Simplex(nets[0], nets).state_at([0.4, 0.6])["mask"].item() == 1


def test_shares_are_drawn_evenly_and_gradients_reach_them() -> None:
    nets = [untrained(seed) for seed in range(3)]
    simplex = Simplex(nets[0], nets)
    shares = simplex.draw(20_000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        shares.mean(0), torch.full((3,), 1 / 3, dtype=torch.float64), rtol=0.02, atol=0
    )
    variance = (1 / 3) * (2 / 3) / 4  # of Dirichlet(1, 1, 1)
    assert float(shares[:, 0].var()) == pytest.approx(variance, rel=0.05)
    share = torch.tensor([0.2, 0.3, 0.5], requires_grad=True)
    simplex(samples(8)[0], share).sum().backward()
    assert float(share.grad.abs().sum()) > 0


def test_an_ensemble_of_drawn_networks_has_statistics_of_its_own() -> None:
    nets, x = [conv(seed) for seed in range(3)], torch.randn(40, 1, 4) * 5 + 2
    generator = torch.Generator().manual_seed(0)
    members = Simplex(nets[0], nets).networks(4, generator=generator, prepare=sr.BatchNormReset([x]))
    for member in members:
        torch.testing.assert_close(member[1].running_mean, member[0](x).mean((0, 2)))
        assert not member.training
    mean = torch.stack([member(x).softmax(1) for member in members]).mean(0)
    torch.testing.assert_close(sr.Ensemble(members)(x).exp(), mean)


@pytest.mark.parametrize("shares", [[1.0], [0.5, 0.6], [0.5, 0.25, 0.25]])
def test_shares_of_another_number_or_sum_are_refused(shares: list[float]) -> None:
    nets = [untrained(seed) for seed in range(2)]
    with pytest.raises(ArchitectureError, match="one share of each of the 2 vertices"):
        Simplex(nets[0], nets).state_at(shares)


def test_what_is_no_simplex_is_refused() -> None:
    with pytest.raises(ArchitectureError, match="at least one vertex"):
        Simplex(untrained(0), [])
    with pytest.raises(ArchitectureError):
        Simplex(untrained(0), [untrained(0), untrained(1, width=9)])
    with pytest.raises(ArchitectureError, match="concentration"):
        Simplex(untrained(0), [untrained(0)]).draw(concentration=0)


def test_a_new_vertex_begins_beside_the_mean_and_it_alone_is_free() -> None:
    nets = [untrained(seed) for seed in range(2)]
    complex = LearnedComplex(nets, vertices=2)
    complex.grow()
    mean = (flat(nets[0]) + flat(nets[1])) / 2
    moved = (flat(complex.vertices[0]) - mean).norm() / mean.norm()
    assert 0.005 < float(moved) < 0.02
    complex.grow()
    free = [all(p.requires_grad for p in vertex.parameters()) for vertex in complex.vertices]
    assert free == [False, True]
    assert not any(p.requires_grad for p in complex.networks.parameters())
    assert float(complex.log_volume().detach()) == pytest.approx(
        math.log(cayley_menger(torch.stack([flat(n) for n in (*complex.networks, *complex.vertices)]))),
        rel=1e-4,
    )
    with pytest.raises(ArchitectureError, match="all 2 are in"):
        complex.grow()


def test_a_star_has_a_simplex_for_each_network_and_volumes_add_up() -> None:
    complex = LearnedComplex([untrained(seed) for seed in range(3)], vertices=2, kind="star")
    complex.grow()
    complex.grow()
    simplexes = complex.simplexes()
    assert [len(simplex) for simplex in simplexes] == [3, 3, 3]
    volume = sum(float(simplex.log_volume().detach().exp()) for simplex in simplexes)
    assert float(complex.log_volume().detach().exp()) == pytest.approx(volume, rel=1e-6)
    x = samples(6)[0]
    torch.testing.assert_close(complex(x, [1.0, 0.0, 0.0], simplex=2), untrained(2)(x))
    states = complex.draw_states(7, generator=torch.Generator().manual_seed(1))
    assert len(states) == 7
    assert all(state["0.weight"].requires_grad for state in states)


@pytest.mark.parametrize("options", [{"kind": "cone"}, {"vertices": 0}])
def test_what_is_no_complex_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ArchitectureError, match="Expected"):
        LearnedComplex([untrained(0)], **options)
