"""Several networks carried into one basin, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal, overload

from torch import Tensor, nn

from sinkhorn_rebasin._typing import BatchAdapter, NetworkLike, State
from sinkhorn_rebasin.errors import ArchitectureError, CheckpointError
from sinkhorn_rebasin.files.given_networks import state_of
from sinkhorn_rebasin.matching.base import Alignment
from sinkhorn_rebasin.merging.cycle_error import cycle_error
from sinkhorn_rebasin.merging.fusing import Fusion, fused
from sinkhorn_rebasin.merging.heads import check_each, with_own_heads
from sinkhorn_rebasin.merging.mean_network import mean_network, modules_with
from sinkhorn_rebasin.merging.pairwise_barriers import pairwise_barriers
from sinkhorn_rebasin.merging.states import check_shares, mean_state, without_mean
from sinkhorn_rebasin.networks.separate_heads import SeparateHeads
from sinkhorn_rebasin.permutations import PermutationSpec
from sinkhorn_rebasin.shown import html_table


@dataclass(frozen=True, repr=False)
class ManyAlignment(Sequence[Alignment]):
    r"""Carry several networks into the order of the first.

    .. math:: \pi_{p \leftarrow q} = \pi_p^{-1} \circ \pi_q, \qquad
        \pi_{p \leftarrow q} \circ \pi_{q \leftarrow r} = \pi_{p \leftarrow r}

    The second equation holds by construction: whatever way leads from one network to another, it is the same one.

    Attributes:
        alignments: one a network; the first one's is the identity.
        objective: the method's own objective after each round.
        converged: whether the method stopped because nothing improved any more.
        method: its name.
        notes: anything else worth knowing, such as which start was best; not saved.
    """

    alignments: tuple[Alignment, ...]
    objective: tuple[float, ...] = field(default=())
    converged: bool = True
    method: str = field(default="", compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.alignments, tuple):
            raise ArchitectureError(
                f"Expected a tuple of alignments, one a network, but got {type(self.alignments).__name__}: align "
                f"them with match_many(networks, spec)."
            )
        for number, each in enumerate(self.alignments):
            if not isinstance(each, Alignment):
                raise ArchitectureError(
                    f"Expected alignments, one a network, but number {number} is {type(each).__name__}: align them "
                    f"with match_many(networks, spec)."
                )

    @property
    def spec(self) -> PermutationSpec:
        """Return the symmetries of all."""
        return self.alignments[0].spec

    def __len__(self) -> int:
        return len(self.alignments)

    @overload
    def __getitem__(self, index: int) -> Alignment: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Alignment, ...]: ...
    def __getitem__(self, index: int | slice) -> Alignment | tuple[Alignment, ...]:
        return self.alignments[index]

    def __iter__(self) -> Iterator[Alignment]:
        return iter(self.alignments)

    def between(self, to: int, start: int) -> Alignment:
        """Return the alignment that carries network ``start`` into the order of network ``to``.

        >>> import torch
        >>> from sinkhorn_rebasin.permutations import Group
        >>> spec = PermutationSpec((Group("a", 3),), (), {})
        >>> orders = [torch.arange(3), torch.tensor([1, 2, 0]), torch.tensor([2, 1, 0])]
        >>> many = ManyAlignment(tuple(Alignment({"a": order}, spec) for order in orders))
        >>> many.between(1, 1).permutations["a"].tolist()
        [0, 1, 2]
        """
        return self.alignments[to].invert().compose(self.alignments[start])

    def cycle_error(self) -> float:
        """Measure how far the ways around three networks are from the identity; see :func:`cycle_error`."""
        numbers = range(len(self))
        ways = {(p, q): self.between(p, q) for p in numbers for q in numbers if p != q}
        return cycle_error(ways)

    def apply(self, networks: Sequence[NetworkLike]) -> list[State]:
        """Return the states of all networks in the order of the first.

        Raises:
            ArchitectureError: not one network an alignment.
        """
        if len(networks) != len(self):
            raise ArchitectureError(
                f"Expected one network an alignment, {len(self)}, but got {len(networks)}: pass those that were "
                f"aligned, in the same order."
            )
        return [each.apply(network) for each, network in zip(self.alignments, networks, strict=True)]

    @overload
    def merge(
        self,
        networks: Sequence[NetworkLike],
        shares: Sequence[float] | None = ...,
        *,
        fusion: Fusion = ...,
        data: Sequence[Any] | None = ...,
        batch: BatchAdapter | None = ...,
        heads: None = ...,
    ) -> State: ...
    @overload
    def merge(
        self,
        networks: Sequence[NetworkLike],
        shares: Sequence[float] | None = ...,
        *,
        fusion: Fusion = ...,
        data: Sequence[Any] | None = ...,
        batch: BatchAdapter | None = ...,
        heads: Literal["each"],
    ) -> SeparateHeads: ...
    def merge(
        self,
        networks: Sequence[NetworkLike],
        shares: Sequence[float] | None = None,
        *,
        fusion: Fusion = "mean",
        data: Sequence[Any] | None = None,
        batch: BatchAdapter | None = None,
        heads: Literal["each"] | None = None,
    ) -> State | SeparateHeads:
        r"""Return a mean of aligned networks, or a fit.

        .. math:: \theta = \sum_m w_m\, \pi_m(\theta_m), \qquad \sum_m w_m = 1

        Statistics of batch norm are mixed too, and then fit no network: see :func:`reset_batch_norm`. Whole numbers
        and ignored layers are the first network's, and vectors of spectral norm those of the largest share.

        Args:
            networks: those that were aligned, in the same order.
            shares: w, one a network; equal without it.
            fusion: ``"mean"``, ``"fisher"``, ``"regmean"`` or ``"regmean++"``, or a function with settings, such as
                ``functools.partial(regmean, alpha=0.5)``: see :func:`fisher`, :func:`regmean` and
                :func:`regmean_plus_plus`. These return a :class:`FusedState`, which says what was fitted.
            data: of a fusion: one entry a network, of batches or of what its owner measured.
            batch: a function from a batch to (inputs, labels), for data that yield something else.
            heads: ``"each"`` for a module with the ignored layers of each network, by the names "0", "1" and so on.

        Raises:
            ArchitectureError: another number of networks or shares, shares that do not add up to 1, or ``"each"``
                where nothing is ignored, or where one of the networks is no module.
            DataError: a fusion without data, or with such that it cannot use.
        """
        if heads is not None:
            check_each(heads, networks, self.spec.ignored)
        shares = check_shares(shares, len(self))
        if fusion != "mean":
            mixed: State = fused(networks, self.alignments, fusion, data, shares, batch=batch)
        else:
            ignored, first = self.spec.ignored, state_of(networks[0], "reference", self.spec.shapes)
            states = [_without_heads(state, self.spec) for state in self.apply(networks)]
            mixed = mean_state(states, shares, without_mean(networks))
            mixed |= {name: first[name] for name in ignored if name in first}
        if heads is None:
            return mixed
        trunk = _without_heads(mixed, self.spec)
        return with_own_heads(networks, trunk, self.apply(networks), self.spec.ignored)

    def to_model(
        self,
        networks: Sequence[NetworkLike],
        shares: Sequence[float] | None = None,
        *,
        repair: Iterable[Any] | None = None,
        batch: BatchAdapter | None = None,
    ) -> nn.Module:
        """Return the mean of aligned networks as one.

        It is plain, and of the first one's class.

        Args:
            networks: those that were aligned, in the same order; at least one a module.
            shares: w, one a network; equal without it.
            repair: batches of training data on which its activations are put right: see
                :func:`~sinkhorn_rebasin.repair`.
            batch: a function from a batch to (inputs, labels), for data that yield something else.

        Raises:
            ArchitectureError: as :meth:`merge`, or no network is a module.
            DataError: data that REPAIR cannot use.
        """
        shares = check_shares(shares, len(self))
        mean = self.merge(networks, shares)
        return mean_network(networks, self.apply(networks), mean, self.spec, shares, repair, batch)

    def barriers(
        self,
        networks: Sequence[NetworkLike],
        data: Iterable[Any],
        *,
        batch: BatchAdapter | None = None,
        **options: Any,
    ) -> Tensor:
        """Measure the loss barrier between every two aligned networks.

        Args:
            networks: those that were aligned, in the same order; at least one a module.
            data: held-out batches that can be read again and again.
            batch: a function from a batch to (inputs, labels), for data that yield something else.
            options: ``criterion``, ``points``, ``statistics`` and ``repair`` of :func:`pairwise_barriers`.

        Returns:
            (M, M), for :func:`sinkhorn_rebasin.plots.plot_barrier_matrix`.
        """
        aligned = modules_with(networks, self.apply(networks))
        return pairwise_barriers(aligned, self.spec, data, batch=batch, **options)

    def save(self, folder: str | PathLike[str]) -> None:
        """Write a folder with one file of safetensors a network, without weights and code.

        Raises:
            CheckpointError: a file cannot be written.
        """
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        for number, alignment in enumerate(self.alignments):
            told = replace(alignment, objective=self.objective, converged=self.converged, method=self.method)
            told.save(path / f"{number}.safetensors")

    @classmethod
    def load(cls, folder: str | PathLike[str]) -> ManyAlignment:
        """Read what :meth:`save` wrote.

        Raises:
            CheckpointError: a file is missing, cut short, or something else.
        """
        files = sorted(Path(folder).glob("*.safetensors"), key=lambda file: (len(file.stem), file.stem))
        if [file.stem for file in files] != [str(number) for number in range(len(files))] or not files:
            raise CheckpointError(
                f"Expected 0.safetensors, 1.safetensors and so on in {folder} but got "
                f"{[file.name for file in files]}: give the folder that ManyAlignment.save wrote."
            )
        alignments = tuple(Alignment.load(file) for file in files)
        first = alignments[0]
        return cls(alignments, first.objective, first.converged, first.method)

    def __repr__(self) -> str:
        ends = [f"{value:.5g}" for value in (self.objective[:1] + self.objective[-1:])]
        parts = [self.method, f"{len(self)} networks", f"{len(self.spec.groups)} groups"]
        parts += [f"objective {' to '.join(ends)} in {len(self.objective)} rounds"] if ends else []
        parts += [] if self.converged else ["not converged"]
        return f"ManyAlignment({', '.join(part for part in parts if part)})"

    def _repr_html_(self) -> str:
        rows = [(str(number), repr(alignment)) for number, alignment in enumerate(self.alignments)]
        return html_table(
            f"ManyAlignment {self.method}".strip(), [*rows, *(("note", each) for each in self.notes)]
        )

    def __str__(self) -> str:
        return "\n".join([repr(self), *(f"  {note}" for note in self.notes)])


def _without_heads(state: State, spec: PermutationSpec) -> State:
    return {name: tensor for name, tensor in state.items() if name not in spec.ignored}
