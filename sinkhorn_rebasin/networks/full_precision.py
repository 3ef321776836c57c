"""Tensors that are learned by small steps, and so stay out of half precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from sinkhorn_rebasin.networks.architecture import single_precision


class FullPrecision(nn.Module):
    """Keep a module's tensors in single precision.

    They are kept at least as wide when it is converted, and move all the same. In half precision the squares that
    Adam divides by are zero, and so is its eps.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FullPrecision:
        def kept(tensor: Tensor) -> Tensor:
            """Apply the conversion in single precision at least."""
            found = fn(tensor)
            narrow = found.is_floating_point() and found.dtype.itemsize < 4
            return single_precision(tensor.to(found.device)) if narrow else found

        super()._apply(kept, recurse)
        return self


class LearnedTensors(FullPrecision, nn.ParameterDict):
    """Hold parameters in single precision, by name.

    They may be wider.

    >>> import torch
    >>> nn.Sequential(LearnedTensors({"scores": torch.zeros(2)})).half()[0]["scores"].dtype
    torch.float32
    """

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__({name: nn.Parameter(value) for name, value in values.items()})


class KeptTensors(FullPrecision):
    """Hold buffers in single precision, by name.

    They may be wider.

    >>> import torch
    >>> KeptTensors({"scaling": torch.zeros(2)}).half().scaling.dtype
    torch.float32
    """

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, value in values.items():
            self.register_buffer(name, value)
