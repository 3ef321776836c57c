"""Runs without the compiler, in which higher-order operators are the operations that they stand for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from threading import Lock
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch._C import DispatchKey
from torch._ops import HigherOrderOperator
from torch.utils._pytree import tree_leaves

from sinkhorn_rebasin.networks.function_mode import FunctionMode

Output = TypeVar("Output")


def run_uncompiled(run: Callable[[], Output]) -> Output:
    """Run something as :func:`uncompiled`.

    It may be the first to load the compiler. What the compiler has met before it could be told is forgotten, and a
    run that it has made fail is repeated.
    """
    if _compiler_is_loaded():
        with uncompiled():
            return run()
    try:
        with uncompiled():
            return run()
    except Exception:
        if not _compiler_is_loaded():
            raise
    finally:
        forget_compilation()
    with uncompiled():
        return run()


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run what a network compiles as it stands.

    Higher-order operators run by what they compute. The compiler gives up on functions that run under a dispatch
    mode, and remembers that for good: the caller's own runs would find them so. A compiler that is not loaded is left
    alone, as it takes 100 MB.
    """
    with _EAGER if _compiler_is_loaded() else nullcontext(), PlainOperators():
        yield


def forget_compilation() -> None:
    """Make the compiler forget what it met.

    It then also forgets that it has given up on it.
    """
    if _compiler_is_loaded():
        torch._dynamo.reset()


def _compiler_is_loaded() -> bool:
    return "torch._dynamo" in sys.modules


class _EagerStance:
    """Hold the compiler's stance for all threads.

    It is the whole process's: the last thread to leave puts it back.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._taken: Any = None

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._taken = torch.compiler.set_stance("force_eager")

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._taken.__exit__(*error)


_EAGER = _EagerStance()


class PlainOperators(FunctionMode):
    """Compute higher-order operators by plain operations.

    These are loops, branches and attention. Dispatch modes see the plain operations.

    >>> with PlainOperators():
    ...     torch.ops.higher_order.cond(torch.tensor(True), torch.neg, torch.abs, (torch.ones(2),))
    tensor([-1., -1.])
    """

    def call(self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call an operator as plain operations."""
        if isinstance(func, HigherOrderOperator):
            plain = _plain(func, args)
            if plain is not None:
                with self:
                    return plain(*args, **kwargs)
        return func(*args, **kwargs)


def _plain(func: HigherOrderOperator, args: Sequence[Any]) -> Callable[..., Any] | None:
    """Find the function that computes an operator eagerly.

    None where it is better left to PyTorch.
    """
    name = func.name()
    if name == "custom_function_call":
        return _custom_forward if _only_writes_are_taken_away() and not _follows_gradients(args) else None
    return _KERNELS.get(name) or func.py_kernels.get(DispatchKey.CompositeExplicitAutograd)


def _only_writes_are_taken_away() -> bool:
    """Tell whether functionalization is the only active transform."""
    functorch: Any = torch._C._functorch
    if functorch.get_dynamic_layer_stack_depth() != 1:
        return False
    return bool(functorch.peek_interpreter_stack().key() == functorch.TransformType.Functionalize)


def _follows_gradients(args: Sequence[Any]) -> bool:
    tensors = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _custom_forward(function: type[torch.autograd.Function], *args: Any) -> Any:
    return function.forward(*args)


def _branch(condition: Any, if_true: Callable[..., Any], if_false: Callable[..., Any], operands: Any) -> Any:
    return if_true(*operands) if condition else if_false(*operands)


def _scan(
    combine: Callable[..., Any], start: Sequence[Any], rows: Sequence[Tensor], additional_inputs: Any = ()
) -> list[Any]:
    carry, found = list(start), []
    for row in zip(*rows, strict=True):
        results = combine(*carry, *row, *additional_inputs)
        carry = list(results[: len(start)])
        found.append(results[len(start) :])
    return [*carry, *(torch.stack(column) for column in zip(*found, strict=True))]


# PyTorch's own refuse to run under a dispatch mode.
_KERNELS: dict[str, Callable[..., Any]] = {"cond": _branch, "scan": _scan}
