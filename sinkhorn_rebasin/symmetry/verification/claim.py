"""Measure how permutations change an output, and blame groups."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import ExampleInputs, Permutations, State
from sinkhorn_rebasin.errors import ArchitectureError, SymmetryError
from sinkhorn_rebasin.networks.checked_run import checked_run, random_message
from sinkhorn_rebasin.networks.copying import standalone_copy
from sinkhorn_rebasin.networks.double_precision import DoublePrecision
from sinkhorn_rebasin.networks.nested_tensors import largest_change, tensors_in
from sinkhorn_rebasin.permutations import PermutationSpec, identity_permutations, permute_state
from sinkhorn_rebasin.symmetry.verification.perturbation import scrambled

# How much more a sum may change that is added up in another order than one of weights that are rounded otherwise.
MOST_ROUNDING = 100.0


@dataclass
class Claim:
    """Hold a network and its claimed symmetries."""

    model: nn.Module
    spec: PermutationSpec
    tolerance: float
    context: Callable[[], AbstractContextManager[Any]]
    gradients: bool = False

    @property
    def is_wide(self) -> bool:
        """Tell whether the network runs in float64."""
        return self.context is DoublePrecision

    def run(self, state: State, inputs: ExampleInputs) -> list[Tensor]:
        """Run the network; list output tensors that count."""
        # What a network remembers of its weights from one run must not meet the weights of another.
        forgetful = standalone_copy(self.model, share_parameters=True)
        with self.context(), torch.set_grad_enabled(self.gradients):
            return [tensor.detach() for tensor in tensors_in(checked_run(forgetful, state, inputs))]

    def change(
        self, state: State, permutations: Permutations, inputs: ExampleInputs, before: list[Tensor]
    ) -> float:
        """Measure the change under permutations, relative to its variation."""
        after = self.run(permute_state(state, self.spec, permutations), inputs)
        return self._measured(state, inputs, before, after)

    def is_rounding(
        self,
        state: State,
        inputs: ExampleInputs,
        before: list[Tensor],
        change: float,
        generator: torch.Generator,
    ) -> bool:
        """Tell whether differently rounded weights change as much."""
        if largest_change(before, self.run(state, inputs)) > self.tolerance:
            return False  # it is random
        rounded = dict(state)
        for name, tensor in state.items():
            if tensor.is_floating_point():
                sign = torch.randint(2, tensor.shape, generator=generator, device=generator.device) * 2 - 1
                rounded[name] = tensor * (1 + torch.finfo(tensor.dtype).eps * sign.to(tensor))
        usual = self._measured(state, inputs, before, self.run(rounded, inputs))
        return change <= MOST_ROUNDING * usual

    def blame(
        self,
        state: State,
        permutations: Permutations,
        inputs: ExampleInputs,
        before: list[Tensor],
        change: float,
    ) -> SymmetryError:
        """Build an error with groups that fail alone."""
        again = self._measured(state, inputs, before, self.run(state, inputs))
        if again > self.tolerance:
            return SymmetryError(random_message(self.model, again))
        guilty = {}
        for group in self.spec.groups:
            alone = {**identity_permutations(self.spec), group.name: permutations[group.name]}
            alone_change = self.change(state, alone, inputs, before)
            if not alone_change <= self.tolerance:
                guilty[group.name] = f"{group.name!r} ({alone_change:.1e})"
        names = ", ".join(guilty.values()) or "none of the groups alone, only together"
        mode = "in training mode " if self.model.training else ""
        return SymmetryError(
            f"Expected permutations to leave the output of {type(self.model).__name__} {mode}unchanged (to "
            f"{self.tolerance:.0e}) but got a relative change of {change:.1e}; failing groups: {names}. "
            f"Freeze them with spec.without(...).",
            groups=list(guilty) or self.spec.names,
        )

    def _measured(
        self, state: State, inputs: ExampleInputs, before: list[Tensor], after: list[Tensor]
    ) -> float:
        """Measure a change, relative to what other weights change."""
        if largest_change(before, after) == 0.0:
            return 0.0
        try:
            others = [self.run(scrambled(state, self.spec), inputs)]
        except ArchitectureError:
            others = []  # it does not run at any weights
        return largest_change(before, after, others)
