"""One small network and what a human would write down as its permutation symmetries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from sinkhorn_rebasin.permutations import PermutationSpec


@dataclass(frozen=True)
class Case:
    """A network of the zoo.

    Attributes:
        make: builds the network.
        make_inputs: example inputs, as :func:`discover_symmetry` takes them.
        groups: (size, blocks) of every group expected, in any order; None when only soundness is asked for.
        slots: for simple networks, per group the exact (tensor, axes, positions per unit).
        frozen: part of the reason that ``spec.frozen`` must give for at least one axis.
    """

    name: str
    make: Callable[[], nn.Module]
    make_inputs: Callable[[], Any]
    groups: tuple[tuple[int, int], ...] | None
    slots: tuple[frozenset[tuple[str, tuple[int, ...], int]], ...] | None = None
    frozen: str | None = None

    def __str__(self) -> str:
        return self.name


def slots(*texts: str) -> frozenset[tuple[str, tuple[int, ...], int]]:
    """Slots of one group from texts like ``"0.weight 0"`` or ``"3.weight 1 x 16"``."""
    found = set()
    for text in texts:
        tensor, axes, *width = text.replace(" x ", " ").split()
        found.add((tensor, tuple(int(axis) for axis in axes.split(",")), int(width[0]) if width else 1))
    return frozenset(found)


def found_slots(spec: PermutationSpec) -> set[frozenset[tuple[str, tuple[int, ...], int]]]:
    """Per group of a spec the same triples."""
    return {
        frozenset((slot.tensor, slot.axes, slot.layout.width) for slot in spec.slots_of(name))
        for name in spec.names
    }


def noise(*shape: int) -> Callable[[], Tensor]:
    """A maker of normal inputs."""
    return lambda: torch.randn(*shape)


def randomise(model: nn.Module) -> nn.Module:
    """Draw every parameter and running statistic anew, so that no neutral value hides a mistake."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.6 * torch.randn_like(parameter) + 0.1)
        for module in model.modules():
            if isinstance(module, _NormBase) and module.running_mean is not None:
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2.0)
    return model


class Function(nn.Module):
    """Named layers and a function of (layers, inputs): a network in one line."""

    def __init__(self, run: Callable[..., Any], **layers: nn.Module | nn.Parameter | Tensor) -> None:
        super().__init__()
        self._run = run
        for name, layer in layers.items():
            if isinstance(layer, nn.Parameter | nn.Module):
                setattr(self, name, layer)
            else:
                self.register_buffer(name, layer)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return self._run(self, *inputs, **named)
