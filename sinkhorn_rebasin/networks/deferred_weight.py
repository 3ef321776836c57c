"""A weight that linear layers and convolutions apply without forming it, where that takes fewer products."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
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
    """Stand for the weight, or the bias, of a linear layer or a convolution.

    What these make of few rows, or positions, are products with them. Everything else forms the weight and has it
    from then on.

    Args:
        like: a tensor of its shape, type and device.
        form: makes the weight.
        product: takes inputs to what the layer makes of them, without its bias or with it, and with the strides and
            paddings of a convolution. None for a bias.
        rows: up to how many rows the product is the cheaper way.
        bias: that of the same layer which stands for one.

    Example:
        >>> weight = torch.tensor([[1.0, 2.0]])
        >>> deferred = DeferredWeight(weight, lambda: weight, lambda inputs, biased: inputs @ weight.mT, rows=1)
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

    @staticmethod
    def __new__(
        cls: type[DeferredWeight],
        like: Tensor,
        form: Callable[[], Tensor],
        product: Callable[..., Tensor] | None = None,
        rows: int = 0,
        bias: DeferredWeight | None = None,
    ) -> DeferredWeight:
        made: DeferredWeight = Tensor._make_wrapper_subclass(
            cls, like.shape, dtype=like.dtype, device=like.device, requires_grad=True
        )
        made.formed, made._form, made._product, made._rows, made._bias = None, form, product, rows, bias
        return made

    def whole(self) -> Tensor:
        """Return the weight itself."""
        if self.formed is not None:
            return self.formed
        with torch.inference_mode(False), torch.enable_grad():
            weight = self._form()
        # What is formed inside of a transform belongs to the transform.
        if torch._C._functorch.peek_interpreter_stack() is None:
            self.formed = weight
        return weight

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Multiply few rows, and do all else with the weight itself."""
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
        """Refuse what comes past functions, where gradients would be lost."""
        raise NotImplementedError(f"Expected {func} to be called as a function of torch but it was not.")


def _whole(value: Any) -> Any:
    return value.whole() if isinstance(value, DeferredWeight) else value


def formed(weights: Mapping[str, Tensor]) -> State:
    """Form the weights that are deferred.

    >>> formed({"bias": torch.ones(1)})
    {'bias': tensor([1.])}
    """
    return {name: _whole(tensor) for name, tensor in weights.items()}
