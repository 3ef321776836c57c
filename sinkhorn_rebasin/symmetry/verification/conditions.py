"""Draw weights and inputs that an example does not resemble."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import ExampleInputs, State
from sinkhorn_rebasin.networks.copying import inputs_like
from sinkhorn_rebasin.networks.nested_tensors import tensors_in
from sinkhorn_rebasin.networks.random_inputs import candidate_inputs
from sinkhorn_rebasin.permutations import PermutationSpec
from sinkhorn_rebasin.symmetry.verification.perturbation import perturbed

# How many sizes of tables are tried as the range of an integer input.
MOST_RANGES = 4


@dataclass(frozen=True)
class Condition:
    """Describe the weights and inputs of a trial.

    Attributes:
        shuffled: weights are drawn from all of their tensor, so that rare cases are common. Otherwise moved a little.
        stretch: floats are this many times as large.
        samples: the batch is this many times as long.
        integers: integers are drawn from the whole range that the network takes.
        gradients: the network runs with gradients switched on.
    """

    shuffled: bool = False
    stretch: float = 1.0
    samples: int = 1
    integers: bool = False
    gradients: bool = False

    def simpler(self) -> Iterator[Condition]:
        """Yield this condition, then those nearer to the example."""
        yield self
        for samples, integers in ((1, self.integers), (1, False)):
            yield Condition(self.shuffled, self.stretch, samples, integers, self.gradients)
        yield Condition(self.shuffled, self.stretch)
        yield Condition(False, self.stretch)
        yield Condition()

    def weights(
        self, state: Mapping[str, Tensor], spec: PermutationSpec, generator: torch.Generator
    ) -> State:
        """Draw weights for this trial; tied tensors stay tied."""
        moved = perturbed(state, spec, generator)
        return shuffled(moved, spec, generator) if self.shuffled else moved


# One after the other: near the example, far from it, and turned around.
CONDITIONS = (
    Condition(),
    Condition(shuffled=True, stretch=10.0, samples=2, integers=True, gradients=True),
    Condition(stretch=-0.1, samples=3),
    Condition(shuffled=True, stretch=-10.0, integers=True),
)


def shuffled(state: Mapping[str, Tensor], spec: PermutationSpec, generator: torch.Generator) -> State:
    """Draw each tensor's entries from its own.

    Note:
        A tensor that is not finite stays.
    """
    drawn: dict[int, Tensor] = {}
    for name, tensor in state.items():
        real = tensor.is_floating_point() or tensor.is_complex()
        if name not in spec.shapes or id(tensor) in drawn or not real or tensor.numel() < 2:
            continue
        if bool(tensor.isfinite().all()):
            order = torch.randint(tensor.numel(), tensor.shape, generator=generator, device=generator.device)
            drawn[id(tensor)] = tensor.detach().reshape(-1)[order.to(tensor.device)]
    return {name: drawn.get(id(tensor), tensor) for name, tensor in state.items()}


def inputs_of(
    condition: Condition,
    example_inputs: ExampleInputs,
    ranges: Mapping[int, int],
    generator: torch.Generator,
    wide: bool,
) -> Iterator[ExampleInputs]:
    """Yield candidate inputs, changed as the condition says."""
    drawn = [candidate_inputs(example_inputs, generator, wide) for _ in range(condition.samples)]
    length = batch_length(example_inputs)
    for several in zip(*drawn, strict=True):
        leaves = [tensors_in(one) for one in several]
        numbers = count()

        def joined(
            leaf: Tensor, leaves: list[list[Tensor]] = leaves, numbers: Iterator[int] = numbers
        ) -> Tensor:
            """Join the samples of one tensor, changed."""
            number = next(numbers)
            if leaf.layout != torch.strided or leaf.is_nested:
                return leaf
            parts = [one[number] for one in leaves]
            whole = torch.cat(parts) if leaf.dim() and len(leaf) == length else leaf
            if whole.is_floating_point():
                return whole * condition.stretch
            if condition.integers and number in ranges:
                noise = torch.randint(
                    ranges[number], whole.shape, generator=generator, device=generator.device
                )
                return noise.to(whole.device, whole.dtype)
            return whole

        yield inputs_like(several[0], joined)


def batch_length(inputs: ExampleInputs) -> int | None:
    """Return the length of the first tensor with axes."""
    return next((leaf.shape[0] for leaf in tensors_in(inputs) if leaf.dim() and not leaf.is_nested), None)


def integer_ranges(
    example_inputs: ExampleInputs, state: Mapping[str, Tensor], runs: Callable[[ExampleInputs], bool]
) -> dict[int, int]:
    """Find how many values each integer input takes.

    Note:
        - Candidates are the lengths of tables, the largest first.
        - The first with which the network runs counts.
    """
    sizes = sorted({len(tensor) for tensor in state.values() if tensor.dim() > 1}, reverse=True)
    ranges: dict[int, int] = {}
    for number, leaf in enumerate(tensors_in(example_inputs)):
        if leaf.is_floating_point() or leaf.is_complex() or leaf.dtype == torch.bool or not leaf.numel():
            continue
        if leaf.layout != torch.strided or leaf.is_nested or int(leaf.min()) < 0:
            continue
        larger = [size for size in sizes if size > int(leaf.max()) + 1]
        for size in _spread(larger):
            if runs(_with_last(example_inputs, number, size - 1)):
                ranges[number] = size
                break
    return ranges


def _spread(sizes: list[int]) -> list[int]:
    """Choose a few sizes, first and last included."""
    if len(sizes) <= MOST_RANGES:
        return sizes
    return [sizes[round(step * (len(sizes) - 1) / (MOST_RANGES - 1))] for step in range(MOST_RANGES)]


def _with_last(inputs: ExampleInputs, number: int, value: int) -> ExampleInputs:
    """Fill one tensor of the inputs with a value."""
    numbers = count()
    return inputs_like(
        inputs, lambda leaf: torch.full_like(leaf, value) if next(numbers) == number else leaf.clone()
    )
