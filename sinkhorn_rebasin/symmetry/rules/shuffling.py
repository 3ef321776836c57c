"""Trade positions for channels, or interleave channels."""

from __future__ import annotations

from collections.abc import Sequence

from sinkhorn_rebasin.networks.dispatched_call import Call
from sinkhorn_rebasin.symmetry.labels.labelling import Labelling
from sinkhorn_rebasin.symmetry.labels.labels import Labels
from sinkhorn_rebasin.symmetry.labels.outcome import Result
from sinkhorn_rebasin.symmetry.rules.registry import rule


@rule("pixel_shuffle", moves=True)
def pixel_shuffle(labelling: Labelling, call: Call) -> Result:
    """Spread channels over squares of pixels."""
    *lead, channels, height, width = call["self"].shape
    r, n = call["upscale_factor"], len(lead)
    split_up = labelling.labels(call["self"]).reshaped((*lead, channels // r**2, r, r, height, width))
    order = [*range(n), n, n + 3, n + 1, n + 4, n + 2]
    return reordered(split_up, order).reshaped(tuple(call.output.shape))


@rule("pixel_unshuffle", moves=True)
def pixel_unshuffle(labelling: Labelling, call: Call) -> Result:
    """Gather squares of pixels into channels."""
    *lead, channels, height, width = call["self"].shape
    r, n = call["downscale_factor"], len(lead)
    split_up = labelling.labels(call["self"]).reshaped((*lead, channels, height // r, r, width // r, r))
    order = [*range(n), n, n + 2, n + 4, n + 1, n + 3]
    return reordered(split_up, order).reshaped(tuple(call.output.shape))


@rule("channel_shuffle", "native_channel_shuffle", moves=True)
def channel_shuffle(labelling: Labelling, call: Call) -> Result:
    """Interleave groups of channels."""
    batch, channels, *positions = call["self"].shape
    groups = call["groups"]
    split_up = labelling.labels(call["self"]).reshaped((batch, groups, channels // groups, *positions))
    order = [0, 2, 1, *range(3, len(split_up.shape))]
    return reordered(split_up, order).reshaped(tuple(call.output.shape))


def reordered(labels: Labels, order: Sequence[int]) -> Labels:
    """Put axes in another order."""
    shape = tuple(labels.shape[axis] for axis in order)
    return labels.renamed(shape, [list(order).index(axis) for axis in range(len(order))])
