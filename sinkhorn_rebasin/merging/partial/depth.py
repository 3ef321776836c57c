"""Which groups of units come before a layer."""

from __future__ import annotations

from sinkhorn_rebasin.errors import SpecError, listed
from sinkhorn_rebasin.merging.partial.two_networks import TwoNetworks


def groups_until(networks: TwoNetworks, until: str | None) -> list[str]:
    """Name the groups up to a depth.

    The last is one that the named module or group writes.

    Groups come in the order of the spec.

    Args:
        networks: both.
        until: the name of a group or module; None: all groups.

    Raises:
        SpecError: there is none of this name, or it writes no units.
    """
    names = networks.spec.names
    if until is None:
        return names
    if until in names:
        return names[: names.index(until) + 1]
    written = [
        names.index(slot.group)
        for slot, writes in networks.writes.items()
        if writes and slot.group in names and slot.tensor.startswith(f"{until}.")
    ]
    if not written:
        modules = dict(networks.reference.named_modules(remove_duplicate=False))
        known = "writes no hidden units" if until in modules else "is neither a module nor a group"
        raise SpecError(
            f"Expected until to be a group out of {listed(map(repr, names))}, or a module that writes one, but "
            f"{until!r} {known}."
        )
    return names[: max(written) + 1]
