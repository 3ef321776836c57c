"""Whether a change of the weights leaves the function of a network as it is: runs in float64 on fresh inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import ExampleInputs, State
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.architecture import named_tensors
from sinkhorn_rebasin.networks.counted_outputs import count_only
from sinkhorn_rebasin.networks.modes import in_mode
from sinkhorn_rebasin.networks.nested_tensors import largest_change
from sinkhorn_rebasin.networks.random_inputs import in_double_precision
from sinkhorn_rebasin.permutations import PermutationSpec
from sinkhorn_rebasin.symmetry.rescaling.sensitivity import draw_run, run_precisely
from sinkhorn_rebasin.symmetry.verification.perturbation import perturbed, scrambled

TOLERANCE = 1e-9
DRAWS = 2

Move = Callable[[State], State | None]


@dataclass
class FunctionProof:
    """A network in float64 and eval mode, and the inputs it is compared on.

    Attributes:
        held: names of tensors that stay when the others are drawn anew.
    """

    model: nn.Module
    spec: PermutationSpec
    example_inputs: ExampleInputs
    held: set[str] = field(default_factory=set)
    generator: torch.Generator = field(default_factory=lambda: torch.Generator("cpu").manual_seed(0))

    def __post_init__(self) -> None:
        wide = in_double_precision(self.model)
        if wide is None:
            raise ArchitectureError(
                f"Expected {type(self.model).__name__} on a device with float64, to prove that nothing changes: move "
                f"it to the CPU."
            )
        count_only(wide, self.spec.outputs)
        self.network = in_mode(wide, False)

    @property
    def state(self) -> State:
        """The network's own tensors in float64, detached."""
        detached: dict[int, Tensor] = {}
        named = named_tensors(self.network)
        return {name: detached.setdefault(id(tensor), tensor.detach()) for name, tensor in named.items()}

    def change(self, before: State, after: State) -> float:
        """The largest relative change of the output from one state to another."""
        largest = 0.0
        for _ in range(DRAWS):
            inputs, first = draw_run(self.network, before, self.example_inputs, self.generator)
            second = run_precisely(self.network, after, inputs)
            others = [run_precisely(self.network, scrambled(before, self.spec), inputs)]
            largest = max(largest, largest_change(first, second, others))
        return largest

    def moved(self, moves: Sequence[Move], state: State) -> State:
        """The state after those of some changes that leave the function as it is: all at once, or by halves."""
        possible = [move for move in moves if move(state) is not None]
        if not possible:
            return state
        after = self._proven(possible, state)
        if after is not None or len(possible) == 1:
            return state if after is None else after
        half = len(possible) // 2
        return self.moved(possible[half:], self.moved(possible[:half], state))

    def _proven(self, moves: Sequence[Move], state: State) -> State | None:
        """The state after all changes, if no output changes: here, and at weights drawn anew."""
        drawn = perturbed(state, self.spec, self.generator)
        drawn = {name: state[name] if name in self.held else tensor for name, tensor in drawn.items()}
        after: State | None = None
        for before in (drawn, state):
            after = before
            for move in moves:
                after = move(after)
                if after is None:
                    return None
            if not self.change(before, after) <= TOLERANCE:
                return None
        return after
