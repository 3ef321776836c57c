"""A device that is none: its tensors hold their values on the CPU and refuse to meet tensors that lie there.

PyTorch's key for devices of others, ``PrivateUse1``, can be served from Python. Tensors of this device say that they
lie on it, so code that makes a tensor on the wrong device, reads one as a NumPy array or draws from the wrong state
fails as it would on a GPU. What a real one does besides, as run kernels of its own, is not seen.

It belongs to a whole process once :func:`device` has made it known, so tests on it run in a process of their own.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "stand_in"
COPIES = {"aten._to_copy.default", "aten.copy_.default"}
KEPT: list[torch.library.Library] = []
"""Operations belong to the device for as long as their library is kept."""


class StandInBackend(_DummyBackendModule):
    """What PyTorch asks a device for; its random state is a tensor of bytes that seeds change."""

    state = torch.zeros(8, dtype=torch.uint8, device="cpu")

    def get_rng_state(self, device: Any = None) -> Tensor:
        return self.state.clone()

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        self.state = state.clone()

    def manual_seed(self, seed: int) -> None:
        self.state = torch.tensor(list(seed.to_bytes(8, "little")), dtype=torch.uint8, device="cpu")

    manual_seed_all = manual_seed

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


class StandInTensor(Tensor):
    """A tensor of this device."""

    values: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, values: Tensor) -> StandInTensor:
        layout = {"strides": values.stride(), "storage_offset": values.storage_offset()}
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined, no-any-return]
            cls, values.size(), **layout, dtype=values.dtype, device=device()
        )

    def __init__(self, values: Tensor) -> None:
        self.values = values

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.values.tolist()

    def numpy(self, *, force: bool = False) -> NoReturn:
        raise TypeError(f"Expected a tensor of the CPU but got one of {NAME}: use Tensor.cpu() first.")

    __array__ = numpy  # type: ignore[assignment]


class StandIn(TorchDispatchMode):
    """Let tensors be made on this device inside."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation on the values, where all tensors lie on one device."""
    given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    here = [tensor for tensor in given if isinstance(tensor, StandInTensor)]
    if here and str(func) not in COPIES:
        _check_devices(func, given)
    wanted = kwargs.get("device")
    asked_here = wanted is not None and torch.device(wanted).type == NAME
    if asked_here:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    result = func(*tree_map(_values, args), **tree_map(_values, kwargs))
    if str(func) == "aten.copy_.default":
        return args[0]
    if not (asked_here or (here and wanted is None)):
        return result
    # Operations in place return the very tensor that they were given.
    known = {id(tensor.values): tensor for tensor in here}
    return tree_map(lambda leaf: known[id(leaf)] if id(leaf) in known else _wrapped(leaf), result)


def _wrapped(leaf: Any) -> Any:
    return StandInTensor(leaf) if isinstance(leaf, Tensor) else leaf


def _values(leaf: Any) -> Any:
    return leaf.values if isinstance(leaf, StandInTensor) else leaf


def _check_devices(func: Any, given: list[Tensor]) -> None:
    for tensor in given:
        # Numbers go everywhere, and so do indices that lie on the CPU.
        index = "index" in str(func) and not tensor.is_floating_point()
        if not isinstance(tensor, StandInTensor) and tensor.dim() and not index:
            raise RuntimeError(
                f"Expected all tensors of {func} to be on {NAME} but got one of shape {tuple(tensor.shape)} "
                "on the CPU."
            )


def _made_below_modes(size: Any, *args: Any, **options: Any) -> Tensor:
    """Make a tensor where PyTorch asks for one without telling modes, as for indices that are lists."""
    return StandInTensor(torch.empty(size, dtype=options.get("dtype"), device="cpu"))


def _strided_below_modes(size: Any, stride: Any, **options: Any) -> Tensor:
    return StandInTensor(torch.empty_strided(size, stride, dtype=options.get("dtype"), device="cpu"))


def _keeping_ties(self: nn.Module, fn: Any, recurse: bool = True) -> nn.Module:
    """Move a network, as ``Module._apply`` does, which unties parameters whose type changes."""
    tables = [table for module in self.modules() for table in (module._parameters, module._buffers)]
    places: dict[int, list[tuple[Any, str]]] = {}
    for table in tables:
        for name, tensor in table.items():
            if tensor is not None:
                places.setdefault(id(tensor), []).append((table, name))
    _apply(self, fn, recurse)
    for (first, name), *others in places.values():
        for table, other in others:
            table[other] = first[name]
    return self


@cache
def device() -> torch.device:
    """Make the device known to this process."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=StandInBackend())
    library = torch.library.Library("aten", "IMPL")
    library.impl("empty.memory_format", _made_below_modes, "PrivateUse1")
    library.impl("empty_strided", _strided_below_modes, "PrivateUse1")
    KEPT.append(library)
    # Networks are moved to tensors of their own: what these hold is out of reach of an assignment to ``data``.
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    nn.Module._apply = _keeping_ties  # type: ignore[method-assign]
    return torch.device(NAME, 0)


_apply = nn.Module._apply
