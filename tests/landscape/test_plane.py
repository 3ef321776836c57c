from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sinkhorn_rebasin.errors import ArchitectureError, CheckpointError, DataError
from sinkhorn_rebasin.landscape import Plane, evaluate_plane, random_plane
from sinkhorn_rebasin.networks.architecture import tensors_of


def net(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)
        network = nn.Sequential(*layers)
        network[1].running_mean.normal_()
        return network.eval()


def batches(count: int = 2) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(7)
    return [
        (torch.randn(6, 1, 4, generator=generator), torch.randint(2, (6,), generator=generator))
        for _ in range(count)
    ]


def flat(network: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().double().flatten() for parameter in network.parameters()])


def test_networks_lie_in_their_plane_at_their_marks() -> None:
    nets = {name: net(seed) for seed, name in enumerate(("reference", "target", "aligned"))}
    plane = Plane.through(nets)
    for name, network in nets.items():
        state = plane.state_at(*plane.marks[name])
        for key, tensor in network.state_dict().items():
            torch.testing.assert_close(state[key], tensor, rtol=1e-5, atol=1e-6)
        x, y, distance = plane.coordinates(network)
        assert (x, y, distance) == pytest.approx((*plane.marks[name], 0.0), abs=1e-5)


def test_distances_in_the_plane_are_those_of_weights() -> None:
    nets = [net(seed) for seed in range(3)]
    plane = Plane.through(dict(zip("abc", nets, strict=True)))
    marks = [torch.tensor(plane.marks[name]) for name in "abc"]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        expected = float((flat(nets[i]) - flat(nets[j])).norm())
        assert float((marks[i] - marks[j]).norm()) == pytest.approx(expected, rel=1e-5)
    # Of a network outside, the square on the shortest way is what Pythagoras leaves.
    x, y, distance = plane.coordinates(net(9))
    assert x * x + y * y + distance**2 == pytest.approx(
        float((flat(net(9)) - flat(nets[0])).square().sum()), rel=1e-6
    )


def test_losses_of_the_grid_are_those_of_networks() -> None:
    nets = [net(seed) for seed in range(3)]
    plane = Plane.through(dict(zip("abc", nets, strict=True)))
    evaluation = evaluate_plane(plane, batches(), points=4, margin=0.0)
    x, y = (torch.cat(part) for part in zip(*batches(), strict=True))
    with torch.no_grad():
        corner = F.cross_entropy(nets[0](x), y).item()
        for row, column in ((1, 2), (3, 0)):
            state = plane.state_at(float(evaluation.x[column]), float(evaluation.y[row]))
            twin = net(0)
            twin.load_state_dict(state)
            assert float(evaluation.losses[row, column]) == pytest.approx(
                F.cross_entropy(twin(x), y).item(), rel=1e-5
            )
    low = [i for i in range(4) if abs(float(evaluation.x[i])) < 1e-9]
    if low:
        assert float(evaluation.losses[0, low[0]]) == pytest.approx(corner, rel=1e-5)
    assert evaluation.accuracies is not None
    assert evaluation.accuracies.shape == (4, 4)


def test_filters_of_a_random_direction_are_as_long_as_the_networks() -> None:
    network = net(0)
    plane = random_plane(network)
    first, second = plane.directions
    weight = network[0].weight.detach().double()
    own, drawn = (tensor.flatten(1).norm(dim=1) for tensor in (weight, first["0.weight"]))
    torch.testing.assert_close(drawn / drawn[0], own / own[0], rtol=1e-6, atol=1e-6)
    assert not first["0.bias"].any()
    assert not first["1.weight"].any()
    products = sum(float((first[name] * second[name]).sum()) for name in first)
    assert products == pytest.approx(0.0, abs=1e-9)
    torch.testing.assert_close(plane.state_at(0.0, 0.0), tensors_of(network))


def test_an_evaluation_goes_on_where_it_was_stopped(tmp_path: Path) -> None:

    plane = Plane.through({name: net(seed) for seed, name in enumerate("abc")})
    whole = evaluate_plane(plane, batches(), points=3)
    file, calls = tmp_path / "rows.json", []

    def stopping(network: nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return state

    with pytest.raises(KeyboardInterrupt):
        evaluate_plane(plane, batches(), points=3, keep=file, prepare=stopping)
    assert len(calls) == 5
    resumed = evaluate_plane(plane, batches(), points=3, keep=file, prepare=stopping)
    assert len(calls) == 5 + 6
    torch.testing.assert_close(resumed.losses, whole.losses)
    with pytest.raises(CheckpointError, match="plane and grid"):
        evaluate_plane(plane, batches(), points=4, keep=file)
    file.write_text("[]")
    with pytest.raises(CheckpointError, match="another file"):
        evaluate_plane(plane, batches(), points=3, keep=file)


def test_nothing_is_changed() -> None:
    nets = {name: net(seed) for seed, name in enumerate("abc")}
    before = [tensor.clone() for network in nets.values() for tensor in network.state_dict().values()]
    random = torch.get_rng_state()
    evaluate_plane(Plane.through(nets), batches(), points=2)
    random_plane(nets["a"])
    after = [tensor for network in nets.values() for tensor in network.state_dict().values()]
    assert all(map(torch.equal, before, after))
    assert torch.equal(random, torch.get_rng_state())


def test_bad_planes_are_named() -> None:
    first, last = net(0), net(1)
    middle = {name: (first.state_dict()[name] + last.state_dict()[name]) / 2 for name in first.state_dict()}
    with pytest.raises(ArchitectureError, match="three networks"):
        Plane.through({"a": first, "b": last})
    with pytest.raises(ArchitectureError, match="'c' lies on that through 'a' and 'b'"):
        Plane.through({"a": first, "b": last, "c": middle})
    with pytest.raises(ArchitectureError, match="'a' and 'b' to differ"):
        Plane.through({"a": first, "b": net(0), "c": last})
    with pytest.raises(ArchitectureError, match="'a', to be a module"):
        Plane.through({"a": middle, "b": first, "c": last})
    plane = Plane.through({"a": first, "b": last, "c": net(2)})
    with pytest.raises(DataError, match="at least one batch"):
        evaluate_plane(plane, [])
    with pytest.raises(DataError, match="2 points"):
        evaluate_plane(plane, batches(), points=1)
