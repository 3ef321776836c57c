"""Simplicial complexes between networks whose vertices are parameters."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import ExampleInputs, NetworkLike, State
from sinkhorn_rebasin.connectivity.curves import LinearPath
from sinkhorn_rebasin.connectivity.interpolation import is_mixable
from sinkhorn_rebasin.connectivity.learned_curve import attached_state
from sinkhorn_rebasin.connectivity.simplex import Shares, Simplex
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.architecture import learn_parameters, real_view, single_precision
from sinkhorn_rebasin.networks.copying import standalone_copy
from sinkhorn_rebasin.networks.execution import run_at
from sinkhorn_rebasin.networks.modes import hold_modes

ComplexKind: TypeAlias = Literal["simplex", "star"]


class LearnedComplex(nn.Module):
    r"""Learn vertices that join networks by simplexes.

    .. math:: \min_{\theta_j} \mathbb E_{\theta \sim K}\, \mathcal C(\theta) - \lambda_j \log V(K)

    The networks stay. Vertices are learned one after the other, see :class:`SimplexModule`; each begins at the mean
    of the vertices that it joins, moved a little at random, since a simplex without volume has no way to grow.

    - ``"simplex"``: one simplex has all networks and all vertices. Align several networks first.
    - ``"star"``: a simplex for each network, with all learned vertices. These are connectors (SPRO).
    - One network and several vertices are a simplex around it; one for each of several networks (ESPRO).

    Args:
        networks: the fixed vertices, modules or, but for the first, weights; not changed.
        vertices: how many are learned, at least 1.
        kind: ``"simplex"`` or ``"star"``.
        spread: length of the random move from the mean, as a part of the length of each tensor.
        seed: of these moves.
        statistics: as for :class:`LinearPath`.

    Attributes:
        vertices: one network each; these are learned.
        grown: how many of them are in the complex yet, a buffer.

    Raises:
        ArchitectureError: networks that differ, a kind that is not known, or no vertex to learn.

    Example:
        >>> complex = LearnedComplex([nn.Linear(3, 2), nn.Linear(3, 2)], vertices=2)
        >>> complex.grow()
        >>> simplex, = complex.simplexes()
        >>> len(simplex), bool(simplex.log_volume().isfinite())
        (3, True)

    Source: Benton, Maddox, Lotfi, Wilson, "Loss Surface Simplexes for Mode Connecting Volumes and Fast Ensembling"
    (2021); several networks in one simplex, aligned first: this package.
    """

    grown: Tensor

    @torch.inference_mode(False)
    def __init__(
        self,
        networks: Sequence[NetworkLike],
        *,
        vertices: int = 1,
        kind: ComplexKind = "simplex",
        spread: float = 0.01,
        seed: int = 0,
        statistics: Collection[str] = (),
    ) -> None:
        super().__init__()
        if kind not in get_args(ComplexKind):
            raise ArchitectureError(
                f"Expected kind to be one of {', '.join(get_args(ComplexKind))} but got {kind!r}."
            )
        if vertices < 1 or not networks or not isinstance(networks[0], nn.Module):
            raise ArchitectureError(
                f"Expected networks, the first of them a module, and at least one vertex to learn but got "
                f"{len(networks)} networks and {vertices} vertices."
            )
        self.kind, self.spread, self.seed, self.statistics = kind, spread, seed, frozenset(statistics)
        first = networks[0]
        fixed = [LinearPath.between(first, other, statistics).module_at(1.0) for other in networks]
        self.networks = nn.ModuleList(learn_parameters(network, False) for network in fixed)
        self.vertices = nn.ModuleList(standalone_copy(fixed[0]) for _ in range(vertices))
        self.register_buffer("grown", torch.zeros((), dtype=torch.long))
        hold_modes(self)  # networks that rewrite weights in train() or eval() would change the vertices

    def __len__(self) -> int:
        """Count the vertices that are in the complex yet."""
        return len(self.networks) + int(self.grown)

    @torch.no_grad()
    def grow(self) -> None:
        """Take the next vertex in.

        Raises:
            ArchitectureError: all vertices are in.
        """
        number = int(self.grown)
        if number == len(self.vertices):
            raise ArchitectureError(f"Expected a vertex to take in but all {number} are in the complex.")
        joined = Simplex(self._module, [*self.networks, *self.vertices[:number]], self.statistics)
        vertex = self.vertices[number]
        vertex.load_state_dict(joined.state_at([1 / len(joined)] * len(joined)), strict=False)
        generator = torch.Generator("cpu").manual_seed(self.seed + number)
        for parameter in filter(is_mixable, vertex.parameters()):
            length, shape = single_precision(parameter).norm(), real_view(parameter).shape
            noise = torch.randn(shape, generator=generator).to(length)
            noise = noise * (self.spread * length / max(1, noise.numel()) ** 0.5)
            parameter.add_((torch.view_as_complex(noise) if parameter.is_complex() else noise).to(parameter))
        self.grown += 1
        self.free_newest()

    def free_newest(self) -> None:
        """Let gradients reach the newest vertex alone."""
        for number, vertex in enumerate(self.vertices):
            learn_parameters(vertex, number == int(self.grown) - 1)

    def simplexes(self) -> list[Simplex]:
        """Return the simplexes as they are now.

        Gradients reach the learned vertices.
        """
        learned = [attached_state(vertex) for vertex in list(self.vertices)[: int(self.grown)]]
        kept = [attached_state(network) for network in self.networks]
        parts = [kept] if self.kind == "simplex" else [[each] for each in kept]
        return [Simplex(self._module, [*part, *learned], self.statistics) for part in parts]

    def log_volume(self) -> Tensor:
        """Return the log-volume of all simplexes, 0-d."""
        return torch.stack([simplex.log_volume() for simplex in self.simplexes()]).logsumexp(0)

    def draw_states(
        self, count: int, *, concentration: float = 1.0, generator: torch.Generator | None = None
    ) -> list[State]:
        """Draw the tensors at random points.

        All simplexes are equally likely.

        Args:
            count: how many.
            concentration, generator: as for :meth:`Simplex.draw`.
        """
        simplexes = self.simplexes()
        place = "cpu" if generator is None else generator.device
        picked = torch.randint(len(simplexes), (count,), generator=generator, device=place).tolist()
        options: dict[str, Any] = {"concentration": concentration, "generator": generator}
        return [simplexes[each].state_at(simplexes[each].draw(1, **options)[0]) for each in picked]

    def forward(self, inputs: ExampleInputs, shares: Shares | None = None, simplex: int = 0) -> Any:
        """Run the network at a point of a simplex.

        Without shares that is its middle. Batch norm is in this module's mode.
        """
        return self.simplexes()[simplex](inputs, shares)

    def run(self, state: State, inputs: ExampleInputs) -> Any:
        """Run the architecture at a state.

        Batch norm is in this module's mode.
        """
        return run_at(self._module, state, inputs)

    @property
    def _module(self) -> nn.Module:
        return self.networks[0]

    def extra_repr(self) -> str:
        """Tell the kind, and how many vertices there are."""
        return (
            f"{self.kind}, {len(self.networks)} networks, {int(self.grown)} of {len(self.vertices)} vertices"
        )
