"""Two aligned networks fused into one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from sinkhorn_rebasin._typing import BatchAdapter, Heads, State
from sinkhorn_rebasin.activations import repair as repaired
from sinkhorn_rebasin.curvature import DiagonalFisher, GramMatrices
from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.matching import Alignment
from sinkhorn_rebasin.merging.fused_state import FusedState
from sinkhorn_rebasin.merging.fusing import Fusion, fused
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.permutations import identity_permutations
from sinkhorn_rebasin.rebasin import SinkhornRebasin


def fuse_pair(
    rebasin: SinkhornRebasin,
    fusion: Fusion,
    at: float,
    data: Sequence[Any] | None,
    *,
    batch: BatchAdapter | None = None,
) -> FusedState:
    """Fuse the networks of a re-basin: see :meth:`AlignmentResult.fused`.

    Raises:
        DataError: the fusion's, or what was measured on networks that the alignment has brought into canonical form.
    """
    measured = [each for each in data or () if isinstance(each, (DiagonalFisher, GramMatrices))]
    if measured and rebasin.continuous:
        raise DataError(
            f"Expected batches, since networks with continuous symmetries were brought into canonical form, but got "
            f"{type(measured[0]).__name__} of the networks as they were."
        )
    stays = Alignment(identity_permutations(rebasin.spec), rebasin.spec)
    return fused(_plain_ends(rebasin), [stays, rebasin.alignment()], fusion, data, [at, 1 - at], batch=batch)


def fused_module(
    rebasin: SinkhornRebasin,
    state: State,
    at: float,
    heads: Heads,
    repair: Iterable[Any] | None,
    batch: BatchAdapter | None,
) -> nn.Module:
    """Make a plain network of a fused state.

    REPAIR is done if there are batches for it.
    """
    ignored = rebasin.spec.ignored
    if heads == "target" and ignored:
        own = rebasin.rebased_state(hard=True)
        state = {**state, **{name: own[name] for name in ignored}}
    merged = rebasin.plain(state, heads if ignored else "target")
    if repair is None:
        return merged
    reference, _ = _plain_ends(rebasin)
    return repaired(merged, reference, rebasin.to_model(), rebasin.spec, repair, at=at, batch=batch)


def _plain_ends(rebasin: SinkhornRebasin) -> tuple[nn.Module, nn.Module]:
    """Return both networks as they were given."""
    return (
        rebasin.plain(tensors_of(rebasin.reference), "reference"),
        rebasin.plain(tensors_of(rebasin.target), "target"),
    )
