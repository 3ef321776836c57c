"""What an alignment gives back, and what it says of itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import TYPE_CHECKING, Any

from torch import nn

from sinkhorn_rebasin._typing import BatchAdapter, Heads, MergedHeads
from sinkhorn_rebasin.activations import reset_batch_norm
from sinkhorn_rebasin.connectivity import PathEvaluation
from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.front.fused_pair import fuse_pair, fused_module
from sinkhorn_rebasin.front.judge import Verdict
from sinkhorn_rebasin.front.recipe import Recipe
from sinkhorn_rebasin.matching import Alignment
from sinkhorn_rebasin.merging.fused_state import FusedState
from sinkhorn_rebasin.merging.fusing import Fusion
from sinkhorn_rebasin.networks.separate_heads import with_each_head
from sinkhorn_rebasin.rebasin import SinkhornRebasin
from sinkhorn_rebasin.shown import html_table, svg_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False)
class AlignmentResult:
    """Hold an aligned network, how it was found, and how good it is on held-out data.

    Attributes:
        rebasin: both networks, with the permutations, signs and scales that were kept.
        start: the method whose permutations the fits started from.
        starts: how each method that was tried is judged, by its name.
        before: the path from the target as it was to the reference, on held-out data; None without such data, or
            where batches have no labels.
        after: the path from the target where it is now.
        history: one entry per evaluation: stage, step, and barrier and midpoint loss, or the loss.
        steps: taken in each stage.
        seconds: that the call took.
        function_change: largest change of an output of the target, relative to its largest output; None without
            inputs.
        recipe, seed: how it was trained.
        held_out: where the held-out data came from, and how many batches they are.
        repaired: whether it was aligned for REPAIR.
        interrupted: whether it was stopped by Ctrl-C.
        notes: anything else worth knowing, a sentence each.
    """

    rebasin: SinkhornRebasin
    start: str
    starts: Mapping[str, Verdict] = field(default_factory=dict)
    before: PathEvaluation | None = None
    after: PathEvaluation | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    steps: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    function_change: float | None = None
    recipe: Recipe = field(default_factory=Recipe)
    seed: int = 0
    held_out: str = ""
    repaired: bool = False
    interrupted: bool = False
    notes: tuple[str, ...] = ()
    statistics: list[Any] = field(default_factory=list)
    batch: BatchAdapter | None = None

    @property
    def alignment(self) -> Alignment:
        """Return permutations, signs, scales and maps."""
        return replace(self.rebasin.alignment(), method="align")

    def save(self, path: str | PathLike[str]) -> None:
        """Write the alignment as a file: see :meth:`Alignment.save`.

        Raises:
            CheckpointError: the file cannot be written.
        """
        self.alignment.save(path)

    def to_model(self) -> nn.Module:
        """Return the target in its new place, a plain network that computes what it did."""
        return self.rebasin.to_model()

    def merge(
        self,
        at: float = 0.5,
        *,
        repair: Iterable[Any] | bool | None = None,
        batch: BatchAdapter | None = None,
        heads: MergedHeads | None = None,
        fusion: Fusion = "mean",
        data: Sequence[Any] | None = None,
    ) -> nn.Module:
        """Return the network between both as a plain one, put right as it was judged.

        Args:
            at: λ, 0 for the target and 1 for the reference.
            repair: batches of training data to do REPAIR with. None does REPAIR if the networks were aligned for it,
                and measures batch norm otherwise, on the training batches of the alignment; False does neither.
            batch: a function from a batch to (inputs, labels); without it that of the alignment.
            heads: whose ignored layers it has, ``"reference"``, ``"target"`` or ``"each"``: see
                :meth:`SinkhornRebasin.merge`; None: as the networks were aligned.
            fusion, data: as for :meth:`fused`, which also says what was fitted.

        Raises:
            ArchitectureError: ``"each"`` where no network has heads of its own.
            DataError: a fusion without data, or with such that it cannot use.
        """
        if heads == "each":

            def merged_with(whose: Heads) -> nn.Module:
                """Return the network with the heads of one alone."""
                return self.merge(at, repair=repair, batch=batch, heads=whose, fusion=fusion, data=data)

            return with_each_head(merged_with, self.rebasin.spec.ignored)
        batch = batch or self.batch
        if repair is True:
            repair = self.statistics or None
        if repair is None and self.repaired:
            repair = self.statistics
        batches = None if isinstance(repair, bool) else repair
        if fusion == "mean":
            merged = self.rebasin.merge(at, repair=batches, batch=batch, heads=heads)
        else:
            state, whose = self.fused(fusion, at, data=data, batch=batch), heads or self.rebasin.heads
            merged = fused_module(self.rebasin, state, at, whose or "reference", batches, batch)
        if repair is None and self.statistics and 0 < at < 1:
            return reset_batch_norm(merged, self.statistics, batch=batch)
        return merged

    def fused(
        self,
        fusion: Fusion,
        at: float = 0.5,
        *,
        data: Sequence[Any] | None = None,
        batch: BatchAdapter | None = None,
    ) -> FusedState:
        """Fuse both networks, and say what was fitted.

        Args:
            fusion: ``"mean"``, ``"fisher"``, ``"regmean"`` or ``"regmean++"``, or a function with settings, such as
                ``functools.partial(regmean, alpha=0.5)``: see :func:`~sinkhorn_rebasin.fisher`,
                :func:`~sinkhorn_rebasin.regmean` and :func:`~sinkhorn_rebasin.regmean_plus_plus`.
            at: λ, the reference's share.
            data: batches, or what was measured, of the reference and of the target as they were given. None: training
                batches of the alignment for both.
            batch: a function from a batch to (inputs, labels); without it that of the alignment.

        Returns:
            The state; ``print`` it. Ignored layers are the reference's. Statistics of batch norm fit no network yet.

        Raises:
            DataError: there are no data, or such that the fusion cannot use.
        """
        if data is None and self.statistics:
            data = [self.statistics, self.statistics]
        return fuse_pair(self.rebasin, fusion, at, data, batch=batch or self.batch)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the loss along the path before and after.

        Raises:
            DataError: no path was evaluated.
        """
        from sinkhorn_rebasin.plots import plot_paths

        paths = {"as it was": self.before, "aligned": self.after}
        measured = {name: path for name, path in paths.items() if path is not None}
        if not measured:
            raise DataError(
                "Expected paths on held-out data to draw but none was evaluated: pass validation=, or labelled data."
            )
        return plot_paths(measured, ax=ax)

    def __repr__(self) -> str:
        rows = dict(self.rows())
        told = [f"{name} {rows[name]}" for name in ("start", "barrier", "time") if name in rows]
        return f"AlignmentResult({type(self.rebasin.reference).__name__}; {'; '.join(told)})"

    def __str__(self) -> str:
        rows = self.rows()
        width = max(len(name) for name, _ in rows)
        lines = [f"  {name:<{width}}  {value}" for name, value in rows]
        return "\n".join([self._title(), *lines])

    def _repr_html_(self) -> str:
        curve = (
            "" if self.after is None else svg_curve(self.after.positions.tolist(), self.after.losses.tolist())
        )
        return html_table(self._title(), self.rows(), curve)

    def _title(self) -> str:
        name = type(self.rebasin.reference).__name__
        return f"{name}, aligned" + (", interrupted" if self.interrupted else "")

    def rows(self) -> list[tuple[str, str]]:
        """What is told of the alignment, as (name, value)."""
        rows = [("moved", self._moved()), ("start", self._start())]
        if self.before is not None and self.after is not None:
            start = self.starts.get(self.start)
            between = f", {start.barrier:.4f} at the start" if isinstance(start, PathEvaluation) else ""
            rows.append(
                ("barrier", f"{self.before.barrier:.4f} as it was{between}, {self.after.barrier:.4f} now")
            )
            first, last = self.before.midpoint_accuracy, self.after.midpoint_accuracy
            if first is not None and last is not None:
                rows.append(("accuracy", f"{100 * first:.2f} % halfway as it was, {100 * last:.2f} % now"))
        elif self.history:
            losses = [entry["loss"] for entry in self.history if "loss" in entry]
            rows += [("loss", f"{losses[0]:.4g} at the start, {min(losses):.4g} at best")] if losses else []
        rows += [("judged on", self.held_out)] if self.held_out else []
        if self.function_change is not None:
            rows.append(("function", f"changed by {self.function_change:.1e} of its largest output"))
        steps = " + ".join(f"{count} {stage}" for stage, count in self.steps.items())
        rows.append(
            ("time", f"{self.seconds:.1f} s" + (f", {steps} steps" if steps else "") + f", seed {self.seed}")
        )
        return [*rows, *(("note", note) for note in self.notes)]

    def _moved(self) -> str:
        groups = self.rebasin.spec.groups
        units = sum(group.units for group in groups)
        scales = sum(scale.numel() for scale in self.rebasin.log_scales.values())
        signs = len(self.rebasin.sign_scores)
        parts = [f"{units:,} units in {len(groups)} groups"]
        parts += [f"{scales:,} scales"] if scales else []
        parts += [f"signs of {signs} groups"] if signs else []
        return ", ".join(parts)

    def _start(self) -> str:
        tried = {
            name: verdict for name, verdict in self.starts.items() if isinstance(verdict, PathEvaluation)
        }
        if len(tried) < 2:
            return self.start.replace("_", " ")
        barriers = ", ".join(f"{n.replace('_', ' ')} {v.barrier:.4f}" for n, v in tried.items())
        return f"{self.start.replace('_', ' ')} (barriers: {barriers})"
