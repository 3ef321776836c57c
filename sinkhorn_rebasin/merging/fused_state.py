"""What fusing several networks gives back: the tensors, and how each came about."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.errors import listed
from sinkhorn_rebasin.permutations import PermutationSpec
from sinkhorn_rebasin.shown import html_table


class FusedState(State):
    """Hold the state of a fused network.

    It says how its tensors came about.

    It is a state dict; ``print`` tells which tensors were fitted and which are plain means.

    Args:
        state: the tensors.
        method: the name of the fusion.
        networks: how many were fused.
        fitted: names of the tensors that the fusion decides.
        averaged: names of those that are plain means.
        kept: names of those that are the first network's.
        not_fitted: layers that the fusion is meant for and that are plain means all the same, with the reason.

    Example:
        >>> import torch
        >>> print(FusedState({"w": torch.ones(1), "b": torch.ones(1)}, "regmean", 2, ["w"], ["b"]))
        regmean of 2 networks
          fitted      1 tensor: w
          plain mean  1 tensor: b
    """

    def __init__(
        self,
        state: Mapping[str, Tensor],
        method: str,
        networks: int,
        fitted: tuple[str, ...] | list[str] = (),
        averaged: tuple[str, ...] | list[str] = (),
        kept: tuple[str, ...] | list[str] = (),
        not_fitted: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(state)
        self.method, self.networks = method, networks
        self.fitted, self.averaged, self.kept = tuple(fitted), tuple(averaged), tuple(kept)
        self.not_fitted = dict(not_fitted or {})

    @classmethod
    def of(
        cls,
        state: Mapping[str, Tensor],
        method: str,
        networks: int,
        spec: PermutationSpec,
        fitted: Mapping[str, object],
        not_fitted: Mapping[str, str] | None = None,
    ) -> FusedState:
        """Sort tensors by how they came about."""
        kept = [name for name in state if name in spec.ignored or not _has_mean(state[name])]
        averaged = [name for name in state if name not in fitted and name not in kept]
        return cls(state, method, networks, [n for n in state if n in fitted], averaged, kept, not_fitted)

    def rows(self) -> list[tuple[str, str]]:
        """List what is told, as (name, value)."""
        sorts = {"fitted": self.fitted, "plain mean": self.averaged, "of the first": self.kept}
        rows = [(name, _counted(names)) for name, names in sorts.items() if names]
        return [*rows, *((f"not fitted: {name}", reason) for name, reason in self.not_fitted.items())]

    def __str__(self) -> str:
        rows = self.rows()
        width = max((len(name) for name, _ in rows), default=0)
        title = f"{self.method} of {self.networks} networks"
        return "\n".join([title, *(f"  {name:<{width}}  {value}" for name, value in rows)])

    def __repr__(self) -> str:
        missing = f"; not fitted: {listed(self.not_fitted)}" if self.not_fitted else ""
        return (
            f"FusedState({self.method} of {self.networks} networks; {len(self.fitted)} tensors fitted, "
            f"{len(self.averaged)} plain means{missing})"
        )

    def _repr_html_(self) -> str:
        return html_table(f"{self.method} of {self.networks} networks", self.rows())


def _counted(names: tuple[str, ...]) -> str:
    return f"{len(names)} tensor{'s' if len(names) != 1 else ''}: {listed(names, most=6)}"


def _has_mean(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()
