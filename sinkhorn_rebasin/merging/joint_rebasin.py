"""The permutations and scales of several networks, learned together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import BatchAdapter, ExampleInputs, NetworkLike, Permutations, State
from sinkhorn_rebasin.activations import repair as repaired
from sinkhorn_rebasin.connectivity.interpolation import Interpolation
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.matching.base import Alignment
from sinkhorn_rebasin.merging.many_alignment import ManyAlignment
from sinkhorn_rebasin.merging.match_many import ManyMethod, match_many
from sinkhorn_rebasin.merging.states import check_several, check_shares
from sinkhorn_rebasin.permutations import PermutationSpec, RescalingSpec, identity_permutations
from sinkhorn_rebasin.rebasin import SinkhornRebasin
from sinkhorn_rebasin.rebasin.soft_together import soft_permutations_together


class JointRebasin(nn.Module):
    r"""Learn the permutations of several networks together.

    .. math:: \theta(w) = w_1\, \theta_1 + \sum_{m > 1} w_m\, \pi_{P_m}(\theta_m), \qquad
        P_m = \mathrm{Sinkhorn}(X_m / \tau), \quad \sum_m w_m = 1

    The first network stays. Every other one has a :class:`SinkhornRebasin` of its own, and a loss of
    :math:`\theta(w)` trains them all: what is good for the mean of all need not be good for two of them. Scales of
    the first network would add nothing: one factor for a unit in all networks leaves the function of their mean as
    it is.

    Args:
        networks: at least two, of one architecture. The first is a module; none is changed.
        example_inputs: a tensor, tuple or dict the networks take; needed unless ``spec`` is given.
        spec: the symmetries to use, instead of discovering them.
        start: a method of :func:`match_many`, or an alignment of these networks.
        temperature: τ of all.
        rescale: learn scales and signs too: see :class:`SinkhornRebasin`.
        check: verify numerically that the symmetries leave the functions unchanged.
        generator: draws the orders of the method.

    Attributes:
        rebasins: one for each network but the first.

    Raises:
        ArchitectureError: fewer than two networks, or networks that differ; the first tensor is named.
        SymmetryError: a claimed symmetry changes the function; its group is named.

    Example:
        >>> nets = [nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(3)]
        >>> joint = JointRebasin(nets, torch.randn(2, 4))
        >>> joint(torch.randn(5, 4), shares=[0.5, 0.25, 0.25]).sum().backward()
        >>> len(joint.rebasins), sum(p.grad is not None for p in joint.parameters())
        (2, 2)

    Source: this package; permutations of one pair: Guerrero-Peña et al. (2023).
    """

    temperature: Tensor

    @torch.inference_mode(False)
    def __init__(
        self,
        networks: Sequence[NetworkLike],
        example_inputs: ExampleInputs = None,
        *,
        spec: PermutationSpec | None = None,
        start: ManyMethod | ManyAlignment = "merge_many",
        temperature: float = 1.0,
        rescale: bool | RescalingSpec = False,
        check: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_several(networks, "to align")
        first, *others = networks
        probe = SinkhornRebasin(
            first, others[0], example_inputs, spec=spec, start="identity", rescale=rescale, check=False
        )
        spec, rescaling = probe.spec, probe.rescaling if rescale else False
        if isinstance(start, str):
            start = match_many(networks, spec, method=start, generator=generator)
        if len(start) != len(networks):
            raise ArchitectureError(
                f"Expected an alignment of {len(networks)} networks to start from but got one of {len(start)}."
            )
        self.rebasins = nn.ModuleList(
            SinkhornRebasin(
                first,
                other,
                example_inputs,
                spec=spec,
                start=start.between(0, number),
                temperature=temperature,
                rescale=rescaling,
                check=check,
            )
            for number, other in enumerate(others, 1)
        )
        for rebasin in self._each():
            rebasin.reference = self._first.reference  # held once
        self.tolerance, self.max_iterations = self._first.tolerance, self._first.max_iterations
        # Continuous symmetries are not learned together.
        self.continuous, self.maps, self.reference_maps = (
            self._first.continuous,
            nn.ModuleDict(),
            nn.ModuleDict(),
        )
        self._mixing = Interpolation(self._first.target, self._first._mixing.statistics)
        self.register_buffer("temperature", torch.tensor(float(temperature), device="cpu"))

    @property
    def _first(self) -> SinkhornRebasin:
        return next(self._each())

    def _each(self) -> Iterator[SinkhornRebasin]:
        for rebasin in self.rebasins:
            assert isinstance(rebasin, SinkhornRebasin)
            yield rebasin

    @property
    def spec(self) -> PermutationSpec:
        """Return the symmetries of all."""
        return self._first.spec

    @property
    def reference(self) -> nn.Module:
        """Return the frozen copy of the first network."""
        return self._first.reference

    def __len__(self) -> int:
        return 1 + len(self.rebasins)

    def permutations(self, hard: bool | None = None) -> list[dict[str, Tensor]]:
        """Return the permutations of every network but the first.

        Args:
            hard: whether hard ones; None for soft ones in training mode and hard ones in eval mode.
        """
        rebasins = list(self._each())
        for rebasin in rebasins:
            # Written only where it changed: another mean of the same step may wait for its backward pass.
            if bool(rebasin.temperature != self.temperature):
                with torch.no_grad():
                    rebasin.temperature.copy_(self.temperature)
        if not self.training if hard is None else hard:
            return [rebasin.hard_permutations() for rebasin in rebasins]
        return soft_permutations_together(rebasins)

    def states(
        self, hard: bool | None = None, *, permutations: Sequence[Permutations] | None = None
    ) -> list[State]:
        """Return the tensors of all networks in the order of the first.

        Args:
            hard: whether at hard permutations; None for soft ones in training mode and hard ones in eval mode.
            permutations: those of :meth:`permutations`, for a loss that needs the same ones more than once.
        """
        given = self.permutations(hard) if permutations is None else permutations
        moved = [
            rebasin.rebased_state(permutations=each)
            for rebasin, each in zip(self._each(), given, strict=True)
        ]
        return [self._first.reference_state(), *moved]

    def state_at(
        self,
        shares: Sequence[float] | None = None,
        hard: bool | None = None,
        *,
        permutations: Sequence[Permutations] | None = None,
    ) -> State:
        """Return the weighted mean of all networks.

        Ignored layers are the first network's. Buffers without a mean are those of a network with a large share.

        Args:
            shares: w, one a network, adding up to 1; equal without it.
            hard, permutations: as for :meth:`states`.

        Raises:
            ArchitectureError: another number of shares, or shares that do not add up to 1.
        """
        shares = check_shares(shares, len(self))
        states = self.states(hard, permutations=permutations)
        # Negative shares come last, so that no sum of shares on the way is negative.
        order = sorted(range(len(self)), key=lambda number: shares[number] < 0)
        ignored, so_far = self.spec.ignored, shares[order[0]]
        mixed = {name: tensor for name, tensor in states[order[0]].items() if name not in ignored}
        for number in order[1:]:
            so_far += shares[number]
            mixed = self._mixing(mixed, states[number], shares[number] / so_far if so_far > 0 else 0.0)
        return {name: tensor if name in ignored else mixed[name] for name, tensor in states[0].items()}

    def forward(self, inputs: ExampleInputs, shares: Sequence[float] | None = None) -> Any:
        """Run the weighted mean of all networks.

        Args:
            inputs: a tensor, a tuple of positional or a dict of keyword arguments.
            shares: w, one a network; equal without it.
        """
        return self.run(self.state_at(shares), inputs)

    def run(self, state: State, inputs: ExampleInputs) -> Any:
        """Run the architecture at a state.

        Batch norm is in this module's mode.
        """
        return self._first.run(state, inputs)

    @torch.no_grad()
    def alignment(self) -> ManyAlignment:
        """Return the hard permutations, signs and scales of all as they are now."""
        stays = Alignment(identity_permutations(self.spec), self.spec, method="JointRebasin")
        return ManyAlignment(
            (stays, *(rebasin.alignment() for rebasin in self._each())), method="JointRebasin"
        )

    def merge(
        self,
        shares: Sequence[float] | None = None,
        *,
        repair: Iterable[Any] | None = None,
        batch: BatchAdapter | None = None,
    ) -> nn.Module:
        """Return the weighted mean of all as a plain network, at hard permutations.

        Args:
            shares: w, one a network; equal without it.
            repair: batches of training data on which its activations are put right: see
                :func:`~sinkhorn_rebasin.repair`.
            batch: a function from a batch to (inputs, labels), for data that yield something else.

        Raises:
            ArchitectureError: another number of shares, or shares that do not add up to 1.
        """
        merged = self._first.plain(self.state_at(shares, hard=True), "reference")
        if repair is None:
            return merged
        first = self._first.plain(self._first.reference_state(), "reference")
        others = [rebasin.to_model() for rebasin in self._each()]
        at = check_shares(shares, len(self))
        return repaired(merged, first, others, self.spec, repair, at=at, batch=batch)

    @property
    def scores(self) -> nn.ModuleList:
        """Return the scores of all permutations."""
        return nn.ModuleList(rebasin.scores for rebasin in self._each())

    @property
    def sign_scores(self) -> nn.ModuleList:
        """Return the scores of all signs."""
        return nn.ModuleList(rebasin.sign_scores for rebasin in self._each())

    @property
    def log_scales(self) -> nn.ModuleList:
        """Return the logarithms of all scales; empty without any."""
        return nn.ModuleList(rebasin.log_scales for rebasin in self._each() if rebasin.log_scales)

    def extra_repr(self) -> str:
        """Tell the number of networks and the temperature."""
        return f"{len(self)} networks; temperature={float(self.temperature):g}"
