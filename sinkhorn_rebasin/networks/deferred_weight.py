"""A weight that linear layers and convolutions apply without forming it, where that takes fewer products."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from sinkhorn_rebasin._typing import State

_WITHOUT_VALUES = {
    vars(torch._C.TensorBase)[name].__get__
    for name in ("requires_grad", "dtype", "device", "shape", "layout", "is_sparse")
} | {Tensor.dim}

_CHANNELS = {F.linear: -1, F.conv1d: 1, F.conv2d: 1, F.conv3d: 1}
"""Axis of the inputs that these multiply with a weight."""


class DeferredWeight(Tensor):
    """Stand for a weight or bias of a layer.

    The layer is linear or a convolution.

    What these make of few rows, or positions, are products with them. Everything else forms the weight and has it
    from then on. What autograd functions take past that sends its gradient to the sources.

    Args:
        like: a tensor of its shape, type and device.
        sources: what the weight is made of, and gradients are sent to.
        form: makes the weight.
        product: takes inputs to what the layer makes of them, without its bias or with it, and with the strides and
            paddings of a convolution. None for a bias.
        rows: up to how many rows the product is the cheaper way.
        bias: that of the same layer which stands for one.

    Example:
        >>> weight = torch.tensor([[1.0, 2.0]])
        >>> deferred = deferred_weight(weight, [], lambda: weight, lambda inputs, biased: inputs @ weight.mT, rows=1)
        >>> F.linear(torch.ones(1, 2), deferred).tolist(), deferred.formed is None
        ([[3.0]], True)
        >>> (2 * deferred).tolist(), deferred.formed is weight
        ([[2.0, 4.0]], True)
    """

    formed: Tensor | None
    _form: Callable[[], Tensor]
    _product: Callable[..., Tensor] | None
    _rows: int
    _bias: DeferredWeight | None

    def whole(self) -> Tensor:
        """Return the weight itself."""
        if self.formed is None:
            # A network that transforms functions has formed weights of before the transform.
            with temporarily_clear_interpreter_stack(), torch.inference_mode(False), torch.enable_grad():
                self.formed = self._form()
        return self.formed

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Multiply few rows without forming the weight.

        All else is done with the weight itself.
        """
        kwargs = kwargs or {}
        if func in _WITHOUT_VALUES:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        if func in _CHANNELS and not kwargs and len(args) >= 2 and cls._takes(_CHANNELS[func], *args[:2]):
            return args[1]._applied(args[1]._product, args[0], *args[2:])
        return func(*tree_map(_whole, args), **tree_map(_whole, kwargs))

    def _applied(
        self, product: Callable[..., Tensor], inputs: Tensor, bias: Tensor | None = None, *how: Any
    ) -> Tensor:
        if isinstance(bias, DeferredWeight) and bias is self._bias and bias.formed is None:
            return product(inputs, True, *how)
        found = product(inputs, False, *how)
        return found if bias is None else found + _whole(bias).reshape(-1, *[1] * (self.dim() - 2))

    @classmethod
    def _takes(cls, axis: int, inputs: Any, weight: Any) -> bool:
        """Tell whether inputs are multiplied without the weight."""
        if not (
            isinstance(weight, cls) and weight._product and weight.formed is None and type(inputs) is Tensor
        ):
            return False
        if (
            inputs.dim() < weight.dim()
            or inputs.dtype != weight.dtype
            or inputs.shape[axis] != weight.shape[1]
        ):
            return False
        few = 0 < inputs.numel() <= weight._rows * inputs.shape[axis]
        return few and not torch.is_autocast_enabled(inputs.device.type)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Refuse what comes past functions.

        Gradients would be lost there.
        """
        raise NotImplementedError(f"Expected {func} to be called as a function of torch but it was not.")


class _Deferred(torch.autograd.Function):
    """Make the weight so that gradients go on.

    Those that reach it go to what it is made of.
    """

    @staticmethod
    def forward(ctx: Any, like: Tensor, form: Callable[[], Tensor], *sources: Tensor) -> Tensor:
        """Return a weight that is not formed yet."""
        ctx.form, ctx.sources = form, sources
        made: Tensor = Tensor._make_wrapper_subclass(
            DeferredWeight, like.shape, dtype=like.dtype, device=like.device
        )
        return made

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Form the weight, and send gradients to its sources."""
        wanted = [
            source for source, needed in zip(ctx.sources, ctx.needs_input_grad[2:], strict=True) if needed
        ]
        with torch.enable_grad():
            gradients = iter(torch.autograd.grad(ctx.form(), wanted, gradient, allow_unused=True))
        return (None, None, *(next(gradients) if needed else None for needed in ctx.needs_input_grad[2:]))


def deferred_weight(
    like: Tensor,
    sources: Sequence[Tensor],
    form: Callable[[], Tensor],
    product: Callable[..., Tensor] | None = None,
    rows: int = 0,
    bias: DeferredWeight | None = None,
) -> DeferredWeight:
    """Return a weight that is formed when asked for.

    See :class:`DeferredWeight`.
    """
    made: DeferredWeight = _Deferred.apply(like, form, *sources)
    made.formed, made._form, made._product, made._rows, made._bias = None, form, product, rows, bias
    return made


def _whole(value: Any) -> Any:
    return value.whole() if isinstance(value, DeferredWeight) else value


def formed(weights: Mapping[str, Tensor]) -> State:
    """Form the weights that are deferred.

    >>> formed({"bias": torch.ones(1)})
    {'bias': tensor([1.])}
    """
    return {name: _whole(tensor) for name, tensor in weights.items()}
