"""Simplexes in weight space: the means of several networks, and how much room they take."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import ExampleInputs, NetworkLike, State, StateLike
from sinkhorn_rebasin.connectivity.evaluate_path import Prepare
from sinkhorn_rebasin.connectivity.interpolation import is_mixable, whole_tensors
from sinkhorn_rebasin.connectivity.path_ends import state_like
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.architecture import (
    check_same,
    check_state,
    parameter_names_of,
    real_view,
    tensors_of,
    wider,
)
from sinkhorn_rebasin.networks.copying import evaluation_copy, standalone_copy
from sinkhorn_rebasin.networks.execution import run_at
from sinkhorn_rebasin.networks.modes import free_modes
from sinkhorn_rebasin.networks.support import check_module

Shares: TypeAlias = Sequence[float] | Tensor
"""One number of each vertex, (vertices,), which add up to one."""


class Simplex:
    r"""Describe all means of several networks.

    .. math:: \theta(w) = \sum_m w_m\, \theta_m, \qquad w_m \ge 0, \quad \sum_m w_m = 1

    Weights and statistics of norm layers are mixed; every other buffer is that of the vertex with the largest share.
    The vertices are read when a point is asked for and never written to, and gradients reach them.

    Args:
        module: the architecture, never changed; it is run in the mode it is in.
        vertices: networks or states of this architecture, at least one.
        statistics: names of float buffers that are mixed too, besides those of norm layers.

    Raises:
        ArchitectureError: no vertex, or names or shapes of one differ from the module's.

    Example:
        >>> nets = [nn.Linear(3, 2) for _ in range(3)]
        >>> simplex = Simplex(nets[0], nets)
        >>> mean = simplex.state_at([1 / 3] * 3)["bias"]
        >>> torch.allclose(mean, torch.stack([net.bias for net in nets]).mean(0))
        True

    Source: Benton, Maddox, Lotfi, Wilson, "Loss Surface Simplexes for Mode Connecting Volumes and Fast Ensembling"
    (2021).
    """

    def __init__(
        self, module: nn.Module, vertices: Sequence[NetworkLike], statistics: Collection[str] = ()
    ) -> None:
        check_module(module)
        if not vertices:
            raise ArchitectureError("Expected at least one vertex of a simplex but got none.")
        self.module = module
        self.vertices: list[StateLike] = []
        for number, vertex in enumerate(vertices):
            state = state_like(module, vertex, f"vertex {number}")
            check_state(module, state, f"vertex {number}")
            check_same(tensors_of(module), state)
            self.vertices.append(state)
        self._whole = whole_tensors(module, statistics)
        self._weights = [name for name in parameter_names_of(module) if is_mixable(self.vertices[0][name])]

    def __len__(self) -> int:
        return len(self.vertices)

    def __repr__(self) -> str:
        return f"Simplex({type(self.module).__name__}, {len(self)} vertices)"

    def state_at(self, shares: Shares) -> State:
        """Return the tensors at a point, all new.

        Args:
            shares: w, (vertices,); a tensor may have a gradient.

        Raises:
            ArchitectureError: another number of shares, or they do not add up to one.
        """
        parts = _checked(shares, len(self))
        sizes = [float(part.detach()) if isinstance(part, Tensor) else part for part in parts]
        largest = self.vertices[sizes.index(max(sizes))]
        return {
            name: _mean([vertex[name] for vertex in self.vertices], parts)
            if name not in self._whole and is_mixable(tensor)
            else largest[name].clone()
            for name, tensor in self.vertices[0].items()
        }

    def __call__(self, inputs: ExampleInputs, shares: Shares | None = None) -> Any:
        """Run the network at a point.

        Without shares that is the middle.
        """
        return run_at(
            self.module, self.state_at([1 / len(self)] * len(self) if shares is None else shares), inputs
        )

    @torch.no_grad()
    def module_at(self, shares: Shares) -> nn.Module:
        """Return a new plain network at a point.

        It has the mode of the simplex's module.
        """
        network = standalone_copy(self.module)
        free_modes(network)
        network.load_state_dict(self.state_at(shares), strict=False)
        return network

    def draw(
        self, count: int = 1, *, concentration: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        r"""Draw points of the simplex.

        .. math:: w \sim \mathrm{Dirichlet}(\alpha, \dots, \alpha)

        Args:
            count: how many.
            concentration: α. At 1 all of the simplex is equally likely, above the middle is more so.
            generator: draws; without it torch's global random state does.

        Returns:
            (count, vertices), in double precision.

        Raises:
            ArchitectureError: a concentration that is not above zero.

        Example:
            >>> shares = Simplex(nn.Linear(3, 2), [nn.Linear(3, 2)] * 4).draw(5)
            >>> shares.shape, torch.allclose(shares.sum(1), torch.ones(5, dtype=torch.float64))
            (torch.Size([5, 4]), True)
        """
        return dirichlet(count, len(self), concentration, generator)

    def log_volume(self) -> Tensor:
        r"""Return the logarithm of the simplex's volume.

        .. math:: \log V = \tfrac12 \log\det G - \log k!, \qquad
            G_{ij} = \langle \theta_i - \theta_0,\, \theta_j - \theta_0 \rangle, \quad i, j = 1, \dots, k

        It is computed from weights alone, in double precision, complex numbers as pairs of real ones; that of one
        vertex is zero.

        Returns:
            0-d, differentiable in the vertices; minus infinity where they lie in fewer dimensions.

        Example:
            >>> corners = [{"weight": torch.tensor([[x, y]])} for x, y in ((0.0, 0.0), (4.0, 0.0), (0.0, 3.0))]
            >>> round(float(Simplex(nn.Linear(2, 1, bias=False), corners).log_volume().exp()), 6)
            6.0
        """
        flat = [
            torch.cat([real_view(vertex[name]).double().flatten() for name in self._weights])
            for vertex in self.vertices
        ]
        edges = [each - flat[0] for each in flat[1:]]
        if not edges:
            return torch.zeros((), dtype=torch.float64, device=flat[0].device)
        gram = torch.stack(edges) @ torch.stack(edges).T
        sign, log = torch.linalg.slogdet(gram)
        # Rounding can make a determinant of zero negative.
        return torch.where(sign > 0, log, -torch.inf) / 2 - math.lgamma(len(edges) + 1)

    def networks(
        self,
        count: int,
        *,
        concentration: float = 1.0,
        generator: torch.Generator | None = None,
        prepare: Prepare | None = None,
    ) -> list[nn.Module]:
        """Draw networks of the simplex, for an ensemble.

        Args:
            count, concentration, generator: as for :meth:`draw`.
            prepare: called with the network, in eval mode, and the state of each point: ``BatchNormReset(loader)``
                measures running statistics, which a mean of networks needs.

        Returns:
            Plain networks in eval mode; ``sr.Ensemble`` averages what they return.

        Example:
            >>> members = Simplex(nn.Linear(3, 2), [nn.Linear(3, 2), nn.Linear(3, 2)]).networks(5)
            >>> len(members), members[0](torch.ones(1, 3)).shape
            (5, torch.Size([1, 2]))
        """
        drawn = []
        with torch.no_grad():
            for shares in self.draw(count, concentration=concentration, generator=generator):
                network = self.module_at(shares).eval()
                if prepare is not None:
                    state = prepare(evaluation_copy(network), tensors_of(network))
                    network.load_state_dict(state, strict=False)
                drawn.append(network)
        return drawn


def dirichlet(
    count: int, vertices: int, concentration: float = 1.0, generator: torch.Generator | None = None
) -> Tensor:
    """Draw shares, (count, vertices), in double precision.

    Raises:
        ArchitectureError: a concentration that is not above zero.

    >>> dirichlet(2, 1).tolist()
    [[1.0], [1.0]]
    """
    if not concentration > 0:
        raise ArchitectureError(f"Expected a concentration above 0 but got {concentration}.")
    place = "cpu" if generator is None else generator.device
    alpha = torch.full((count, vertices), float(concentration), dtype=torch.float64, device=place)
    drawn = torch._standard_gamma(alpha, generator=generator)
    return drawn / drawn.sum(1, keepdim=True)


def _mean(tensors: Sequence[Tensor], shares: Sequence[float | Tensor]) -> Tensor:
    """Mix tensors in single precision at least, rounding once."""
    dtype = tensors[0].dtype
    total = torch.zeros_like(tensors[0], dtype=wider(dtype))
    for tensor, share in zip(tensors, shares, strict=True):
        part = share.to(total) if isinstance(share, Tensor) else share
        total = total + part * tensor.to(total)
    return total.to(dtype)


def _checked(shares: Shares, vertices: int) -> list[float | Tensor]:
    values = torch.as_tensor(shares, dtype=torch.float64).detach().flatten().tolist()
    if len(values) != vertices or not abs(sum(values) - 1) < 1e-4:
        raise ArchitectureError(
            f"Expected one share of each of the {vertices} vertices, which add up to 1, but got {len(values)} that "
            f"add up to {sum(values):.6g}."
        )
    return list(shares) if isinstance(shares, Tensor) and shares.requires_grad else values
