"""Run a network at random weights and inputs, to try rescalings."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sinkhorn_rebasin._typing import ExampleInputs, State
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.architecture import named_tensors
from sinkhorn_rebasin.networks.copying import training_copy
from sinkhorn_rebasin.networks.double_precision import is_wide, narrow_tolerance
from sinkhorn_rebasin.networks.nested_tensors import largest_change
from sinkhorn_rebasin.permutations import PermutationSpec, RescalingSpec, ScaleSymmetry, Slot, rescale_state
from sinkhorn_rebasin.symmetry.rescaling.sensitivity import draw_run, run_precisely, sensitivities
from sinkhorn_rebasin.symmetry.verification.perturbation import perturbed, scrambled

FEWEST_TRIALS, MOST_TRIALS = 2, 24
# Log-scales between these reach past the bounds of ReLU6 and its like, where they are no longer homogeneous.
NEAREST, FARTHEST = 5.0, 10.0
LARGEST_GROWTH = 100.0

Sensitivities = Mapping[str, NDArray[np.float64]]


@dataclass
class Trials:
    """Hold a network and the draws at which it runs.

    Attributes:
        less_one: names of tensors that hold one less than the factors the network computes with.
        networks: the network in eval mode; once asked for, also in training mode without its chance.
        sometimes_reached: by group, slots that the output depends on at some draws only.
    """

    network: nn.Module
    spec: PermutationSpec
    example_inputs: ExampleInputs
    tolerance: float
    generator: torch.Generator
    less_one: frozenset[str] = frozenset()
    networks: list[nn.Module] = field(init=False)
    sometimes_reached: dict[str, list[Slot]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.networks = [self.network]

    def anew(self) -> Trials:
        """Make trials that draw as these do."""
        generator = torch.Generator("cpu").manual_seed(0)
        return Trials(self.network, self.spec, self.example_inputs, self.tolerance, generator)

    def sensitivities(self, network: nn.Module, slots: Mapping[str, Sequence[Slot]]) -> Sensitivities:
        """Equations of one draw: see :func:`~sinkhorn_rebasin.symmetry.rescaling.sensitivity.sensitivities`.

        Raises:
            ArchitectureError: when the network has no derivatives.
        """
        return self._sensitivities(network, self.weights(), slots, self.generator)

    def _sensitivities(
        self,
        network: nn.Module,
        state: State,
        slots: Mapping[str, Sequence[Slot]],
        generator: torch.Generator,
    ) -> Sensitivities:
        factors = shifted(state, self.less_one, 1.0)
        return sensitivities(network, state, slots, self.example_inputs, generator, factors)

    def rescaled(
        self, state: State, rescaling: RescalingSpec, logs: Mapping[str, Tensor], signs: Mapping[str, Tensor]
    ) -> State:
        """Scale the factors that the network computes with."""
        factors = rescale_state(shifted(state, self.less_one, 1.0), self.spec, rescaling, logs, signs)
        return shifted(factors, self.less_one, -1.0)

    def add_training_mode(self) -> nn.Module | None:
        """Add the network in training mode without its chance.

        None when the network is random all the same.
        """
        twin = training_copy(self.network)
        try:
            state = self.weights()
            inputs, _ = draw_run(twin, state, self.example_inputs, self.generator)
            again = [run_precisely(twin, state, inputs) for _ in range(2)]
        except ArchitectureError:
            return None
        if not largest_change(*again) <= self.tolerance:
            return None
        self.networks.append(twin)
        return twin

    def verified(self, candidates: Sequence[ScaleSymmetry]) -> list[ScaleSymmetry]:
        """Keep the candidates that leave the output unchanged: all at once, or by halves."""
        if not candidates or self.hold(candidates):
            return list(candidates)
        if len(candidates) == 1:
            return []
        half = len(candidates) // 2
        return [*self.verified(candidates[:half]), *self.verified(candidates[half:])]

    def hold(self, generators: Sequence[ScaleSymmetry]) -> bool:
        """Tell whether the output stays at random scales and signs.

        Note:
            - Scales are far from one, and are tried both ways.
            - Slots reached at some draws only must be reached both ways.
        """
        rescaling = RescalingSpec(tuple(self.spec.names), tuple(generators))
        signs, logs = self._signs(rescaling), self._far_logs(rescaling)
        groups = {one.group for one in generators}
        waiting = {
            side: {name: slots for name, slots in self.sometimes_reached.items() if name in groups}
            for side in (1, -1)
        }
        for trial in range(MOST_TRIALS):
            side = 1 if trial % 2 == 0 else -1
            far, flips = ({name: side * value for name, value in one.items()} for one in (logs, signs))
            if not self._holds_once(rescaling, far, flips, waiting[side]):
                return False
            if trial + 1 >= FEWEST_TRIALS and not any(waiting.values()):
                return self._holds_far_out(rescaling, signs)
        return False

    def _holds_once(
        self,
        rescaling: RescalingSpec,
        logs: Mapping[str, Tensor],
        signs: Mapping[str, Tensor],
        waiting: dict[str, list[Slot]],
    ) -> bool:
        """Try one draw, and note the slots it reached."""
        state = self.weights()
        for network in self.networks:
            before_draw = self.generator.get_state()
            inputs, before = draw_run(network, state, self.example_inputs, self.generator)
            moved = self.rescaled(state, rescaling, logs, signs)
            after = run_precisely(network, moved, inputs)
            if not largest_change(before, after) <= self.tolerance:
                return False
            # An output that hardly varies with the weights would hide what a wrong claim changes.
            if not largest_change(before, after, self._others(network, state, inputs)) <= self.tolerance:
                return False
            self._record_reached(network, state, waiting, before_draw)
        return True

    def _others(self, network: nn.Module, state: State, inputs: ExampleInputs) -> list[list[Tensor]]:
        """Run the network at scrambled weights, if it can."""
        try:
            return [run_precisely(network, scrambled(state, self.spec), inputs)]
        except ArchitectureError:
            return []

    def _record_reached(
        self, network: nn.Module, state: State, waiting: dict[str, list[Slot]], before_draw: Tensor
    ) -> None:
        """Drop the slots that a repeated draw reaches."""
        if not waiting:
            return
        replay = torch.Generator(self.generator.device)
        replay.set_state(before_draw)
        for name, matrix in self._sensitivities(network, state, waiting, replay).items():
            unreached = ~self.reached(matrix)
            waiting[name] = [slot for slot, still in zip(waiting[name], unreached, strict=True) if still]
            if not waiting[name]:
                del waiting[name]

    def _holds_far_out(self, rescaling: RescalingSpec, signs: Mapping[str, Tensor]) -> bool:
        """Try flips of sign at much larger weights.

        Note:
            Large weights reach past the clips of activations.
        """
        grown = [
            replace(one, kind="positive", exponents=tuple((slot, 1) for slot, _ in one.exponents))
            for one in rescaling.generators
            if one.kind == "sign"
        ]
        growing = RescalingSpec(rescaling.groups, tuple(grown))
        shapes = growing.shapes(self.spec)
        for side in (1, -1) if grown else ():
            logs = {name: math.log(LARGEST_GROWTH) * self._uniform(shape) for name, shape in shapes.items()}
            state = rescale_state(self.weights(), self.spec, growing, logs)
            flipped = {name: side * value for name, value in signs.items()}
            moved = rescale_state(state, self.spec, rescaling, None, flipped)
            for network in self.networks:
                try:
                    inputs, before = draw_run(network, state, self.example_inputs, self.generator)
                except ArchitectureError:
                    continue  # nothing finite comes out so far away
                if not largest_change(before, run_precisely(network, moved, inputs)) <= self.tolerance:
                    return False
        return True

    @property
    def rounding(self) -> float:
        """Return the relative size that passes for zero."""
        return 1e-9 if is_wide(self.network) else narrow_tolerance(self.network.parameters())

    def reached(self, matrix: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Find slots that the output depends on, (slots,)."""
        return reached(matrix, self.rounding / 10)

    def weights(self) -> State:
        """Move the network's tensors a little."""
        return perturbed(named_tensors(self.network), self.spec, self.generator)

    def _signs(self, rescaling: RescalingSpec) -> dict[str, Tensor]:
        """Draw both signs in every group of several units.

        Note:
            - A common sign would say nothing about products of two units.
            - The other trial flips the other units.
        """
        signs_by_group = {}
        for name, shape in rescaling.shapes(self.spec, "sign").items():
            noise = self._normal(shape)
            signs = torch.where(noise == noise.amax(-1, keepdim=True), 1.0, noise.sign())
            signs_by_group[name] = torch.where(noise == noise.amin(-1, keepdim=True), -1.0, signs)
        return signs_by_group

    def _far_logs(self, rescaling: RescalingSpec) -> dict[str, Tensor]:
        """Draw log-scales far from zero, of either sign."""
        return {
            name: (NEAREST + (FARTHEST - NEAREST) * self._uniform(shape)) * self._normal(shape).sign()
            for name, shape in rescaling.shapes(self.spec, "positive").items()
        }

    def _normal(self, shape: tuple[int, ...]) -> Tensor:
        """Draw normal numbers in the type of the factors."""
        device = self.generator.device
        return torch.randn(shape, generator=self.generator, dtype=torch.float64, device=device).to(self._type)

    def _uniform(self, shape: tuple[int, ...]) -> Tensor:
        """Draw uniform numbers in the type of the factors."""
        device = self.generator.device
        return torch.rand(shape, generator=self.generator, dtype=torch.float64, device=device).to(self._type)

    @property
    def _type(self) -> torch.dtype:
        """Choose the type of factors, so that weights keep theirs."""
        types = [
            tensor.dtype.to_real() for tensor in self.network.parameters() if tensor.dtype.is_floating_point
        ]
        return torch.float64 if is_wide(self.network) or not types else types[0]


def shifted(state: State, names: Collection[str], amount: float) -> State:
    """Add a number to some tensors, under all names that they have.

    >>> shifted({"a": torch.zeros(2), "b": torch.zeros(2)}, ["a"], 1.0)["a"].tolist()
    [1.0, 1.0]
    """
    moved = {id(state[name]): state[name] + amount for name in names}
    return {name: moved.get(id(tensor), tensor) for name, tensor in state.items()} if moved else state


def reached(matrix: NDArray[np.float64], least: float = 1e-10) -> NDArray[np.bool_]:
    """Find slots that the output depends on, (slots,).

    ``matrix`` holds the equations (rows, slots) of one or several draws.

    >>> reached(np.array([[1.0, 0.0], [0.0, 0.0]])).tolist()
    [True, False]
    """
    sizes = np.abs(matrix).max(axis=0, initial=0.0)
    return np.asarray(sizes > least * max(sizes.max(initial=0.0), 1e-100))
