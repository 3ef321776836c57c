"""A curve between two networks whose bends are parameters."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import ExampleInputs, NetworkLike, State
from sinkhorn_rebasin.connectivity.bent_curves import BentPath, BezierPath, PolygonPath
from sinkhorn_rebasin.connectivity.curves import LinearPath
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.architecture import learn_parameters, named_tensors, tensors_of
from sinkhorn_rebasin.networks.copying import standalone_copy
from sinkhorn_rebasin.networks.execution import run_at
from sinkhorn_rebasin.networks.modes import free_modes, hold_modes

CurveKind: TypeAlias = Literal["bezier", "polygon"]
_KINDS: dict[str, type[BentPath]] = {"bezier": BezierPath, "polygon": PolygonPath}


class LearnedCurve(nn.Module):
    r"""Learn the bends of a curve between networks.

    .. math:: \min_{\theta_1, \dots, \theta_k} \mathbb E_{\lambda \sim U(0, 1)}\, \mathcal C(\theta(\lambda))

    The ends stay. The bends begin on the segment between them, so that the curve begins as that segment. Train it
    with :class:`CurveModule`; align the two networks first for a curve that needs less of a bend. As a path it can be
    evaluated by :func:`evaluate_path`.

    - In training mode batch norm runs on the batch's own statistics, at every point of the curve.
    - A point that is evaluated needs statistics of its own: see :class:`BatchNormReset`.

    Args:
        start: the network at λ=0. It lends its forward and is not changed.
        end: the network at λ=1, or its weights.
        kind: ``"bezier"`` or ``"polygon"``.
        bends: k, at least 1.
        statistics: as for :class:`LinearPath`.

    Attributes:
        bends: one network a bend; these are learned.

    Raises:
        ArchitectureError: networks that differ, a kind that is not known, or no bend.

    Example:
        >>> curve = LearnedCurve(nn.Linear(3, 2), nn.Linear(3, 2))
        >>> curve(torch.ones(4, 3), at=0.3).sum().backward()
        >>> [parameter.grad is not None for parameter in curve.bends.parameters()]
        [True, True]

    Source: Garipov, Izmailov, Podoprikhin, Vetrov, Wilson, "Loss Surfaces, Mode Connectivity, and Fast Ensembling of
    DNNs" (2018).
    """

    def __init__(
        self,
        start: nn.Module,
        end: NetworkLike,
        *,
        kind: CurveKind = "bezier",
        bends: int = 1,
        statistics: Collection[str] = (),
    ) -> None:
        super().__init__()
        if kind not in get_args(CurveKind):
            raise ArchitectureError(f"Expected kind to be one of {', '.join(_KINDS)} but got {kind!r}.")
        if bends < 1:
            raise ArchitectureError(f"Expected at least one bend between start and end but got {bends}.")
        segment = LinearPath.between(start, end, statistics)
        self.kind, self.statistics = kind, frozenset(statistics)
        self.start, self.end = (learn_parameters(segment.module_at(at), False) for at in (0.0, 1.0))
        self.bends = nn.ModuleList(
            learn_parameters(segment.module_at(number / (bends + 1)), True) for number in range(1, bends + 1)
        )
        hold_modes(self)  # networks that rewrite weights in train() or eval() would change the curve

    def path(self) -> BentPath:
        """Return the curve as it is now.

        Gradients reach the bends.
        """
        ends = tensors_of(self.start), tensors_of(self.end)
        bends = [attached_state(bend) for bend in self.bends]
        return _KINDS[self.kind](self.start, *ends, bends, self.statistics)

    def path_between(self, start: NetworkLike, end: NetworkLike) -> BentPath:
        """Return a curve of this kind between other ends.

        It has the bends as they are now, to which no gradient leads.

        Args:
            start, end: states or networks, in whose place gradients are passed on.
        """
        bends = [tensors_of(bend) for bend in self.bends]
        return _KINDS[self.kind](self.start, start, end, bends, self.statistics)

    def state_at(self, at: float | Tensor) -> State:
        """Return the tensors at a position.

        They are differentiable in those of the bends.
        """
        return self.path().state_at(at)

    def forward(self, inputs: ExampleInputs, at: float | Tensor = 0.5) -> Any:
        """Run the network at a position.

        Batch norm is in this module's mode.

        Args:
            inputs: a tensor, a tuple of positional or a dict of keyword arguments.
            at: λ, a number or a 0-d tensor.
        """
        return self.run(self.state_at(at), inputs)

    def run(self, state: State, inputs: ExampleInputs) -> Any:
        """Run the architecture at a state.

        Batch norm is in this module's mode.
        """
        return run_at(self.start, state, inputs)

    @torch.no_grad()
    def module_at(self, at: float) -> nn.Module:
        """Return a plain network at a position.

        It is in eval mode.
        """
        network = standalone_copy(self.start)
        free_modes(network)
        network.load_state_dict(self.state_at(at), strict=False)
        return learn_parameters(network, True).eval()

    def extra_repr(self) -> str:
        """Tell kind and number of bends."""
        return f"{self.kind}, {len(self.bends)} bends"


def attached_state(bend: nn.Module) -> State:
    """Return what the state dict names, with gradients."""
    attached = named_tensors(bend)
    return {name: attached.get(name, tensor) for name, tensor in tensors_of(bend).items()}
