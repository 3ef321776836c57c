"""Layer by layer: each layer of the new base is fitted to what the update did to the old one, on what is so far."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.activations.batch_norm import batch_norm_statistics
from sinkhorn_rebasin.carrying.fitted_maps import ridge_solution
from sinkhorn_rebasin.carrying.functional import functional_update, output_map, rows_of_bases
from sinkhorn_rebasin.carrying.layer_activations import layer_rows
from sinkhorn_rebasin.carrying.norm_layers import fitted_gains, norm_layers
from sinkhorn_rebasin.carrying.update_inputs import inputs_of_update
from sinkhorn_rebasin.carrying.way import Carried, CarryProblem
from sinkhorn_rebasin.networks.architecture import tensors_of


@dataclass(frozen=True)
class LayerByLayer:
    r"""Carry what the update does to activations, one layer after the other.

    .. math:: \min_{\Delta'} \sum \bigl\lVert (W + \Delta')\, \tilde x - z_{\mathrm{new}} -
        M_{\mathrm{out}}\,(z_{\mathrm{tuned}} - z_{\mathrm{base}}) \bigr\rVert^2 +
        r\,\bar g\, \lVert \Delta' - \Delta_{\mathrm{functional}} \rVert^2

    with :math:`\tilde x` the inputs of the layer after all layers before it were carried. It starts from
    :class:`Functional`, needs no gradient, and knows from the tuned network how far activations must move, which maps
    of weights do not. At the outputs of the network :math:`M_{\mathrm{out}}` is the identity. Gains and shifts of
    norms are fitted alike, a channel at a time; running statistics are measured on the data before.

    Without data, inputs are drawn from what the update itself shows of them: see :func:`inputs_of_update`.

    Attributes:
        ridge: r.
        map_ridge: weight of the penalty of the maps.
        synthetic: share of what the update shows that is added to given inputs.

    Example:
        >>> LayerByLayer().name
        'layer by layer'
    """

    ridge: float = 0.03
    map_ridge: float = 0.1
    synthetic: float = 0.0

    @property
    def name(self) -> str:
        """Name the way."""
        return "layer by layer"

    def carried(self, problem: CarryProblem) -> Carried:
        """Return the update for the new base."""
        measured = bool(problem.batches) and bool(problem.update.buffers)
        problem, drawn = inputs_of_update(problem, self.synthetic)
        batches = problem.seen(self.name)
        norms = [name for name in norm_layers(problem.new_base) if name in norm_layers(problem.base)]
        old, new = rows_of_bases(problem, self.name, norms)
        tuned = layer_rows(problem.tuned, tensors_of(problem.tuned), list(old), batches, problem.batch)
        plain = [{name: rows[name] for name in rows if name not in norms} for rows in (old, new)]
        later = {_parameter(name, part) for name in norms for part in ("weight", "bias")}
        first = functional_update(problem, plain[0], plain[1], "ridge", self.map_ridge, later)
        fit = _Fit(problem, self.ridge, first.state, measured)
        for name in new:
            weight = _parameter(name, "weight")
            if weight in problem.heads or weight not in fit.update:
                continue
            moved = tuned[name].outputs - old[name].outputs
            outward = output_map(problem, name, old[name].outputs, new[name].outputs, "ridge", self.map_ridge)
            wanted = new[name].outputs + (moved if outward is None else moved @ outward.T)
            fit.bring(name, wanted, norm=name in norms)
        return Carried(fit.update, notes=(*first.notes, *drawn))


class _Fit:
    """Hold the new base as far as carried.

    Attributes:
        update: what is added to it, of every parameter.
        state: its tensors with the update of the layers that were brought already.
        measured: whether running statistics are measured anew on the way.
    """

    def __init__(self, problem: CarryProblem, ridge: float, update: State, measured: bool) -> None:
        self.problem, self.ridge, self.measured = problem, ridge, measured
        self.update, self.start = dict(update), tensors_of(problem.new_base)
        self.state = dict(self.start)

    def bring(self, name: str, wanted: Tensor, norm: bool) -> None:
        """Bring a layer's outputs to those that are wanted."""
        problem = self.problem
        batches = problem.seen("layer by layer")
        names = [n for n in (_parameter(name, "weight"), _parameter(name, "bias")) if n in self.update]
        self._add(names)
        if norm and self.measured:
            self.state = batch_norm_statistics(problem.new_base, self.state, batches, batch=problem.batch)
        rows = layer_rows(problem.new_base, self.state, [name], batches, problem.batch)[name]
        missing = wanted - rows.outputs
        if norm:
            steps = list(fitted_gains(rows.multiplied, missing, self.ridge))
        else:
            inputs = rows.multiplied
            step = ridge_solution(inputs.T @ inputs, inputs.T @ missing, self.ridge).T
            steps = [step[:, :-1], step[:, -1]] if len(names) > 1 else [step]
        for parameter, step in zip(names, steps, strict=False):  # a norm may have no shift
            self.update[parameter] = self.update[parameter] + step.reshape(self.update[parameter].shape)
        self._add(names)

    def _add(self, names: list[str]) -> None:
        """Bring parameters of the state up to date."""
        for name in names:
            self.state[name] = self.start[name] + self.update[name].to(self.start[name])


def _parameter(layer: str, part: str) -> str:
    return f"{layer}.{part}" if layer else part
