from __future__ import annotations

import pytest
import torch
from torch import nn

from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.landscape import evaluate_plane, trajectory_plane
from tests.landscape.test_plane import batches, flat, net


def run(count: int = 6) -> list[nn.Module]:
    """A trajectory in three dimensions, one of them small."""
    generator, begin = torch.Generator().manual_seed(0), net(0)
    directions = [[torch.randn(p.shape, generator=generator) for p in begin.parameters()] for _ in range(3)]
    checkpoints = []
    for step in range(count):
        each, at = net(0), step / (count - 1)
        each[1].running_mean.fill_(step)
        with torch.no_grad():
            for k, sizes in enumerate(((1 - at), (1 - at) ** 2, 0.05 * (step % 2))):
                for parameter, part in zip(each.parameters(), directions[k], strict=True):
                    parameter.add_(sizes * part)
        checkpoints.append(each)
    return checkpoints


def test_directions_and_shares_are_those_of_singular_vectors() -> None:
    checkpoints = run()
    plane = trajectory_plane(checkpoints[-1], checkpoints)
    matrix = torch.stack([flat(each) - flat(checkpoints[-1]) for each in checkpoints[:-1]])
    _, sizes, vectors = torch.linalg.svd(matrix, full_matrices=False)
    names = [name for name, _ in checkpoints[0].named_parameters()]
    for k in (0, 1):
        ours = torch.cat([plane.directions[k][name].flatten() for name in names])
        assert float((ours @ vectors[k]).abs()) == pytest.approx(1.0, rel=1e-6)
        assert plane.explained[k] == pytest.approx(float(sizes[k] ** 2 / sizes.square().sum()), rel=1e-5)
    for number, each in enumerate(checkpoints):
        x, y, _ = plane.coordinates(each)
        assert plane.marks[str(number)] == pytest.approx((x, y), abs=1e-4)
    assert min(plane.marks["0"]) >= 0


def test_the_last_network_is_exact_and_buffers_are_those_of_the_nearest() -> None:
    checkpoints = run()
    plane = trajectory_plane(checkpoints[-1], {f"epoch {k}": each for k, each in enumerate(checkpoints)})
    state = plane.state_at(0.0, 0.0)
    for name, tensor in checkpoints[-1].state_dict().items():
        torch.testing.assert_close(state[name], tensor)
    begin = plane.state_at(*plane.marks["epoch 0"])
    assert float(begin["1.running_mean"][0]) == 0
    picture = evaluate_plane(plane, batches(), points=3)
    assert list(picture.marks) == [f"epoch {k}" for k in range(6)]


def test_runs_that_span_no_plane_are_refused() -> None:
    checkpoints = run()
    with pytest.raises(ArchitectureError, match="at least three"):
        trajectory_plane(checkpoints[0], checkpoints[:2])
    line = [net(0) for _ in range(4)]
    with torch.no_grad():
        for step, each in enumerate(line):
            each[4].weight.mul_(1 + step)
    with pytest.raises(ArchitectureError, match="not on one line"):
        trajectory_plane(line[0], line)
    with pytest.raises(ArchitectureError):
        trajectory_plane(nn.Linear(3, 2), checkpoints)
