"""Solve equations modulo 2 for flips of signs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sinkhorn_rebasin.networks.architecture import real_view
from sinkhorn_rebasin.networks.nested_tensors import largest_change
from sinkhorn_rebasin.symmetry.rescaling.integer_kernel import kernel_modulo_two

MOST_ACTIVE = 8
"""Most slots that are left on at once: the cost of an equation is 2 to this power."""

Flips = NDArray[np.int64]
Scaled = Callable[[Tensor], list[Tensor]]
"""One factor per slot, (slots,), to the network's outputs; differentiable."""


class SignEquations:
    r"""Collect equations on signs from counterexamples.

    Multiply slot k of some units by a number :math:`s_k` and expand the output,

    .. math:: f(s) = \sum_A \hat f_A(s^2) \prod_{k \in A} s_k,

    with A over sets of slots. A flip e of signs leaves f as it is exactly if :math:`\sum_{k \in A} e_k` is even for
    every A with a term. So a flip that changes the output breaks such an equation. Slots that it can do without are
    switched off (s = 0); the few that are left have few sets A, whose terms are seen at all signs of theirs. The
    derivative by each slot that is off gives the equations of one slot more, all at once.

    Attributes:
        count: how many slots there are.
        rows: the equations found so far.

    Example:
        >>> tanh_unit = lambda s: [(s[0] * torch.tensor([1.0, 2.0]) + 3 * s[1]).double().tanh() * s[2]]
        >>> [flips.tolist() for flips in SignEquations(tanh_unit, 3, 1e-9, torch.Generator()).solved()]
        [[1, 1, 1]]
    """

    def __init__(self, scaled: Scaled, count: int, tolerance: float, generator: torch.Generator) -> None:
        self.scaled, self.count, self.tolerance = scaled, count, tolerance
        self.rows: list[Flips] = []
        self._before: tuple[tuple[int, ...], list[Tensor]] = ((), [])
        self._generator = generator
        self._weights: list[Tensor] = []

    def solved(self) -> list[Flips] | None:
        """Solve for a basis of flips that change nothing.

        None when one term has too many slots.
        """
        held: set[bytes] = set()
        while True:
            basis = kernel_modulo_two(np.array(self.rows, dtype=np.int64).reshape(-1, self.count))
            wrong = None
            for flips in basis:
                if flips.tobytes() not in held and self._changes(flips, range(self.count)):
                    wrong = flips
                    break
                held.add(flips.tobytes())
            if wrong is None:
                return basis
            active = self._needed(wrong)
            if len(active) > MOST_ACTIVE:
                return None
            rows = self._read(active)
            if not any(int(row @ wrong) % 2 for row in rows):
                return None
            self.rows += rows

    def _changes(self, flips: Flips, active: Sequence[int]) -> bool:
        """Tell whether a flip changes the output.

        Slots that are not active are off.
        """
        on = torch.zeros(self.count, dtype=torch.float64, device="cpu")
        on[list(active)] = 1.0
        if self._before[0] != tuple(active):
            self._before = tuple(active), self.scaled(on)
        flipped = on * torch.from_numpy(1 - 2 * flips)
        return largest_change(self._before[1], self.scaled(flipped)) > self.tolerance

    def _needed(self, flips: Flips) -> list[int]:
        """Find few slots with which a flip changes the output."""
        active, size = list(range(self.count)), self.count
        while size > 1:
            size = (size + 1) // 2
            for start in range(0, self.count, size):
                fewer = [slot for slot in active if not start <= slot < start + size]
                if len(fewer) < len(active) and self._changes(flips, fewer):
                    active = fewer
        return active

    def _read(self, active: Sequence[int]) -> list[Flips]:
        """Read equations between these slots and each other one."""
        signs = np.array(list(product((1, -1), repeat=len(active))))
        values, slopes = zip(*(self._at(active, row) for row in signs), strict=True)
        value, slope = np.array(values), np.stack(slopes)
        off = [slot for slot in range(self.count) if slot not in active]
        # A slot's own noise is measured by its own slopes.
        least = np.maximum(
            np.sqrt(self.tolerance) * np.abs(slope).max(0), self.tolerance * np.abs(slope).max()
        )
        rows = []
        for exponents in product((0, 1), repeat=len(active)):
            character = np.prod(signs ** np.array(exponents), axis=1)
            row = np.zeros(self.count, dtype=np.int64)
            row[list(active)] = exponents
            if abs((character * value).mean()) > self.tolerance / (2 * len(signs)) * np.abs(value).max():
                rows.append(row)
            terms = np.abs((character[:, None] * slope).mean(0)) > least
            rows += [row + np.eye(self.count, dtype=np.int64)[slot] for slot in off if terms[slot]]
        return [row for row in rows if row.any()]

    def _at(self, active: Sequence[int], signs: NDArray[np.int64]) -> tuple[float, NDArray[np.float64]]:
        """Evaluate a random sum of outputs, and its slopes."""
        factors = torch.zeros(self.count, dtype=torch.float64, device="cpu")
        factors[list(active)] = torch.from_numpy(signs).double()
        factors.requires_grad_()
        with torch.enable_grad():
            total = self._sum(self.scaled(factors))
            slopes = torch.zeros_like(factors)
            if total.requires_grad:
                slopes = torch.autograd.grad(total, factors)[0]
        return float(total.detach()), slopes.nan_to_num(0.0, 0.0, 0.0).numpy()

    def _sum(self, outputs: Sequence[Tensor]) -> Tensor:
        """Add up the outputs with fixed random weights."""
        values = [real_view(one) for one in outputs if one.is_floating_point() or one.is_complex()]
        if not self._weights:
            device = self._generator.device
            self._weights = [
                torch.randn(one.shape, generator=self._generator, dtype=torch.float64, device=device)
                / one.detach().abs().nan_to_num(0.0, 0.0, 0.0).amax().clamp_min(1e-30).cpu()
                for one in values
            ]
        total = torch.zeros((), dtype=torch.float64, device="cpu")
        for one, weights in zip(values, self._weights, strict=True):
            total = total + (one.nan_to_num(0.0, 0.0, 0.0).double().cpu() * weights.cpu()).sum()
        return total
