"""Sparse soft permutations act as the matrices that they stand for."""

import pytest
import torch
from torch import Tensor

from sinkhorn_rebasin.permutations import Layout, Slot
from sinkhorn_rebasin.permutations.action import apply_matrices
from sinkhorn_rebasin.permutations.sparse_permutation import SparsePattern, SparsePermutation

SLOTS = [
    ((6, 5), Slot("a", "w", (0,), Layout(1, 6))),
    ((5, 6), Slot("a", "w", (1,), Layout(1, 6))),
    ((3, 12, 2), Slot("a", "w", (1,), Layout(1, 6, stride=2, inner=2))),
    ((9, 4), Slot("a", "w", (0,), Layout(1, 6, offset=2))),
    ((2, 6, 3), Slot("a", "w", (0, 1), Layout(2, 6, block_stride=6))),
    ((24, 2), Slot("a", "w", (0,), Layout(2, 6, block_stride=6, outer=2, outer_stride=12))),
]


def sparse(blocks: int, dtype: torch.dtype = torch.float64) -> SparsePermutation:
    """Numbers that no Sinkhorn made: the action is linear in each of them."""
    generator = torch.Generator().manual_seed(0)
    shape = (6,) if blocks == 1 else (blocks, 6)
    candidates = torch.rand(*shape, 6, generator=generator).argsort(-1)[..., :2]
    drawn = [torch.randn(*size, generator=generator, dtype=dtype) for size in ((*shape, 2), shape, shape)]
    return SparsePermutation(SparsePattern(candidates), *(part.requires_grad_() for part in drawn))


@pytest.mark.parametrize(("shape", "slot"), SLOTS)
def test_the_action_is_that_of_the_matrix_with_all_gradients(shape: tuple[int, ...], slot: Slot) -> None:
    permutation = sparse(slot.layout.blocks)
    parts = [permutation.values, permutation.left, permutation.right]
    tensor = torch.randn(
        shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True
    )
    weights = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def gradients(result: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad((result * weights).sum(), [tensor, *parts])

    found = apply_matrices(tensor, slot, permutation)
    expected = apply_matrices(tensor, slot, permutation.to_dense())
    assert torch.allclose(found, expected, atol=1e-12)
    for ours, theirs in zip(gradients(found), gradients(expected), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12)


def test_complex_units_are_mixed_as_their_parts_are() -> None:
    tensor = torch.randn(6, 3, dtype=torch.complex128, generator=torch.Generator().manual_seed(3))
    permutation, slot = sparse(1), Slot("a", "w", (0,), Layout(1, 6))
    expected = apply_matrices(tensor, slot, permutation.to_dense())
    assert torch.allclose(apply_matrices(tensor, slot, permutation), expected, atol=1e-12)


def test_another_way_to_sample_a_product_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = sparse(1).pattern
    first, second = (torch.randn(6, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    expected = (first @ second.T).gather(1, pattern.candidates)
    assert torch.allclose(pattern.sampled_product(first, second), expected, atol=1e-6)
    assert torch.allclose(pattern.gathered_product(first, second, at_once=2), expected, atol=1e-6)


def test_the_watcher_sees_what_the_gradient_is_made_of() -> None:
    seen: list[tuple[Tensor, Tensor]] = []
    plain = sparse(1)
    watched = SparsePermutation(
        plain.pattern, plain.values, plain.left, plain.right, lambda *pair: seen.append(pair)
    )
    tensor = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    apply_matrices(tensor, Slot("a", "w", (0,), Layout(1, 6)), watched).sum().backward()
    ((gradient, units),) = seen
    assert torch.equal(gradient, torch.ones_like(gradient))
    assert torch.equal(units, tensor)
    assert plain.values.grad is not None
    assert torch.allclose(plain.values.grad, (gradient @ units.T).gather(1, plain.pattern.candidates))
