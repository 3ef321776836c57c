"""Masks that move while a network trains: small weights are dropped, others grow where gradients are large.

Source: Evci, Gale, Menick, Castro, Elsen, "Rigging the Lottery: Making All Tickets Winners" (2020).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Schedule:
    r"""Say when a mask moves, and how much of it.

    .. math:: \zeta_t = \tfrac{\alpha}{2} \bigl(1 + \cos(\pi t / T)\bigr)

    Attributes:
        every: steps between two moves; 0 leaves the mask where it is.
        share: α, of the weights that are left.
        until: T, as a share of all steps; afterwards the mask stays.
    """

    every: int = 100
    share: float = 0.3
    until: float = 0.75

    def at(self, step: int, steps: int) -> float:
        """Return the share that moves at a step; 0 between moves.

        >>> [Schedule(every=10, until=0.5).at(step, 100) for step in (0, 10, 15, 60)]
        [0.0, 0.27135254915624213, 0.0, 0.0]
        """
        last = self.until * steps
        if not self.every or step == 0 or step % self.every or step >= last:
            return 0.0
        return self.share / 2 * (1 + math.cos(math.pi * step / last))


class MovingMask:
    """Move the masks of layers that ``torch.nn.utils.prune`` holds, as RigL does.

    Every layer keeps as many weights as it had. A weight that is grown begins at zero and without momentum.

    Args:
        layers: pruned modules by name, each with ``weight_orig`` and ``weight_mask``.
        schedule: when masks move.

    Example:
        >>> from torch.nn.utils import prune
        >>> layer = prune.custom_from_mask(nn.Linear(3, 1), "weight", torch.tensor([[1, 1, 0]]))
        >>> layer.weight_orig.data = torch.tensor([[3.0, 0.1, 9.0]])
        >>> with MovingMask({"layer": layer}, Schedule()) as moving:
        ...     layer(torch.tensor([[1.0, 1.0, 5.0]])).sum().backward()
        ...     moving.move(0.5, torch.optim.SGD(layer.parameters(), 0.1))
        >>> layer.weight_mask.tolist(), layer.weight_orig.tolist()
        ([[1.0, 0.0, 1.0]], [[3.0, 0.0, 0.0]])
    """

    def __init__(self, layers: Mapping[str, nn.Module], schedule: Schedule) -> None:
        self.layers, self.schedule = layers, schedule
        self._handles: list[Any] = []

    def __enter__(self) -> MovingMask:
        """Keep the gradients of masked weights, which those of left-out weights are among."""
        # The pre-hook of prune makes the masked weight anew for every run; this one runs after it.
        self._handles = [
            layer.register_forward_pre_hook(lambda layer, _: _keep_gradient(layer))
            for layer in self.layers.values()
        ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Keep them no longer."""
        for handle in self._handles:
            handle.remove()

    def moves(self, step: int, steps: int, optimizer: torch.optim.Optimizer) -> bool:
        """Move the masks where the schedule says so, in place of a step of the optimiser, and tell whether."""
        share = self.schedule.at(step, steps)
        if share:
            self.move(share, optimizer)
        return share > 0

    @torch.no_grad()
    def move(self, share: float, optimizer: torch.optim.Optimizer) -> None:
        """Drop a share of the smallest weights of every layer, and grow as many by the gradient."""
        for layer in self.layers.values():
            weight, mask = layer.get_parameter("weight_orig"), layer.get_buffer("weight_mask")
            gradient = layer.weight.grad  # type: ignore[union-attr]
            moved = moved_mask(mask.bool(), weight, gradient, share)  # type: ignore[arg-type]
            grown = moved & ~mask.bool()
            mask.copy_(moved)
            weight.masked_fill_(grown | ~moved, 0.0)
            for value in optimizer.state[weight].values():
                if isinstance(value, Tensor) and value.shape == weight.shape:
                    value.masked_fill_(grown, 0.0)


def moved_mask(mask: Tensor, weight: Tensor, gradient: Tensor, share: float) -> Tensor:
    """Return a mask of as many weights, of which a share is new.

    The smallest of those that are left go. Those with the largest gradients among all others come, and one that went
    may be among them.

    Args:
        mask: True where a weight is left.
        weight, gradient: of the same shape; the gradient is that of all weights.
        share: of the weights that are left.

    >>> mask, weight = torch.tensor([True, True, False, False]), torch.tensor([1.0, 2.0, 0.0, 0.0])
    >>> moved_mask(mask, weight, torch.tensor([0.1, 0.0, 0.3, 0.2]), 0.5).tolist()
    [False, True, True, False]
    """
    count = int(share * int(mask.sum()))
    kept = mask.flatten().clone()
    sizes = weight.abs().flatten().where(kept, torch.inf)
    kept[sizes.topk(count, largest=False).indices] = False
    slopes = gradient.abs().flatten().where(~kept, -1.0)
    kept[slopes.topk(count).indices] = True
    return kept.view_as(mask)


def _keep_gradient(layer: nn.Module) -> None:
    if layer.weight.requires_grad:  # type: ignore[union-attr]
        layer.weight.retain_grad()  # type: ignore[union-attr, operator]
