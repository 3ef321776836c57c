"""Random inputs like an example, and networks in double precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import ExampleInputs
from sinkhorn_rebasin.networks.copying import inputs_like, standalone_copy


def in_double_precision(model: nn.Module) -> nn.Module | None:
    """Copy a network in double precision.

    Complex tensors are included. None where the device has no such type.
    """
    twin = standalone_copy(model)
    try:
        return twin._apply(_wide)
    except (RuntimeError, NotImplementedError, TypeError):
        return None


def _wide(tensor: Tensor) -> Tensor:
    if tensor.is_complex():
        return tensor.to(torch.complex128)
    return tensor.double() if tensor.is_floating_point() else tensor


# Turned around, larger and smaller than the example's: values that networks branch on.
_STRETCHES = (1.0, -1.0, 10.0, -10.0, 0.1, -0.1)


def other_inputs(example_inputs: ExampleInputs, generator: torch.Generator, attempt: int) -> ExampleInputs:
    """Make random inputs that may lead elsewhere.

    A network may go another way with them than with the example. Floats are normal, at one of several sizes and
    signs. Integers are drawn from the example's own or, every other time, from zero to the largest of them.
    """

    def drawn(leaf: Tensor) -> Tensor:
        """Stretch floats; redraw integers every other time."""
        if leaf.is_floating_point():
            return leaf * _STRETCHES[attempt % len(_STRETCHES)]
        small = (
            leaf.numel() == 0
            or leaf.dtype == torch.bool
            or leaf.is_complex()
            or leaf.layout != torch.strided
            or leaf.is_nested
        )
        if small or attempt % 2 == 0 or int(leaf.min()) < 0:
            return leaf
        high = int(leaf.max()) + 1
        noise = torch.randint(high, leaf.shape, generator=generator, device=generator.device)
        return noise.to(leaf.device, leaf.dtype)

    return inputs_like(next(candidate_inputs(example_inputs, generator, wide=False)), drawn)


def _by_parts(leaf: Tensor, draw: Callable[[Tensor], Tensor]) -> Tensor:
    """Draw each part of a nested tensor."""
    if leaf.layout == torch.jagged:
        offsets: Tensor = leaf.offsets()  # type: ignore[attr-defined]
        return torch.nested.nested_tensor_from_jagged(draw(leaf.values()), offsets)
    return torch.nested.as_nested_tensor([draw(part) for part in leaf.unbind()])


def candidate_inputs(
    example_inputs: ExampleInputs, generator: torch.Generator, wide: bool
) -> Iterator[ExampleInputs]:
    """Yield inputs of the example's structure.

    Shapes and types are the example's, too. The first inputs are normal, the second are drawn from the example's own
    values, and the third are the example itself. Integers are drawn from the example's in the first as well. Floats
    are in double precision when ``wide``.
    """

    def typed(tensor: Tensor, like: Tensor) -> Tensor:
        """Move values to a tensor's device and type."""
        tensor = tensor.to(like.device)
        return _wide(tensor) if wide else tensor.to(like.dtype)

    def normal(leaf: Tensor) -> Tensor:
        """Draw normal values."""
        if leaf.is_nested:
            return _by_parts(leaf, normal)
        if leaf.numel() == 0 or not leaf.is_floating_point() or leaf.layout != torch.strided:
            return resampled(leaf)
        spread = leaf.double().std(correction=0).clamp_min(1e-3)
        noise = torch.randn(leaf.shape, generator=generator, dtype=torch.float64, device=generator.device)
        return typed(noise.to(leaf.device) * spread + leaf.double().mean(), leaf)

    def resampled(leaf: Tensor) -> Tensor:
        """Draw from the tensor's own values."""
        if leaf.is_nested:
            return _by_parts(leaf, resampled)
        if leaf.numel() == 0 or leaf.layout != torch.strided:
            return own(leaf)
        chosen = torch.randint(leaf.numel(), leaf.shape, generator=generator, device=generator.device)
        return typed(leaf.reshape(-1)[chosen.to(leaf.device)], leaf)

    def own(leaf: Tensor) -> Tensor:
        """Copy a tensor's own values."""
        return typed(leaf, leaf).clone()

    for draw in (normal, resampled, own):
        yield inputs_like(example_inputs, draw)
