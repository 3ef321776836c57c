"""Curves with bends: Bezier curves and polygons through weight space."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import NetworkLike, State
from sinkhorn_rebasin.connectivity.curves import StatePath
from sinkhorn_rebasin.connectivity.interpolation import common_type, lerp
from sinkhorn_rebasin.connectivity.path_ends import state_like
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.architecture import check_same, check_state, wider


class BentPath(StatePath):
    """Join two states by a curve that bends.

    A kind of curve says only how the points between are joined.

    Args:
        module: the architecture, never changed.
        start: parameters and buffers at λ=0.
        end: parameters and buffers at λ=1.
        bends: one state or more, from start to end. Of their buffers only statistics count.
        statistics: as for :class:`LinearPath`.

    Raises:
        ArchitectureError: no bend, or names or shapes of a state differ from the module's.
    """

    def __init__(
        self,
        module: nn.Module,
        start: NetworkLike,
        end: NetworkLike,
        bends: NetworkLike | Sequence[NetworkLike],
        statistics: Collection[str] = (),
    ) -> None:
        super().__init__(module, start, end, statistics)
        several = isinstance(bends, Sequence) and not isinstance(bends, (str, nn.Module, Mapping))
        given: Sequence[NetworkLike] = bends if several else [bends]  # type: ignore[assignment, list-item]
        if not given:
            raise ArchitectureError("Expected at least one bend between start and end but got none.")
        self.bends: list[State] = []
        for number, bend in enumerate(given):
            state = state_like(module, bend, f"bend {number}")
            check_state(module, state, f"bend {number}")
            check_same(self.start, state)
            self.bends.append(dict(state))

    def _points(self, name: str) -> list[Tensor]:
        """Return one tensor at all points.

        These are the start, every bend and the end, in one type.
        """
        points = [self.start[name], *(bend[name] for bend in self.bends), self.end[name]]
        widest = points[0]
        for point in points[1:]:
            widest = common_type(widest, point)[0]
        return [point.to(widest.dtype) for point in points]


class BezierPath(BentPath):
    r"""Join two states by a Bezier curve.

    .. math:: \theta(\lambda) = \sum_{i=0}^{k+1} \binom{k+1}{i} (1-\lambda)^{k+1-i} \lambda^i\, \theta_i

    Here :math:`\theta_0` is the start, :math:`\theta_{k+1}` the end, and the k bends lie between. One bend gives the
    quadratic curve. With bends on the segment, at equal distances, the curve is the segment.

    Args:
        module: the architecture, never changed.
        start: parameters and buffers at λ=0.
        end: parameters and buffers at λ=1.
        bends: one state or more, from start to end. Of their buffers only statistics count.
        statistics: as for :class:`LinearPath`.

    Raises:
        ArchitectureError: no bend, or names or shapes of a state differ from the module's.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> states = [{"weight": torch.tensor([[value]])} for value in (0.0, 2.0, 0.0)]
        >>> BezierPath(layer, *states)(torch.ones(1, 1), at=0.5).item() == 0.5
        True

    Source: Garipov, Izmailov, Podoprikhin, Vetrov, Wilson, "Loss Surfaces, Mode Connectivity, and Fast Ensembling of
    DNNs" (2018).
    """

    def tensor_at(self, name: str, at: float | Tensor) -> Tensor:
        """Return one tensor at a position."""
        points = self._points(name)
        dtype, wide = points[0].dtype, wider(points[0].dtype)
        level = [point.to(wide) for point in points]
        while len(level) > 1:  # de Casteljau: in single precision, and one rounding
            level = [lerp(first, second, at) for first, second in itertools.pairwise(level)]
        bent = level[0].to(dtype)
        # Rounding gives every NaN the same bits.
        return torch.where(points[0].isnan() & bent.isnan(), points[0], bent)


class PolygonPath(BentPath):
    """Join two states by straight pieces.

    Each of the pieces between start, bends and end takes an equal share of λ.

    Args:
        module: the architecture, never changed.
        start: parameters and buffers at λ=0.
        end: parameters and buffers at λ=1.
        bends: one state or more, from start to end. Of their buffers only statistics count.
        statistics: as for :class:`LinearPath`.

    Raises:
        ArchitectureError: no bend, or names or shapes of a state differ from the module's.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> states = [{"weight": torch.tensor([[value]])} for value in (0.0, 2.0, 4.0)]
        >>> PolygonPath(layer, *states)(torch.ones(1, 1), at=0.25).item() == 2.0
        True

    Source: Garipov, Izmailov, Podoprikhin, Vetrov, Wilson, "Loss Surfaces, Mode Connectivity, and Fast Ensembling of
    DNNs" (2018).
    """

    def tensor_at(self, name: str, at: float | Tensor) -> Tensor:
        """Return one tensor at a position."""
        points = self._points(name)
        pieces = len(points) - 1
        place = float(at.detach()) if isinstance(at, Tensor) else at
        piece = min(max(int(place * pieces), 0), pieces - 1)
        return lerp(points[piece], points[piece + 1], at * pieces - piece)
