"""Which units of two networks become one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sinkhorn_rebasin.errors import SpecError


@dataclass(frozen=True)
class UnitMerge:
    r"""Hold which of 2d units are one.

    Units 0 … d − 1 are the reference's, d … 2d − 1 the target's. With clusters :math:`C_1, \dots, C_m` the merged
    units are means, and each unit reads the cluster that it is in:

    .. math:: M_{ij} = \frac{[j \in C_i]}{|C_i|}, \qquad U_{ji} = [j \in C_i], \qquad M U = 1

    For clusters of two this is the unmerge :math:`U = 2 M^\top` of ZipIt.

    Attributes:
        clusters: the members of each merged unit; every unit is in one of them.
        units: d.

    Raises:
        SpecError: the clusters are no partition of the 2d units.

    >>> both = UnitMerge(((0, 2), (1,), (3,)), 2)
    >>> both.merge_matrix().tolist()
    [[0.5, 0.0, 0.5, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    """

    clusters: tuple[tuple[int, ...], ...]
    units: int

    def __post_init__(self) -> None:
        members = sorted(member for cluster in self.clusters for member in cluster)
        if members != list(range(2 * self.units)) or not all(self.clusters):
            raise SpecError(
                f"Expected clusters with each of {2 * self.units} units once but got {self.clusters}."
            )

    @classmethod
    def apart(cls, units: int) -> UnitMerge:
        """Leave all units beside each other."""
        return cls(tuple((unit,) for unit in range(2 * units)), units)

    @classmethod
    def paired(cls, order: Tensor | Sequence[int], merged: Iterable[int] | None = None) -> UnitMerge:
        """Merge units of both in pairs.

        These are unit i of the reference and unit ``order[i]`` of the target.

        Args:
            order: which unit of the target goes to each of the reference's.
            merged: the reference's units that are merged; None: all.

        >>> UnitMerge.paired([1, 0], merged=[0]).clusters
        ((0, 3), (1,), (2,))
        """
        places = [int(place) for place in order]
        count = len(places)
        chosen = set(range(count)) if merged is None else set(merged)
        first = [(i, count + places[i]) if i in chosen else (i,) for i in range(count)]
        taken = {places[i] for i in chosen}
        return cls((*first, *((count + j,) for j in range(count) if j not in taken)), count)

    @property
    def size(self) -> int:
        """Count the merged units."""
        return len(self.clusters)

    @property
    def merged(self) -> int:
        """Count the units that are merged with others."""
        return sum(len(cluster) for cluster in self.clusters if len(cluster) > 1)

    def merge_matrix(self) -> Tensor:
        """Return M, (merged units, 2d), in double precision."""
        return self.unmerge_matrix().mT / self._sizes()[:, None]

    def unmerge_matrix(self) -> Tensor:
        """Return U, (2d, merged units), in double precision."""
        matrix = torch.zeros(2 * self.units, self.size, dtype=torch.float64, device="cpu")
        for place, cluster in enumerate(self.clusters):
            matrix[list(cluster), place] = 1.0
        return matrix

    def _sizes(self) -> Tensor:
        return torch.tensor([len(cluster) for cluster in self.clusters], dtype=torch.float64, device="cpu")
