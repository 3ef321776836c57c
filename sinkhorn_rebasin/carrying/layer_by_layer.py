"""Layer by layer: each layer of the new base is fitted to what the update did to the old one, on what is so far."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.carrying.fitted_maps import ridge_solution
from sinkhorn_rebasin.carrying.functional import functional_update, output_map, rows_of_bases
from sinkhorn_rebasin.carrying.layer_activations import LayerRows, layer_rows
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
    of weights do not. At the outputs of the network :math:`M_{\mathrm{out}}` is the identity.

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
        problem, notes = inputs_of_update(problem, self.synthetic)
        old, new = rows_of_bases(problem, self.name)
        batches = problem.seen(self.name)
        tuned = layer_rows(problem.tuned, tensors_of(problem.tuned), list(old), batches, problem.batch)
        first = functional_update(problem, old, new, "ridge", self.map_ridge)
        start = tensors_of(problem.new_base)
        state: State = dict(first.state)
        for name in new:
            prefix = f"{name}." if name else ""
            weight = f"{prefix}weight"
            if weight in problem.heads or weight not in state:
                continue
            moved = tuned[name].outputs - old[name].outputs
            outward = output_map(problem, name, old[name].outputs, new[name].outputs, "ridge", self.map_ridge)
            wanted = new[name].outputs + (moved if outward is None else moved @ outward.T)
            current = {n: start[n] if n not in state else start[n] + state[n].to(start[n]) for n in start}
            rows = layer_rows(problem.new_base, current, [name], batches, problem.batch)[name]
            step = self._step(rows, wanted)
            matrix = step[:, :-1] if f"{prefix}bias" in state else step
            state[weight] = state[weight] + matrix.reshape(state[weight].shape)
            if f"{prefix}bias" in state:
                state[f"{prefix}bias"] = state[f"{prefix}bias"] + step[:, -1]
        return Carried(state, notes=(*first.notes, *notes))

    def _step(self, rows: LayerRows, wanted: Tensor) -> Tensor:
        """Return what is to be added to a layer, (outputs, inputs and bias)."""
        inputs = rows.multiplied
        gram, cross = inputs.T @ inputs, inputs.T @ (wanted - rows.outputs)
        return ridge_solution(gram, cross, self.ridge).T
