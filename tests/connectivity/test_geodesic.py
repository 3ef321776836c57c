from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.connectivity import GeodesicPath
from sinkhorn_rebasin.connectivity.geodesic import unit_angles
from sinkhorn_rebasin.errors import ArchitectureError, SpecError
from sinkhorn_rebasin.permutations import Layout, Slot
from sinkhorn_rebasin.permutations.rescaling import ScaleSymmetry
from tests.front.pairs import batches, trained, untrained


def path_of(start: nn.Module, end: nn.Module, x: torch.Tensor) -> GeodesicPath:
    return GeodesicPath.between(start, end, sr.discover_symmetry(start, x), example_inputs=x)


def rows(state: dict[str, torch.Tensor], layer: str) -> torch.Tensor:
    return torch.cat([state[f"{layer}.weight"].flatten(1), state[f"{layer}.bias"][:, None]], dim=1).double()


def test_both_ends_compute_what_the_networks_do_and_units_stay_on_their_spheres() -> None:
    start, end, x = untrained(0), untrained(1), torch.randn(9, 2)
    before = [tensor.clone() for net in (start, end) for tensor in net.state_dict().values()]
    path = path_of(start, end, x)
    torch.testing.assert_close(path(x, at=0.0), start(x))
    torch.testing.assert_close(path(x, at=1.0), end(x))
    for at in (0.0, 0.2, 0.5, 0.9):
        for layer in ("0", "2"):
            norms = rows(path.state_at(at), layer).norm(dim=1)
            torch.testing.assert_close(norms, torch.ones_like(norms), rtol=1e-5, atol=1e-6)
    assert all(map(torch.equal, before, (t for net in (start, end) for t in net.state_dict().values())))


def test_units_turn_evenly_along_the_great_arc_and_the_distance_is_that_of_all_angles() -> None:
    path = path_of(untrained(0), untrained(1), torch.randn(9, 2))
    total = 0.0
    for layer in ("0", "2"):
        whole = torch.arccos((rows(path.start, layer) * rows(path.end, layer)).sum(1))
        part = torch.arccos((rows(path.start, layer) * rows(path.state_at(0.3), layer)).sum(1))
        torch.testing.assert_close(part, 0.3 * whole, rtol=1e-4, atol=1e-5)
        total += float(whole.square().sum())
    assert path.distance == pytest.approx(total**0.5, rel=1e-5)
    # The last layer keeps all scale and moves on the segment.
    mean = (path.start["4.weight"] + path.end["4.weight"]) / 2
    torch.testing.assert_close(path.state_at(0.5)["4.weight"], mean)


def test_halfway_units_point_where_they_do_on_the_segment_and_are_longer() -> None:
    path = path_of(untrained(0), untrained(1), torch.randn(9, 2))
    segment = sr.LinearPath(untrained(0), path.start, path.end)
    for layer in ("0", "2"):
        angles = torch.arccos((rows(path.start, layer) * rows(path.end, layer)).sum(1))
        straight = rows(segment.state_at(0.5), layer)
        stretched = straight / (angles / 2).cos()[:, None]
        torch.testing.assert_close(rows(path.state_at(0.5), layer), stretched, rtol=1e-4, atol=1e-5)


def test_networks_that_differ_by_scales_alone_are_one_point() -> None:
    start, x = untrained(0), torch.randn(9, 2)
    spec = sr.discover_symmetry(start, x)
    rescaling = sr.discover_rescaling(start, spec, x, signs=False)
    scales = {name: torch.randn(1, 8) for name in spec.names}
    scaled = sr.rescale_state(start.state_dict(), spec, rescaling, scales)
    path = GeodesicPath.between(start, scaled, spec, rescaling)
    assert path.distance < 1e-5
    torch.testing.assert_close(path(x, at=0.4), start(x), rtol=1e-4, atol=1e-5)
    segment = sr.LinearPath.between(start, scaled)
    assert not torch.allclose(segment(x, at=0.4), start(x), atol=1e-2)


def conv(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    layers = (
        nn.Conv1d(1, 4, 3),
        nn.BatchNorm1d(4),
        nn.ReLU(),
        nn.Conv1d(4, 5, 3),
        nn.BatchNorm1d(5),
        nn.ReLU(),
    )
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(20, 3))
    with torch.no_grad():
        for norm in (net[1], net[4]):
            for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                tensor.add_(torch.rand(len(tensor)))
    return net.eval()


def test_filters_before_batch_norm_move_on_their_own_spheres() -> None:
    start, end, x = conv(0), conv(1), torch.randn(6, 1, 8)
    path = path_of(start, end, x)
    torch.testing.assert_close(path(x, at=0.0), start(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(path(x, at=1.0), end(x), rtol=1e-4, atol=1e-5)
    middle = path.state_at(0.5)
    for name, norm in (("0.weight", "1"), ("3.weight", "4")):
        torch.testing.assert_close(middle[name].flatten(1).norm(dim=1), torch.ones(len(middle[name])))
        gain = torch.stack([middle[f"{norm}.weight"], middle[f"{norm}.bias"]])
        torch.testing.assert_close(gain.norm(dim=0), torch.ones(len(middle[name])))
    batches = [(x, torch.randint(3, (6,)))]
    measured = sr.evaluate_path(path, batches, points=3, prepare=sr.BatchNormReset([x]))
    network = path.module_at(0.5).train()
    with torch.no_grad():
        plain = nn.functional.cross_entropy(network(x), batches[0][1])
    # Statistics of the batch are what the reset measures, but for the unbiased variance.
    assert float(measured.losses[1]) == pytest.approx(float(plain), rel=0.05)


def test_it_is_evaluated_like_every_path_and_the_position_is_differentiable() -> None:
    path = path_of(trained(0), trained(1), torch.randn(9, 2))
    found = sr.evaluate_path(path, batches(), points=5)
    ends = [sr.evaluate_path((net, net), batches(), points=3).losses[0] for net in (trained(0), trained(1))]
    torch.testing.assert_close(found.losses[[0, -1]], torch.stack(ends), rtol=1e-4, atol=1e-6)
    at = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(path.state_at(at)["0.weight"][0, 0].double(), at)
    near = [float(path.state_at(0.3 + step)["0.weight"][0, 0]) for step in (-1e-2, 1e-2)]
    assert float(slope) == pytest.approx((near[1] - near[0]) / 2e-2, rel=1e-2)


def test_dead_and_opposite_units_move_on_the_segment() -> None:
    start, end, x = untrained(0), untrained(1), torch.randn(9, 2)
    with torch.no_grad():
        for tensor in (start[0].weight, start[0].bias):
            tensor[0] = 0
        for mine, theirs in zip(start[0].parameters(), end[0].parameters(), strict=True):
            theirs[1] = -mine[1]
    spec = sr.discover_symmetry(untrained(2), x)
    rescaling = sr.discover_rescaling(untrained(2), spec, x, signs=False)
    path = GeodesicPath.between(start, end, spec, rescaling)
    middle = path.state_at(0.5)["0.weight"]
    torch.testing.assert_close(middle[:2], (path.start["0.weight"] + path.end["0.weight"])[:2] / 2)
    assert not torch.allclose(middle[2:], (path.start["0.weight"] + path.end["0.weight"])[2:] / 2)


def test_tied_weights_move_as_one() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into, self.again = nn.Linear(3, 5), nn.Linear(3, 5)
            self.again.weight, self.again.bias = self.into.weight, self.into.bias
            self.out = nn.Linear(5, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.into(x).relu() + self.again(x.flip(1)).relu())

    torch.manual_seed(0)
    start, end, x = Tied(), Tied(), torch.randn(4, 3)
    path = path_of(start, end, x)
    state = path.state_at(0.5)
    assert torch.equal(state["into.weight"], state["again.weight"])
    assert path.distance > 0.1
    torch.testing.assert_close(path(x, at=1.0), end(x))


def test_what_does_not_belong_together_is_refused() -> None:
    net, x = untrained(0), torch.randn(9, 2)
    spec = sr.discover_symmetry(net, x)
    with pytest.raises(ArchitectureError, match="neither"):
        GeodesicPath.between(net, untrained(1), spec)
    with pytest.raises(ArchitectureError):
        GeodesicPath.between(net, untrained(1, width=9), spec, example_inputs=x)
    twice = tuple(
        ScaleSymmetry(name, "positive", ((sr.Slot(name, "2.weight", (axis,), Layout(1, 8)), 1),))
        for axis, name in enumerate(spec.names)
    )
    with pytest.raises(SpecError, match=r"'2\.weight' is in those of two"):
        GeodesicPath.between(net, untrained(1), spec, sr.RescalingSpec(tuple(spec.names), twice))


def test_angles_of_complex_units_are_those_of_pairs_of_numbers() -> None:
    rows = ScaleSymmetry("g", "positive", ((Slot("w", "w", (0,), Layout(1, 2)), 1),))
    one, other = {"w": torch.tensor([[1.0 + 0j], [1 + 1j]])}, {"w": torch.tensor([[2j], [3 + 0j]])}
    angles = unit_angles(one, other, rows).tolist()
    assert angles == pytest.approx([math.pi / 2, math.pi / 4])
