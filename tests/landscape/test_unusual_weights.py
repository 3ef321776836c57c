from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sinkhorn_rebasin.connectivity import BezierPath, LinearPath, Simplex
from sinkhorn_rebasin.landscape import Plane, evaluate_plane, local_energy, random_plane, trajectory_plane
from tests.unusual_weights import Counting, Tied, Waves, real_numbers, seeded


def samples(kind: type[nn.Module]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(7, (20, 3), generator=generator)
    return tokens if kind is Tied else torch.randn(20, 2, generator=generator), tokens[:, 0] % 4


@pytest.mark.parametrize("kind", [Tied, Waves, Counting])
def test_the_plane_is_that_of_the_real_numbers(kind: type[nn.Module]) -> None:
    nets = {name: seeded(kind, seed) for seed, name in enumerate("abc")}
    plane, own = Plane.through(nets), {name: real_numbers(net) for name, net in nets.items()}
    marks = {name: torch.tensor(mark) for name, mark in plane.marks.items()}
    for one, other in ("ab", "bc", "ca"):
        expected = float((own[one] - own[other]).norm())
        assert float((marks[one] - marks[other]).norm()) == pytest.approx(expected, rel=1e-5)
    twin, (x, y) = seeded(kind, 9), samples(kind)
    for place, expected in (
        (marks["c"], own["c"]),
        ((marks["b"] + marks["c"]) / 2, (own["b"] + own["c"]) / 2),
    ):
        state = plane.state_at(*place.tolist())
        twin.load_state_dict(state)  # strict: every name is there
        torch.testing.assert_close(real_numbers(twin), expected, rtol=1e-5, atol=1e-6)
        assert all(torch.equal(state[name], value) for name, value in twin.state_dict().items())
    assert plane.coordinates(nets["c"]) == pytest.approx((*plane.marks["c"], 0.0), abs=1e-3)
    found = evaluate_plane(plane, [(x, y)], points=2, margin=0.1)
    twin.load_state_dict(plane.state_at(float(found.x[1]), float(found.y[0])))
    assert float(found.losses[0, 1]) == pytest.approx(F.cross_entropy(twin(x), y).item(), rel=1e-5)


@pytest.mark.parametrize("kind", [Tied, Waves, Counting])
def test_a_trajectory_of_three_lies_in_its_plane(kind: type[nn.Module]) -> None:
    nets = [seeded(kind, seed) for seed in range(3)]
    plane = trajectory_plane(nets[0], nets)
    assert sum(plane.explained) == pytest.approx(1.0)
    twin = seeded(kind, 9)
    for name, net in zip(plane.marks, nets, strict=True):
        twin.load_state_dict(plane.state_at(*plane.marks[name]))
        torch.testing.assert_close(real_numbers(twin), real_numbers(net), rtol=1e-5, atol=1e-5)


def test_random_filters_of_complex_weights_are_complex_and_as_long() -> None:
    network = seeded(Waves, 0)
    first = random_plane(network).directions[0]
    own, drawn = (each.detach().abs().square().sum(1).sqrt() for each in (network.waves, first["waves"]))
    torch.testing.assert_close(drawn / drawn[0], (own / own[0]).double(), rtol=1e-5, atol=0)
    assert bool((first["waves"].real != 0).all() and (first["waves"].imag != 0).all())


def test_imaginary_weights_are_shaken() -> None:
    network, (x, _) = seeded(Waves, 0), samples(Waves)
    y = network(x).argmax(1)
    found = local_energy(network, [(x, y)], scales=(2.0,), draws=1)
    generator, moved = torch.Generator().manual_seed(0), {}
    for name, tensor in network.named_parameters():
        pairs = torch.view_as_real(tensor.detach()) if tensor.is_complex() else tensor.detach()
        noise = torch.randn(pairs.shape, generator=generator, dtype=torch.float64)
        shaken = (pairs * (1 + 2 * noise)).to(pairs.dtype)
        moved[name] = torch.view_as_complex(shaken) if tensor.is_complex() else shaken
    expected = (torch.func.functional_call(network, moved, (x,)).argmax(1) != y).double().mean()
    assert float(expected) > 0
    torch.testing.assert_close(found[0], expected)


@pytest.mark.parametrize("dropped", ["words.weight", "out.weight"])
def test_files_that_name_a_tied_tensor_once_are_read(dropped: str) -> None:
    nets = [seeded(Tied, seed) for seed in range(3)]
    once = {name: tensor for name, tensor in nets[2].state_dict().items() if name != dropped}
    whole = Plane.through({"a": nets[0], "b": nets[1], "c": nets[2]})
    assert Plane.through({"a": nets[0], "b": nets[1], "c": once}).marks == whole.marks
    assert trajectory_plane(nets[0], [*nets[:2], once]).marks == trajectory_plane(nets[0], nets).marks
    joined = Simplex(nets[0], [nets[1], once]).state_at([0.5, 0.5])
    assert all(
        torch.equal(tensor, joined[name])
        for name, tensor in Simplex(nets[0], nets[1:]).state_at([0.5, 0.5]).items()
    )
    bent = BezierPath(nets[0], nets[0], nets[1], once), LinearPath(nets[0], nets[0], once)
    known = BezierPath(nets[0], *nets), LinearPath(nets[0], nets[0], nets[2])
    for path, expected in zip(bent, known, strict=True):
        state, wanted = path.state_at(0.25), expected.state_at(0.25)
        assert state.keys() == wanted.keys()
        assert all(torch.equal(tensor, state[name]) for name, tensor in wanted.items())
