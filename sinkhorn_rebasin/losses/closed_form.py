"""Data-free losses as one function of the soft permutations, with its gradient in closed form."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import StateLike
from sinkhorn_rebasin.losses.weight_products import OneSide, Picked, TwoSides, square
from sinkhorn_rebasin.networks.architecture import real_view
from sinkhorn_rebasin.permutations import PermutationSpec
from sinkhorn_rebasin.permutations.action import permute_tensor, units_first
from sinkhorn_rebasin.permutations.matrix_form import between, has_two_sides
from sinkhorn_rebasin.permutations.units_of_slots import filled


class ClosedForm:
    r"""Evaluate a data-free loss and its gradient by matrix products.

    .. math:: \lVert \pi_P(\theta_T) - \theta_R \rVert^2 \qquad\text{or}\qquad
        \lVert \theta_T \rVert^2 + \lVert \theta_R \rVert^2 - 2 \langle \pi_P(\theta_T), \theta_R \rangle

    No graph through the weights is built, and what does not depend on P is computed once. Tensors that more than two
    groups move, or blocks of one, are differentiated by autograd.

    Args:
        target, reference: tensor name to tensor, at least in single precision, without infinite numbers.
        spec: the slots that the matrices act on.
        names: the tensors that count.
        dtype: of the products.
        bilinear: which of the two.
    """

    def __init__(
        self,
        target: StateLike,
        reference: StateLike,
        spec: PermutationSpec,
        names: Iterable[str],
        dtype: torch.dtype,
        bilinear: bool,
    ) -> None:
        self.spec, self.bilinear, self.constant, self.elements = spec, bilinear, 0.0, 0
        self.two_sides: list[TwoSides] = []
        self.rest: dict[str, tuple[Tensor, Tensor]] = {}
        alone: dict[str, tuple[list[Tensor], list[Tensor]]] = defaultdict(lambda: ([], []))
        for name in names:
            first, second = real_view(target[name]).to(dtype), real_view(reference[name]).to(dtype)
            slots = sorted(spec.slots_on(name), key=lambda slot: slot.axes)
            self.elements += first.numel()
            if not slots:
                self.constant += square(first - second)
            elif len(slots) == 1:
                pair = units_first(first, slots[0]), units_first(second, slots[0])
                for kept, units in zip(alone[slots[0].group], pair, strict=True):
                    kept.append(units)
                if pair[0].numel() < first.numel():
                    self.constant += square(filled(first - second, slots[0], 0.0))
            elif has_two_sides(spec.shapes[name], slots):
                arranged = (between(tensor, *slots) for tensor in (first, second))
                self.two_sides.append(TwoSides(slots[0].group, slots[1].group, *arranged))
                self.constant += bilinear * (square(first) + square(second))
            else:
                self.rest[name] = first, second
                self.constant += bilinear * (square(first) + square(second))
        self.one_side = [OneSide.of(name, *pair, bilinear) for name, pair in alone.items()]
        self.constant += bilinear * sum(one.constant for one in self.one_side)
        self.dtype = dtype

    @property
    def groups(self) -> list[str]:
        """Name the groups whose matrices have a gradient in closed form."""
        sides = [each.group for each in self.one_side]
        return list(
            dict.fromkeys(sides + [group for two in self.two_sides for group in (two.front, two.back)])
        )

    def __call__(self, matrices: Mapping[str, Tensor], picked: Picked) -> Tensor:
        """Return the mean over all elements, differentiable in the matrices.

        Args:
            matrices: per group of the spec, (n, n) or (blocks, n, n).
            picked: which columns count this time; for the bilinear loss alone.
        """
        matrices = {name: matrix.to(self.dtype) for name, matrix in matrices.items()}
        given = [matrices[name] for name in self.groups]
        total = _Value.apply(self, picked, *given)[0] if given else torch.zeros((), dtype=self.dtype)
        for name, (first, second) in self.rest.items():
            with torch.autocast(first.device.type, enabled=False):
                moved = permute_tensor(first, self.spec.slots_on(name), matrices)
            total = total + (
                -2 * (moved * second).sum() if self.bilinear else (moved - second).square().sum()
            )
        return (total + self.constant) / self.elements

    def value_and_gradients(
        self, matrices: Mapping[str, Tensor], picked: Picked
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum of all products and its gradient by each group's matrices."""
        gradients: dict[str, Tensor] = {}
        factor, total = (-2.0 if self.bilinear else 2.0), []

        def add(name: str, gradient: Tensor) -> None:
            gradient = gradient.reshape(matrices[name].shape)
            gradients[name] = gradients[name] + gradient if name in gradients else gradient

        for one in self.one_side:
            matrix = matrices[one.group]
            value, gradient = one.product(matrix) if self.bilinear else one.squared(matrix)
            add(one.group, gradient)
            total.append(value)
        for two in self.two_sides:
            pair = matrices[two.front], matrices[two.back]
            value, *both = two.product(*pair, picked) if self.bilinear else two.squared(*pair)
            for name, gradient in zip((two.front, two.back), both, strict=True):
                add(name, gradient)
            total.append(value)
        sums = torch.stack(total).sum()
        scaled = {name: factor * gradient for name, gradient in gradients.items()}
        return (-2 * sums if self.bilinear else sums), scaled


class _Value(torch.autograd.Function):
    """Return the sum of all products; the gradients are its other outputs."""

    generate_vmap_rule = True

    @staticmethod
    def forward(form: ClosedForm, picked: Picked, *matrices: Tensor) -> tuple[Tensor, ...]:
        """Evaluate the loss and its gradients."""
        given = dict(zip(form.groups, matrices, strict=True))
        with torch.autocast(matrices[0].device.type, enabled=False):
            value, gradients = form.value_and_gradients(given, picked)
        return value, *(gradients[name] for name in form.groups)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Save the gradients."""
        ctx.form, ctx.picked, *matrices = inputs
        ctx.save_for_backward(*matrices, *output[1:])
        ctx.save_for_forward(*matrices)
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients; they are computed anew for second derivatives."""
        half = len(ctx.saved_tensors) // 2
        gradients = ctx.saved_tensors[half:]
        if torch.is_grad_enabled():
            given = dict(zip(ctx.form.groups, ctx.saved_tensors[:half], strict=True))
            anew = ctx.form.value_and_gradients(given, ctx.picked)[1]
            gradients = tuple(anew[name] for name in ctx.form.groups)
        return None, None, *(gradient * each for each in gradients)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor | None, ...]:
        """Return the derivative along tangents of the matrices."""
        # Anew, for the gradients that were saved have no derivatives.
        given = dict(zip(ctx.form.groups, ctx.saved_tensors, strict=True))
        gradients = ctx.form.value_and_gradients(given, ctx.picked)[1]
        pairs = zip(given, tangents[2:], strict=True)
        parts = [(gradients[name] * tangent).sum() for name, tangent in pairs if tangent is not None]
        return torch.stack(parts).sum(), *(None for _ in given)
