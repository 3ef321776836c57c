"""Find the exact rescalings of any network from numbers alone: no rule names an activation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sinkhorn_rebasin._typing import ExampleInputs, State
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.execution import untouched_randomness
from sinkhorn_rebasin.networks.frozen import named_tensors
from sinkhorn_rebasin.networks.outputs import largest_change
from sinkhorn_rebasin.networks.support import check_supported
from sinkhorn_rebasin.permutations import Generator, PermutationSpec, RescalingSpec, Slot, rescale_state
from sinkhorn_rebasin.permutations.slots import by_first_slot
from sinkhorn_rebasin.symmetry.displacement import displaced, widened
from sinkhorn_rebasin.symmetry.independence import independent
from sinkhorn_rebasin.symmetry.integer_kernel import integer_kernel
from sinkhorn_rebasin.symmetry.sensitivity import draw_run, parts_of, run_wide, scalable_slots, sensitivities
from sinkhorn_rebasin.symmetry.sign_flips import sign_candidates

FEWEST_DRAWS, MOST_DRAWS = 3, 24


def discover_rescaling(
    model: nn.Module,
    spec: PermutationSpec,
    example_inputs: ExampleInputs,
    *,
    signs: bool = True,
    tolerance: float = 1e-9,
    generator: torch.Generator | None = None,
) -> RescalingSpec:
    r"""By which factors the units of each group can be scaled, slot by slot, so that the function stays the same.

    If multiplying slot k of unit i by :math:`s_i^{e_k}` changes nothing for any s > 0, then at s = 1

    .. math:: \sum_k e_k\, \Big\langle \frac{\partial f}{\partial \theta_k[i]}, \theta_k[i] \Big\rangle = 0

    for all units, inputs and outputs. The integer vectors e that solve these equations, in float64 at random
    inputs and weights moved a little, are then verified by a run at random s. So ReLU, leaky ReLU, norm scales and
    the two sides of a product (queries and keys) are found, and GELU is not, with no rule for any of them. Flips of
    sign (tanh) are looked for among the sets of a group's slots, at most :data:`MOST_SLOTS`.

    It speaks of the function in eval mode. Statistics of norm layers are left alone, for they are estimated again.
    A slot that the output does not depend on (the bias of keys, heads used in training only) is never scaled, nor
    is a block of heads scaled by what its inner units can do.

    Args:
        model: the network; neither it nor its mode nor the random state is changed.
        spec: its permutation symmetries: rescalings are found for their groups.
        example_inputs: a tensor, a tuple of positional or a dict of keyword arguments.
        signs: look for flips of sign as well; it costs up to 2^(K/2 + 1) forwards for a group of K slots.
        tolerance: largest relative change of the output that passes for rounding in float64.
        generator: draws weights, inputs and scales; without it they are the same in every call.

    Raises:
        ArchitectureError: when the network does not run in float64, has no derivatives, or cannot be copied.
        SpecError: when the spec is of another network.

    Example:
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> spec = discover_symmetry(net, torch.randn(4, 3))
        >>> print(discover_rescaling(net, spec, torch.randn(4, 3)))
        0 (positive): 0.weight[0] +1, 0.bias[0] +1, 2.weight[1] -1

    Source: scaling of ReLU units, Neyshabur et al. (2015); the equations are the conservation laws of Kunin et al.,
    "Neural mechanics" (2021), read from right to left.
    """
    check_supported(model)
    spec.check_state(named_tensors(model))
    generator = generator or torch.Generator("cpu").manual_seed(0)
    with torch.inference_mode(False), torch.no_grad(), untouched_randomness():
        wide = widened(model)
        if wide is None:
            raise ArchitectureError(
                f"Expected a network that runs in float64, to find its rescalings with, but the device of "
                f"{type(model).__name__} has no such type: move it to the CPU."
            )
        search = _Search(wide.eval(), spec, example_inputs, tolerance, generator)
        matrices = search.equations()
        live = {group: search.live_slots(group, matrix) for group, matrix in matrices.items()}
        found = search.positive(matrices, live)
        if signs:
            found += search.signs(live, found)
    return RescalingSpec(tuple(search.slots), tuple(found))


def requested_rescaling(
    model: nn.Module, spec: PermutationSpec, rescale: bool | RescalingSpec, example_inputs: ExampleInputs
) -> RescalingSpec:
    """The rescalings given, or those found when they are asked for, or none."""
    if isinstance(rescale, RescalingSpec):
        return rescale
    if not rescale:
        return RescalingSpec(groups=())
    if example_inputs is None:
        raise ArchitectureError("Expected example inputs, to discover the rescalings with, but got none.")
    return discover_rescaling(model, spec, example_inputs)


class _Search:
    """A network in float64, its symmetries, and the runs that find and verify rescalings."""

    def __init__(
        self,
        network: nn.Module,
        spec: PermutationSpec,
        example_inputs: ExampleInputs,
        tolerance: float,
        generator: torch.Generator,
    ) -> None:
        self.network = network
        self.spec = spec
        self.example_inputs = example_inputs
        self.tolerance = tolerance
        self.generator = generator
        groups = by_first_slot(spec.groups, spec.slots)
        self.slots = {group.name: scalable_slots(spec, group.name) for group in groups}

    def equations(self) -> dict[str, NDArray[np.float64]]:
        """Per group the equations of several draws, (draws * units, slots): at least twice as many as unknowns."""
        needed = [math.ceil(2 * len(slots) / self.spec[name].units) for name, slots in self.slots.items()]
        draws = min(max(FEWEST_DRAWS, *needed, 0), MOST_DRAWS)
        rows: dict[str, list[NDArray[np.float64]]] = {name: [] for name, slots in self.slots.items() if slots}
        for _ in range(draws):
            state = self._weights()
            try:
                found = sensitivities(self.network, state, self.slots, self.example_inputs, self.generator)
            except (RuntimeError, NotImplementedError) as error:
                raise ArchitectureError(
                    f"Expected a network that can be differentiated, to find its rescalings with, but "
                    f"{type(self.network).__name__} raised {type(error).__name__}: {error}"
                ) from error
            for name, part in found.items():
                rows[name].append(part)
        return {name: np.concatenate(parts) for name, parts in rows.items()}

    def live_slots(self, group: str, matrix: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which slots of a group the output depends on."""
        sizes = np.abs(matrix).max(axis=0, initial=0.0)
        return np.asarray(sizes > 1e-10 * max(sizes.max(initial=0.0), 1e-100))

    def positive(
        self, matrices: dict[str, NDArray[np.float64]], live: dict[str, NDArray[np.bool_]]
    ) -> list[Generator]:
        """The generators of all groups that hold at random s > 0."""
        candidates = []
        for group, matrix in matrices.items():
            slots = [slot for slot, on in zip(self.slots[group], live[group], strict=True) if on]
            for exponents in integer_kernel(matrix[:, live[group]]):
                candidates.append(_generator(self.spec, group, slots, exponents))
        return independent(self.spec, self.verified(candidates))

    def signs(self, live: dict[str, NDArray[np.bool_]], positive: Sequence[Generator]) -> list[Generator]:
        """The flips of sign of all groups that hold at random signs."""
        state = self._weights()
        inputs, _ = draw_run(self.network, state, self.example_inputs, self.generator)

        def outputs(rescaled: State) -> list[Tensor]:
            return run_wide(self.network, rescaled, inputs)

        candidates = []
        for group, on in live.items():
            slots = [slot for slot, used in zip(self.slots[group], on, strict=True) if used]
            known = [one for one in positive if one.group == group]
            for chosen in sign_candidates(
                self.spec, group, slots, known, state, outputs, self.tolerance, self.generator
            ):
                candidates.append(_generator(self.spec, group, slots, chosen, "sign"))
        return independent(self.spec, self.verified(candidates))

    def verified(self, candidates: Sequence[Generator]) -> list[Generator]:
        """The candidates that leave the output unchanged: all at once, or else each alone."""
        if not candidates or self._holds(candidates):
            return list(candidates)
        return [one for one in candidates if self._holds([one])]

    def _holds(self, generators: Sequence[Generator]) -> bool:
        rescaling = RescalingSpec(tuple(self.spec.names), tuple(generators))
        shapes = rescaling.shapes(self.spec, "sign")
        # Small groups would often be drawn without any flip: every unit is flipped in one of the two trials.
        signs = {name: self._normal(shape).sign() for name, shape in shapes.items()}
        for side in (1, -1):
            state = self._weights()
            inputs, before = draw_run(self.network, state, self.example_inputs, self.generator)
            log_scales = {
                name: 0.5 * self._normal(shape)
                for name, shape in rescaling.shapes(self.spec, "positive").items()
            }
            flips = {name: side * sign for name, sign in signs.items()}
            moved = rescale_state(state, self.spec, rescaling, log_scales, flips)
            if not largest_change(before, run_wide(self.network, moved, inputs)) <= self.tolerance:
                return False
        return True

    def _weights(self) -> State:
        return displaced(named_tensors(self.network), self.spec, self.generator)

    def _normal(self, shape: tuple[int, ...]) -> Tensor:
        device = self.generator.device
        return torch.randn(shape, generator=self.generator, dtype=torch.float64, device=device)


def _generator(
    spec: PermutationSpec,
    group: str,
    slots: Sequence[Slot],
    exponents: NDArray[np.int64],
    kind: str = "positive",
) -> Generator:
    """The generator with these exponents: whole slots where their parts agree, biases with positive ones."""
    biases = sum(
        int(e) for slot, e in zip(slots, exponents, strict=True) if len(spec.shapes[slot.tensor]) == 1
    )
    sign = -1 if biases < 0 else 1
    by_part = {slot: sign * int(e) for slot, e in zip(slots, exponents, strict=True)}
    merged: list[tuple[Slot, int]] = []
    for slot in spec.slots_of(group):
        parts = parts_of(slot)
        values = [by_part.get(part, 0) for part in parts]
        if len(set(values)) == 1:
            parts, values = [slot], values[:1]
        merged.extend((part, value) for part, value in zip(parts, values, strict=True) if value)
    return Generator(group, "sign" if kind == "sign" else "positive", tuple(merged))
