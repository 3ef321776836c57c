"""Filters that a batch norm follows: it divides their scale away, so that they can have norm one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import ExampleInputs, State, StateLike
from sinkhorn_rebasin.errors import ArchitectureError, SpecError
from sinkhorn_rebasin.networks.architecture import named_tensors
from sinkhorn_rebasin.networks.copying import evaluation_copy, standalone_copy
from sinkhorn_rebasin.networks.double_precision import narrow_tolerance
from sinkhorn_rebasin.networks.modes import in_mode
from sinkhorn_rebasin.networks.nested_tensors import largest_change
from sinkhorn_rebasin.networks.random_inputs import in_double_precision
from sinkhorn_rebasin.networks.support import check_supported
from sinkhorn_rebasin.networks.undisturbed import undisturbed
from sinkhorn_rebasin.permutations.rescaling import along
from sinkhorn_rebasin.symmetry.rescaling.sensitivity import draw_run, run_precisely

TOLERANCE = 1e-9
LOOKED_BACK = 3
"""How many layers before a norm are asked whether their filters are those that it norms."""


@dataclass(frozen=True)
class NormFilter:
    """Describe a layer whose filters a batch norm follows.

    Attributes:
        weight: name of the tensor of filters.
        axis: its axis of units.
        bias: name of the layer's bias, or None.
        norm: the prefix of the batch norm, ``""`` where the network is one.
        eps: what it adds to the variance.
    """

    weight: str
    axis: int
    bias: str | None
    norm: str
    eps: float

    def norms(self, state: StateLike) -> Tensor:
        """Return the norm of each filter, (units,)."""
        weight = state[self.weight].detach()
        wide = torch.promote_types(weight.dtype, torch.float32)
        return weight.to(wide).movedim(self.axis, 0).flatten(1).norm(dim=1)

    def scaled(self, state: StateLike, scales: Tensor) -> State:
        r"""Scale filters, and the statistics with them.

        .. math:: w_i \leftarrow s_i w_i, \quad b_i \leftarrow s_i b_i, \quad \mu_i \leftarrow s_i \mu_i, \quad
            \sigma_i^2 \leftarrow s_i^2 (\sigma_i^2 + \varepsilon) - \varepsilon

        Args:
            state: tensor name to tensor; not changed.
            scales: (units,), above zero.
        """
        moved = dict(state)
        mean, variance = (f"{self.norm}{'.' if self.norm else ''}running_{what}" for what in ("mean", "var"))
        weight = state[self.weight]
        moved[self.weight] = (weight * along((self.axis,), weight.shape, scales)).to(weight.dtype)
        for name in (mean, self.bias):
            if name is not None:
                moved[name] = (state[name] * scales).to(state[name].dtype)
        moved[variance] = (scales**2 * (state[variance] + self.eps) - self.eps).to(state[variance].dtype)
        return moved


def normalize_filters(state: StateLike, filters: Sequence[NormFilter]) -> State:
    r"""Scale filters before batch norms to norm one.

    With :math:`s_i = 1 / \lVert w_i \rVert`; statistics follow, so that the function stays, see
    :meth:`NormFilter.scaled`. Filters of zero stay.

    Args:
        state: tensor name to tensor; not changed.
        filters: from :func:`discover_norm_filters`.

    Raises:
        SpecError: the state lacks a filter.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval()
        >>> state = normalize_filters(net.state_dict(), discover_norm_filters(net, torch.randn(5, 3)))
        >>> torch.allclose(state["0.weight"].norm(dim=1), torch.ones(4))
        True

    Source: Pittorino et al., "Deep networks on toroids" (2022).
    """
    moved = dict(state)
    for one in filters:
        if one.weight not in moved:
            raise SpecError(f"Expected the filters {one.weight!r} in the state but got {sorted(moved)[:8]}.")
        norms = one.norms(moved)
        moved = one.scaled(moved, torch.where(norms > 0, 1 / norms, 1.0))
    return moved


def discover_norm_filters(model: nn.Module, example_inputs: ExampleInputs) -> tuple[NormFilter, ...]:
    """Find the filters that a batch norm follows.

    A layer that runs shortly before a norm is a candidate. It counts where scaling its filters by random numbers
    changes the output, and scaling the statistics of the norm with them takes that back, in float64.

    - Norms without running statistics, and layer and group norms, are left out: there it holds only up to ε.
    - So are tensors that are tied, and filters of a layer that is no module.

    Args:
        model: the network; not changed.
        example_inputs: a tensor, a tuple of positional or a dict of keyword arguments.

    Raises:
        ArchitectureError: the network does not run on the inputs, or cannot be copied.

    Example:
        >>> net = nn.Sequential(nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Conv1d(4, 2, 3))
        >>> [(one.weight, one.norm) for one in discover_norm_filters(net, torch.randn(2, 1, 9))]
        [('0.weight', '1')]

    Source: Pittorino et al., "Deep networks on toroids" (2022); proven by numbers as elsewhere in this package.
    """
    check_supported(model)
    with torch.inference_mode(False), torch.no_grad(), undisturbed():
        wide = in_double_precision(model)
        if wide is not None:
            try:
                return _proven(in_mode(wide, False), example_inputs, TOLERANCE)
            except ArchitectureError:
                pass  # it does not run in double precision
        narrow = in_mode(standalone_copy(model), False)
        return _proven(narrow, example_inputs, narrow_tolerance(model.parameters()))


def _proven(twin: nn.Module, example_inputs: ExampleInputs, tolerance: float) -> tuple[NormFilter, ...]:
    """Return the candidates that numbers prove.

    There is one at most for each tensor of filters.
    """
    state, draw = named_tensors(twin), torch.Generator("cpu").manual_seed(0)
    inputs, plain = draw_run(twin, {}, example_inputs, draw)

    def changes(moved: State) -> bool:
        """Tell whether the output is another one."""
        return largest_change(plain, run_precisely(twin, moved, inputs)) > tolerance

    proven: dict[str, NormFilter] = {}
    for candidates in _candidates(twin, inputs):
        for one in candidates:
            drawn = torch.rand(state[one.weight].shape[one.axis], generator=draw, dtype=torch.float64)
            moved = one.scaled(state, (drawn + 0.5).to(state[one.weight]))
            alone = {name: moved[name] for name in (one.weight, one.bias) if name is not None}
            if one.weight not in proven and not changes(moved) and changes({**state, **alone}):
                proven[one.weight] = one
                break
    return tuple(proven.values())


def _candidates(twin: nn.Module, example_inputs: ExampleInputs) -> list[list[NormFilter]]:
    """List filters that run shortly before each norm."""
    running = evaluation_copy(twin)
    ran: list[str] = []
    for name, module in running.named_modules():
        module.register_forward_pre_hook(lambda *_, name=name: ran.append(name))
    run_precisely(running, {}, example_inputs)
    modules = dict(running.named_modules())
    names = [name for name, _ in running.named_parameters(remove_duplicate=False)]
    parameters = dict(running.named_parameters())
    listed = []
    for place, norm in enumerate(ran):
        layer = modules[norm]
        if not {"running_mean", "running_var"} <= layer._buffers.keys() or layer.running_mean is None:
            continue
        units, eps = len(layer.running_mean), float(getattr(layer, "eps", 0.0))
        before = []
        for name in reversed(ran[:place]):
            weight, bias = (f"{name}{'.' if name else ''}{what}" for what in ("weight", "bias"))
            tensor = parameters.get(weight)
            if tensor is None or tensor.ndim < 2 or names.count(weight) != 1:
                continue
            shift = bias if bias in parameters else None
            if shift is not None and len(parameters[shift]) != units:
                continue
            axes = [axis for axis in (0, 1) if tensor.shape[axis] == units]
            before += [NormFilter(weight, axis, shift, norm, eps) for axis in axes]
            if len(before) >= LOOKED_BACK:
                break
        listed.append(before[:LOOKED_BACK])
    return listed
