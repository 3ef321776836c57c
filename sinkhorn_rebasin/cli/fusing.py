"""Aligned models fused by what their owners' data say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sinkhorn_rebasin.cli.data import read_data
from sinkhorn_rebasin.cli.failures import UsageError
from sinkhorn_rebasin.cli.models.loaded import LoadedModel
from sinkhorn_rebasin.cli.terminal import say
from sinkhorn_rebasin.cli.verb import DATA_HELP, Options
from sinkhorn_rebasin.errors import listed
from sinkhorn_rebasin.matching import Alignment
from sinkhorn_rebasin.merging.fused_state import FusedState
from sinkhorn_rebasin.merging.fusing import FUSIONS, fused


def add_fusion(parser: Any) -> None:
    """Add the options for how aligned models become one."""
    parser.add_argument(
        "--fusion",
        choices=["mean", *FUSIONS],
        default="mean",
        help="the plain mean, Fisher merging, RegMean or RegMean++",
    )
    parser.add_argument(
        "--fusion-data",
        type=str,
        nargs="+",
        metavar="DATA",
        help=f"what a fusion measures on, once or one a model; without it --train or --repair: {DATA_HELP}",
    )


def fuse_models(
    options: Options,
    models: Sequence[LoadedModel],
    alignments: Sequence[Alignment],
    shares: Sequence[float] | None = None,
) -> tuple[FusedState, list[tuple[str, str]]]:
    """Fuse models as the options ask.

    What was fitted is told.

    Returns:
        The state, and what a card tells of it.

    Raises:
        UsageError: there are no data, or not one a model.
        RebasinError: as the fusion.
    """
    networks = [model.module for model in models]
    state = fused(networks, alignments, options.fusion, _data(options, models), shares)
    if options.fusion != "mean":
        say(state)
    facts = [("fused by", options.fusion), ("fitted", listed(state.fitted, most=8))]
    not_fitted = [("plain means all the same", listed(state.not_fitted, most=8))] if state.not_fitted else []
    return state, facts + not_fitted


def _data(options: Options, models: Sequence[LoadedModel]) -> list[Iterable[Any]] | None:
    """Read one source of data a model.

    The plain mean needs none.
    """
    if options.fusion == "mean":
        return None
    given = [text for text in (options.train, options.repair) if text is not None]
    texts = options.fusion_data or given[:1]
    if not texts:
        raise UsageError(
            f"Expected data for --fusion {options.fusion} but got none: pass --fusion-data DATA, --train or --repair."
        )
    texts = texts * len(models) if len(texts) == 1 else texts
    if len(texts) != len(models):
        raise UsageError(f"Expected --fusion-data once, or one a model, {len(models)}, but got {len(texts)}.")
    return [read_data(text, model) for text, model in zip(texts, models, strict=True)]
