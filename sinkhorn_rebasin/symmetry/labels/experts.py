"""Parameters that hold one matrix for each of many experts or heads: their units come in blocks.

A weight of shape (experts, inputs, outputs) that is multiplied expert by expert has hidden units of its own in
every expert. That shows only when it is multiplied, after its axes have been labelled one by one; then the run is
followed again with units for each pair of expert and input, and of expert and output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

from sinkhorn_rebasin.symmetry.labels.labels import Factor, Labels
from sinkhorn_rebasin.symmetry.labels.numbering import Ids, distinct_values
from sinkhorn_rebasin.symmetry.labels.relations import Relations

Layouts = dict[str, frozenset[tuple[int, ...]]]

# A parameter with more units than this in one block of axes is labelled axis by axis.
MOST_UNITS = 1 << 16


class BatchedParameters:
    """Note which axes of parameters are multiplied in step."""

    def __init__(self, settled: Layouts) -> None:
        self._settled = settled
        self._owners: dict[int, tuple[str, tuple[int, ...]]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._found: dict[str, set[tuple[int, ...]]] = {}
        self._visited: dict[int, set[int]] = {}
        self._reachable: dict[int, tuple[int, list[Labels]]] = {}

    def register(self, name: str, labels: Labels, relations: Relations) -> None:
        """Register the units of a parameter's axes."""
        self._shapes[name] = labels.shape
        for factor in labels.factors:
            self._owners[relations.class_of(int(factor.ids.max()))] = (name, factor.axes)

    def record_product(self, relations: Relations, labels: Labels, axes: Sequence[int]) -> None:
        """Record axes of a product's factor multiplied in step.

        Note:
            A table that repeats rows over several axes holds no matrices and is left out.
        """
        together: dict[str, set[int]] = {}
        for factor in labels.factors_covering(axes):
            if not set(factor.axes) <= set(axes) and len(distinct_values(factor.ids)) < factor.ids.size:
                continue
            unit = int(factor.ids.max(initial=-1))
            owner = self._owners.get(relations.class_of(unit)) if unit >= 0 else None
            if owner is not None:
                together.setdefault(owner[0], set()).update(owner[1])
        for name, axes_in_step in together.items():
            if len(axes_in_step) > 1 and name not in self._settled:
                self._found.setdefault(name, set()).add(tuple(sorted(axes_in_step)))

    def record_meeting(self, relations: Relations, parts: Sequence[Labels]) -> None:
        """Record additions to outputs of experts or heads."""
        if any(0 in part.shape for part in parts):
            return
        for part in parts:
            for factor in part.factors:
                if len(factor.axes) > 1:
                    others = [other for other in parts if other is not part and len(other.factors) > 1]
                    self._beside(relations, factor, len(part.shape), others)
        if not self._settled:
            return
        for part in parts:
            for factor in part.factors:
                unit = int(factor.ids.max(initial=-1))
                owner = self._owners.get(relations.class_of(unit), ("", ())) if unit >= 0 else ("", ())
                if len(owner[1]) > 1 and len(factor.axes) > 1:
                    for other in parts:
                        lead = len(part.shape) - len(other.shape)
                        self.record_product(relations, other, [a - lead for a in factor.axes if a >= lead])

    def _beside(self, relations: Relations, wide: Factor, rank: int, others: Sequence[Labels]) -> None:
        """Record axes that meet one unit a position."""
        for other in others:
            lead = rank - len(other.shape)
            inside = [f for f in other.factors if {axis + lead for axis in f.axes} <= set(wide.axes)]
            if len(inside) > 1 and wide.ids.min() >= 0 and len(distinct_values(wide.ids)) == wide.ids.size:
                self.record_product(relations, Labels(other.shape, tuple(inside)), range(len(other.shape)))

    def record_visit(self, relations: Relations, matrices: Labels, visited: Ids, rows: Labels) -> None:
        """Record which experts the rows of an input reached."""
        key = relations.class_of(
            int(max(factor.ids.max(initial=0) for factor in matrices.factors_covering([0])))
        )
        self._visited.setdefault(key, set()).update(visited.tolist())
        self._reachable[key] = (matrices.shape[0], [matrices, rows])

    @property
    def unvisited(self) -> list[Labels]:
        """List labels of matrices with unreached experts."""
        unvisited = []
        for key, (count, labels) in self._reachable.items():
            if len(self._visited[key]) < count:
                unvisited.extend(labels)
        return unvisited

    def layouts(self) -> Layouts:
        """Return sets of axes with common units, by parameter."""
        layouts = {}
        for name, groups in self._found.items():
            shape = self._shapes[name]
            wide = {axes for axes in groups if not any(set(axes) < set(other) for other in groups)}
            if all(_size(shape, axes) <= MOST_UNITS for axes in wide):
                layouts[name] = _with_single_axes(shape, wide)
        return layouts

    def narrower(self, relations: Relations, parameter_labels: Mapping[str, Labels]) -> Layouts:
        """Return layouts without matrices that were read in part."""
        layouts = {}
        for name in self._settled.keys() & parameter_labels.keys():
            factors = [f for f in parameter_labels[name].factors if len(f.axes) > 1]
            kept = {f.axes for f in factors if not relations.partly_untouched(f.ids.ravel()).any()}
            if len(kept) < len(factors):
                layouts[name] = _with_single_axes(self._shapes[name], kept)
        return layouts


def _with_single_axes(shape: Sequence[int], wide: Set[tuple[int, ...]]) -> frozenset[tuple[int, ...]]:
    """Add the uncovered axes, one by one."""
    covered = {axis for axes in wide for axis in axes}
    return frozenset(wide | {(a,) for a, n in enumerate(shape) if a not in covered and n > 1})


def _size(shape: Sequence[int], axes: Sequence[int]) -> int:
    """Count the positions on some axes."""
    size = 1
    for axis in axes:
        size *= shape[axis]
    return size
