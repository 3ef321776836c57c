"""Many score matrices at once give what each gives alone."""

from __future__ import annotations

import torch

from sinkhorn_rebasin.assignment import sinkhorn, sinkhorn_by_size
from sinkhorn_rebasin.assignment.batched import LARGEST_BATCHED_SIZE


def test_batched_results_and_gradients_are_those_of_each_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    wide = LARGEST_BATCHED_SIZE + 1
    shapes = {"a": (5, 5), "b": (3, 5, 5), "c": (7, 7), "d": (5, 5), "e": (wide, wide)}
    scores = {
        name: torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        for name, shape in shapes.items()
    }
    start = {name: torch.zeros_like(value[..., 0]) for name, value in scores.items()}
    found = sinkhorn_by_size(scores, 0.5, tolerance=1e-10, initial_scalings=start)
    assert list(scores) == sorted(found)
    for name, value in scores.items():
        alone = sinkhorn(value, 0.5, tolerance=1e-10)
        torch.testing.assert_close(found[name].matrix, alone.matrix, rtol=0, atol=1e-8)
        assert found[name].marginal_error.shape == value.shape[:-2]
        assert found[name].column_scaling.shape == value.shape[:-1]
        weight = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        one, two = (
            torch.autograd.grad((result.matrix * weight).sum(), value, retain_graph=True)[0]
            for result in (found[name], alone)
        )
        torch.testing.assert_close(one, two, rtol=0, atol=1e-6)
