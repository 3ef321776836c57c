"""Weights between a softly permuted network and another one, and the gradient for the permutations, by products."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sinkhorn_rebasin._typing import State, StateLike
from sinkhorn_rebasin.permutations.laid_out_weight import LaidOutWeight, laid_out_weight
from sinkhorn_rebasin.permutations.spec import PermutationSpec

_MULTIPLIED: dict[int, tuple[Callable[..., Tensor], tuple[int, ...]]] = {
    2: (F.linear, ()),
    3: (F.conv1d, (1,)),
    4: (F.conv2d, (1, 1)),
    5: (F.conv3d, (1, 1, 1)),
}
"""By axes of a weight what multiplies with it, and the places of a kernel that has one."""


class MergedWeights:
    r"""Mix a softly permuted network with another.

    .. math:: W(\lambda) = (1 - \lambda)\, P\, T\, Q^\top + \lambda R, \qquad
        \tfrac{\partial L}{\partial P} = (1 - \lambda)\, G\, Q\, T^\top, \quad
        \tfrac{\partial L}{\partial Q} = (1 - \lambda)\, G^\top P\, T

    with G the gradient of W. Autograd sees the matrices and the mixed weights, and nothing between. Products are in
    the precision of the matrices, also under autocast: in bfloat16 the gradients of scores changed by 0.1 to 0.4 %,
    with the uniform part of P kept apart by hardly less.

    Args:
        target, reference: tensor name to tensor.
        spec: the slots that the matrices act on.
        names: tensors that are mixed; those of other forms are left out, see :attr:`names`.
        dtype: of the matrices; tensors of another type are left out.

    Example:
        >>> from sinkhorn_rebasin.permutations import Group, Layout, Slot
        >>> spec = PermutationSpec((Group("a", 2),), (Slot("a", "w", (0,), Layout(1, 2)),), {"w": (2, 1)})
        >>> target, reference = {"w": torch.tensor([[2.0], [4.0]])}, {"w": torch.zeros(2, 1)}
        >>> merged = MergedWeights(target, reference, spec, ["w"], torch.float32)
        >>> merged({"a": torch.tensor([[0.0, 1.0], [1.0, 0.0]])}, 0.5)["w"].tolist()
        [[2.0], [1.0]]
    """

    def __init__(
        self,
        target: StateLike,
        reference: StateLike,
        spec: PermutationSpec,
        names: Iterable[str],
        dtype: torch.dtype,
    ) -> None:
        self.weights: dict[str, LaidOutWeight] = {}
        for name in names:
            weight = laid_out_weight(target[name], reference[name], spec.slots_on(name), dtype)
            if weight is not None:
                self.weights[name] = weight
        self.groups = list(dict.fromkeys(group for w in self.weights.values() for group in w.groups))

    @property
    def names(self) -> list[str]:
        """Name the tensors that are mixed here."""
        return list(self.weights)

    def part(self, names: Iterable[str]) -> MergedWeights:
        """Return the same of some tensors alone."""
        part = copy.copy(self)
        part.weights = {name: self.weights[name] for name in names}
        part.groups = list(dict.fromkeys(group for w in part.weights.values() for group in w.groups))
        return part

    def rows_multiplied(self, name: str) -> int:
        r"""Count the rows up to which products are cheaper.

        That is :meth:`product` beside a weight (n, k, ...) that is formed.

        A training step that forms a weight with a places for each pair of units takes :math:`2 n^2 k a`
        multiplications for P, :math:`2 n k^2 a` for Q and :math:`n k^2 a` more for both. One that multiplies takes
        :math:`3 n^2`, :math:`3 k^2` and :math:`n k a` more for each row. A quarter is left for what else is done
        with a row. None of a vector.
        """
        weight = self.weights[name]
        if len(weight.order) < 2:
            return 0
        n, k, *kernel = self.in_network(name).shape
        places = math.prod(kernel)
        first, second = n * n * (weight.rows_group is not None), k * k * (weight.columns_group is not None)
        formed = places * (2 * first * k + 2 * n * second + n * second * (len(weight.groups) == 2))
        return int(0.75 * formed / (3 * first + 3 * second + n * k * places))

    def in_network(self, name: str) -> Tensor:
        """Return the target's tensor as its network has it."""
        return self.weights[name].viewed(self.weights[name].target)

    def takes_bias(self, name: str, bias: str) -> bool:
        """Tell whether a bias moves as a weight's rows."""
        return bias in self.weights and self.weights[bias].groups == (self.weights[name].rows_group,)

    def product(
        self,
        name: str,
        matrices: Mapping[str, Tensor],
        at: float,
        inputs: Tensor,
        bias: str | None = None,
        *how: Any,
    ) -> Tensor:
        r"""Multiply inputs with a weight that is not formed.

        Inputs are (..., k), the mixed weight is (n, k), and a bias (n) is added likewise.

        .. math:: x\, W(\lambda)^\top + b(\lambda) =
            (1 - \lambda)\, (x\, Q\, T^\top + b_T)\, P^\top + \lambda\, (x\, R^\top + b_R)

        Convolutions, of inputs (batch, k, ...), likewise: matrices are those of one place. ``how`` are their strides
        and paddings.

        Example:
            >>> from sinkhorn_rebasin.permutations import Group, Layout, Slot
            >>> spec = PermutationSpec((Group("a", 2),), (Slot("a", "w", (0,), Layout(1, 2)),), {"w": (2, 1)})
            >>> target, reference = {"w": torch.tensor([[2.0], [4.0]])}, {"w": torch.zeros(2, 1)}
            >>> merged = MergedWeights(target, reference, spec, ["w"], torch.float32)
            >>> matrices = {"a": torch.tensor([[0.0, 1.0], [1.0, 0.0]])}
            >>> merged.product("w", matrices, 0.5, torch.tensor([[1.0]])).tolist()
            [[2.0, 1.0]]
        """
        weight = self.weights[name]
        target, reference = None, None
        if bias is not None:
            target, reference = self.weights[bias].target.flatten(), self.weights[bias].reference.flatten()
        ends = weight.rows_group, weight.columns_group
        rows, columns = (None if group is None else matrices[group] for group in ends)
        multiplied, one = _MULTIPLIED[len(weight.order)]
        first, second = (weight.restored(tensor) for tensor in (weight.target, weight.reference))
        moved = inputs if columns is None else multiplied(inputs, columns.mT.reshape(*columns.shape, *one))
        moved = multiplied(moved, first, target, *how)
        moved = moved if rows is None else multiplied(moved, rows.reshape(*rows.shape, *one))
        return torch.lerp(moved, multiplied(inputs, second, reference, *how), at)

    def __call__(self, matrices: Mapping[str, Tensor], at: float) -> State:
        """Return the tensors at λ, differentiable in the matrices (n, n) of each group."""
        given = [matrices[name] for name in self.groups]
        mixed = _Mixed.apply(self, at, *given) if given else ()
        return dict(zip(self.weights, mixed, strict=False))


def _half(weight: LaidOutWeight, matrices: Mapping[str, Tensor]) -> Tensor:
    """Return P T."""
    wide = weight.target.reshape(len(weight.target), -1)
    return (matrices[weight.groups[0]] @ wide).reshape(weight.target.shape)


class _Mixed(torch.autograd.Function):
    """Return the mixed weights, and P T of those with two groups.

    The gradient of the weights becomes that of the matrices by products.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(form: MergedWeights, at: float, *matrices: Tensor) -> tuple[Tensor, ...]:
        """Mix every weight by one product a group."""
        given = dict(zip(form.groups, matrices, strict=True))
        mixed, halves = [], []
        with torch.autocast(matrices[0].device.type, enabled=False):
            for weight in form.weights.values():
                first = given[weight.groups[0]]
                if len(weight.groups) == 1:
                    found = torch.addmm(weight.reference, first, weight.target, beta=at, alpha=1 - at)
                else:
                    half = _half(weight, given)
                    halves.append(half)
                    flat, second = half.reshape(-1, half.shape[-1]), given[weight.groups[1]]
                    reference = weight.reference.reshape(flat.shape)
                    found = torch.addmm(reference, flat, second.mT, beta=at, alpha=1 - at)
                mixed.append(weight.restored(found))
        return *mixed, *halves

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Save the matrices and P T."""
        ctx.form, ctx.at, *matrices = inputs
        halves = output[len(ctx.form.weights) :]
        ctx.mark_non_differentiable(*halves)
        ctx.save_for_backward(*matrices, *halves)
        ctx.save_for_forward(*matrices)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient of every matrix."""
        form, saved = ctx.form, ctx.saved_tensors
        given = dict(zip(form.groups, saved[: len(form.groups)], strict=True))
        halves = iter(saved[len(form.groups) :])
        total: dict[str, Tensor] = {}

        def add(name: str, part: Tensor) -> None:
            total[name] = total[name] + part if name in total else part

        with torch.autocast(saved[0].device.type, enabled=False):
            for weight, gradient in zip(form.weights.values(), gradients, strict=False):
                # Embeddings may give sparse gradients, which products do not take.
                slope = weight.laid_out(gradient.to_dense() if gradient.is_sparse else gradient)
                wide = weight.target.reshape(len(slope), -1)
                if len(weight.groups) == 2:
                    half = next(halves)
                    half = _half(weight, given) if torch.is_grad_enabled() else half
                    tall = slope.reshape(-1, slope.shape[-1])
                    add(weight.groups[1], tall.mT @ half.reshape(tall.shape))
                    slope = tall @ given[weight.groups[1]]
                add(weight.groups[0], slope.reshape(len(wide), -1) @ wide.mT)
        return None, None, *((1 - ctx.at) * total[name] for name in form.groups)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor | None, ...]:
        """Return the derivative along tangents of the matrices."""
        form = ctx.form
        given = dict(zip(form.groups, ctx.saved_tensors, strict=True))
        pairs = zip(form.groups, ctx.saved_tensors, tangents[2:], strict=True)
        moving = {name: torch.zeros_like(m) if tangent is None else tangent for name, m, tangent in pairs}
        changes = []
        for weight in form.weights.values():
            change = _half(weight, moving)
            if len(weight.groups) == 2:
                second = given[weight.groups[1]], moving[weight.groups[1]]
                change = change @ second[0].mT + _half(weight, given) @ second[1].mT
            changes.append(weight.restored((1 - ctx.at) * change))
        two_sided = sum(len(weight.groups) == 2 for weight in form.weights.values())
        return *changes, *([None] * two_sided)
