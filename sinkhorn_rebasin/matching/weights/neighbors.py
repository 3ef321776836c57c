"""Which groups of a spec are placed by which others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sinkhorn_rebasin.permutations import PermutationSpec


class Settled:
    """Remember which groups would be placed where they are.

    The best place of a group follows from the order of the groups it shares a tensor with. While those stay it stays.
    A group that stands on several axes of one tensor is such a neighbor of itself.

    Example:
        >>> from sinkhorn_rebasin.permutations import Group, Layout, Slot
        >>> first, second = Layout(1, 2), Layout(1, 3)
        >>> slots = (Slot("a", "w", (0,), first), Slot("b", "w", (1,), second))
        >>> settled = Settled(PermutationSpec((Group("a", 2), Group("b", 3)), slots, {"w": (2, 3)}))
        >>> settled.place(["a"])
        >>> "a" in settled, "b" in settled
        (True, False)
        >>> settled.move(["b"])
        >>> "a" in settled
        False
    """

    def __init__(self, spec: PermutationSpec) -> None:
        self.neighbors = _neighbors(spec)
        self._settled: set[str] = set()

    def __contains__(self, group: str) -> bool:
        return group in self._settled

    def depends(self, family: Iterable[str], groups: Iterable[str]) -> bool:
        """Say whether any of a family is placed by one of the groups."""
        others = set(groups)
        return any(self.neighbors[name] & others for name in family)

    def place(self, family: Iterable[str]) -> None:
        """Note that a family stands where it is best."""
        self._settled |= set(family)

    def move(self, family: Iterable[str], everything: bool = False) -> None:
        """Note that a family moved: whoever is placed by it may be better elsewhere."""
        moved = set(family)
        self._settled = {
            name for name in self._settled if not everything and not self.neighbors[name] & moved
        }


def _neighbors(spec: PermutationSpec) -> Mapping[str, set[str]]:
    """List whose order a group's similarity is read with."""
    neighbors: dict[str, set[str]] = {group.name: set() for group in spec.groups}
    for tensor in {slot.tensor for slot in spec.slots}:
        on = spec.slots_on(tensor)
        for slot in on:
            neighbors[slot.group] |= {other.group for other in on if other != slot}
    return neighbors
