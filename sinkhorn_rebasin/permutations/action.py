"""The action of soft and hard permutations on the tensors of a network."""

from __future__ import annotations

import inspect
import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import Permutations, State, StateLike
from sinkhorn_rebasin.permutations.algebra import check_permutations
from sinkhorn_rebasin.permutations.completeness import check_state
from sinkhorn_rebasin.permutations.layout import Layout
from sinkhorn_rebasin.permutations.sparse_permutation import SparsePermutation, mix_sparsely
from sinkhorn_rebasin.permutations.spec import PermutationSpec, Slot


def permute_state(state: StateLike, spec: PermutationSpec, permutations: Permutations) -> State:
    r"""Carry a network to another place of its orbit.

    Every slot's axis becomes P · axis.

    .. math:: W'_l = P_l\, W_l\, P_{l-1}^\top, \qquad b'_l = P_l\, b_l

    for a chain of linear layers, and likewise for every tensor the spec names, buffers included. Nested groups
    act before the group they live in.

    Args:
        state: tensor name to tensor; what the spec does not name is passed on as it is. One name of a tied tensor is
            enough. States of parameters alone, such as moments of an optimiser, gradients or averages, may lack the
            buffers.
        permutations: per group, long indices (..., n) act by indexing; floating point matrices (..., n, n) by
            products, differentiably in both the matrices and the tensors.

    Returns:
        A new dict. Nothing in ``state`` is changed; tensors without a slot are shared with it.

    Raises:
        SpecError: when state, spec and permutations do not belong together.

    Warns:
        RebasinWarning: The state has some of the spec's buffers and lacks others, which are named.

    Example:
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> from sinkhorn_rebasin.permutations import random_permutations
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> spec = discover_symmetry(net, torch.randn(4, 3))
        >>> state = permute_state(net.state_dict(), spec, random_permutations(spec))
        >>> x = torch.randn(5, 3)
        >>> torch.allclose(torch.func.functional_call(net, state, x), net(x), atol=1e-6)
        True

    Source: Ainsworth, Hayase, Srinivasa, "Git Re-Basin" (2023); soft action: Guerrero-Peña et al. (2023).
    """
    check_state(spec, state)
    check_permutations(spec, permutations)
    return {
        name: permute_tensor(tensor, spec.slots_on(name), permutations) if spec.slots_on(name) else tensor
        for name, tensor in state.items()
    }


def permute_tensor(tensor: Tensor, slots: tuple[Slot, ...], permutations: Permutations) -> Tensor:
    """Apply the permutations of all slots on a tensor."""
    for slot in slots:
        permutation = permutations[slot.group]
        if permutation.is_floating_point():
            tensor = apply_matrices(tensor, slot, permutation)
        else:
            tensor = apply_indices(tensor, slot, permutation)
    return dense_gradient(tensor) if slots else tensor


class _DenseGradient(torch.autograd.Function):
    """Pass a tensor through; make its sparse gradient dense."""

    generate_vmap_rule = True

    @staticmethod
    def forward(tensor: Tensor) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.to_dense()

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return tangent.view_as(tangent)


class _PlainDenseGradient(torch.autograd.Function):
    """Make gradients dense outside of transforms.

    A call costs half there.
    """

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.to_dense()

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return tangent.view_as(tangent)


# PyTorch asks for it in every call, and it takes ten times as long as the rest of one.
vars(_DenseGradient.forward)["__signature__"] = inspect.signature(_DenseGradient.forward)


def dense_gradient(tensor: Tensor) -> Tensor:
    """Let only dense gradients through a tensor.

    Embeddings with ``sparse=True`` give sparse ones, which products do not take.

    >>> table = torch.zeros(3, 2, requires_grad=True)
    >>> torch.nn.functional.embedding(torch.tensor([1]), dense_gradient(table), sparse=True).sum().backward()
    >>> table.grad.is_sparse
    False
    """
    # Of the layers that PyTorch has, those whose weight is a matrix alone give sparse gradients.
    if tensor.dim() != 2 or not tensor.requires_grad:
        return tensor
    transformed = torch._C._functorch.peek_interpreter_stack() is not None
    return (_DenseGradient if transformed else _PlainDenseGradient).apply(tensor)


def apply_indices(tensor: Tensor, slot: Slot, indices: Tensor) -> Tensor:
    """Reorder the units of a slot.

    Unit i becomes what unit ``indices[i]`` was.
    """
    length = math.prod(tensor.shape[axis] for axis in slot.axes)
    layout = slot.layout
    if len(slot.axes) * layout.width * layout.blocks == 1 and layout.is_whole_axis(length):
        return tensor.index_select(slot.axes[0], indices.to(tensor.device))
    table = _table(layout)
    order = torch.arange(length, device="cpu")
    chosen = indices.detach().cpu().reshape(layout.blocks, layout.size, 1).expand_as(table)
    order[table.reshape(-1)] = table.gather(1, chosen).reshape(-1)
    if len(slot.axes) == 1:
        return tensor.index_select(slot.axes[0], order.to(tensor.device))
    flat, shape = _flatten(tensor, slot.axes)
    return _restore(flat.index_select(0, order.to(tensor.device)), slot.axes, shape)


def apply_matrices(tensor: Tensor, slot: Slot, matrices: Tensor | SparsePermutation) -> Tensor:
    r"""Mix the units of a slot by matrices.

    Unit i becomes :math:`\sum_j P_{ij}` unit j; matrices are (n, n) or (blocks, n, n), or sparse.
    """
    layout, axes = slot.layout, slot.axes
    dtype = torch.promote_types(matrices.dtype, tensor.dtype)
    tensor = tensor.to(dtype)
    length = math.prod(tensor.shape[axis] for axis in axes)
    whole = layout.is_whole_axis(length)
    if isinstance(matrices, Tensor):
        matrices = matrices.to(tensor.device, dtype)
        if whole and len(axes) == 1 and layout.blocks * layout.width == 1 and axes[0] == tensor.dim() - 1:
            return tensor @ matrices.mT
    flat, shape = _flatten(tensor, axes)
    if whole:
        mixed = _mix(matrices, flat, layout)
    else:
        positions = _table(layout).reshape(-1).to(tensor.device)
        mixed = flat.index_copy(0, positions, _mix(matrices, flat.index_select(0, positions), layout))
    return _restore(mixed, axes, shape)


def _mix(matrices: Tensor | SparsePermutation, units: Tensor, layout: Layout) -> Tensor:
    if isinstance(matrices, SparsePermutation):
        return mix_sparsely(matrices, units, layout)
    if layout.blocks == 1:
        return (matrices.reshape(layout.size, layout.size) @ units.reshape(layout.size, -1)).view_as(units)
    blocked = units.reshape(layout.blocks, layout.size, -1)
    return torch.bmm(matrices.reshape(layout.blocks, layout.size, layout.size), blocked).view_as(units)


def _flatten(tensor: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, torch.Size]:
    """Move axes to the front, read as one.

    The shape with these axes in front comes with the tensor.
    """
    front = tensor.movedim(axes, tuple(range(len(axes))))
    length = math.prod(front.shape[: len(axes)])
    return front.reshape(length, *front.shape[len(axes) :]), front.shape


def _restore(flat: Tensor, axes: tuple[int, ...], shape: torch.Size) -> Tensor:
    # In memory as its axes are, for a forward may read it with view().
    return flat.reshape(shape).movedim(tuple(range(len(axes))), axes).contiguous()


@lru_cache(maxsize=4096)
def _table(layout: Layout) -> Tensor:
    return torch.from_numpy(layout.table())


def units_first(tensor: Tensor, slot: Slot, picked: Tensor | None = None) -> Tensor:
    """The weights of each unit of a slot, (blocks, units, weights), of all units or of those picked."""
    table = torch.from_numpy(slot.layout.table()).to(tensor.device)
    table = table if picked is None else table[:, picked.to(tensor.device)]
    if len(slot.axes) == 1:
        # Picked first: to bring the axis to the front copies what is left.
        rows = tensor.index_select(slot.axes[0], table.flatten()).movedim(slot.axes[0], 0)
        return rows.reshape(*table.shape, -1).flatten(2)
    front = tensor.movedim(slot.axes, tuple(range(len(slot.axes))))
    length = math.prod(tensor.shape[axis] for axis in slot.axes)
    return front.reshape(length, -1)[table].flatten(2)
