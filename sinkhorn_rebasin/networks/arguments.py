"""How inputs become the arguments of a network, and how to write the call when they do not fit."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

_NO_TENSOR = (bool, int, float, str)


def arguments_of(module: nn.Module, inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Split inputs into positional and keyword arguments.

    A tuple or list is spread over the arguments, a mapping over the keyword arguments, and anything else is the one
    argument. So is a packed sequence, and a named tuple that a network of fewer arguments takes.

    >>> arguments_of(nn.Identity(), (1, 2)), arguments_of(nn.Identity(), {"input": 1}), arguments_of(nn.Identity(), 1)
    (((1, 2), {}), ((), {'input': 1}), ((1,), {}))
    """
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    if not isinstance(inputs, (tuple, list)) or isinstance(inputs, PackedSequence):
        return (inputs,), {}
    is_named = hasattr(inputs, "_fields")
    if is_named and not takes(module, tuple(inputs), {}) and takes(module, (inputs,), {}):
        return (inputs,), {}
    return tuple(inputs), {}


def takes(module: nn.Module, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> bool:
    """Tell whether a forward takes these arguments.

    True where its signature is unknown.

    >>> takes(nn.Identity(), (1,), {}), takes(nn.Identity(), (1, 2), {}), takes(nn.Identity(), (), {"input": 1})
    (True, False, True)
    """
    signature = signature_of(module)
    if signature is None:
        return True
    try:
        signature.bind(*arguments, **keywords)
    except TypeError:
        return False
    return True


def signature_of(module: nn.Module) -> inspect.Signature | None:
    """Return the signature of a network's forward.

    None where there is none to be read.

    >>> str(signature_of(nn.ReLU()))
    '(input: torch.Tensor) -> torch.Tensor'
    """
    try:
        return inspect.signature(module.forward)
    except (TypeError, ValueError):
        return None


def parameter_names(module: nn.Module) -> tuple[str, ...]:
    """List the names of a network's arguments.

    None are listed where its signature is unknown.

    >>> parameter_names(nn.Bilinear(1, 1, 1))
    ('input1', 'input2')
    """
    signature = signature_of(module)
    return () if signature is None else tuple(signature.parameters)


def takes_several(module: nn.Module) -> bool:
    """Tell whether the second argument may be a tensor.

    It is the second positional one. Its default and annotation tell.

    >>> takes_several(nn.Linear(1, 1)), takes_several(nn.Bilinear(1, 1, 1))
    (False, True)
    """
    signature = signature_of(module)
    if signature is None:
        return False
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = list(signature.parameters.values())
    positional = [parameter for parameter in parameters if parameter.kind in kinds]
    if len(positional) < 2:
        return any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters)
    second = positional[1]
    annotated = second.annotation
    written = annotated if isinstance(annotated, str) else getattr(annotated, "__name__", "")
    return not isinstance(second.default, _NO_TENSOR) and written not in {
        kind.__name__ for kind in _NO_TENSOR
    }


def call_hint(module: nn.Module, inputs: Any) -> str:
    """Say how to write the inputs.

    The text is empty where a network takes them as they are, or where nothing is known.

    >>> call_hint(nn.Identity(), (1, 2))
    ' A tuple is spread over the arguments of forward(input): if it is one argument, write `((a, b),)`.'
    >>> call_hint(nn.Identity(), {"x": 1})
    ' A dict is spread over the arguments of forward(input) by their names: if it is one, write `({...},)`.'
    """
    signature = signature_of(module)
    if signature is None:
        return ""
    forward = (
        f"forward({', '.join(str(p).split(':')[0].split('=')[0] for p in signature.parameters.values())})"
    )
    takes_one = takes(module, (inputs,), {})
    if isinstance(inputs, Mapping):
        if not takes_one:
            return ""
        return f" A dict is spread over the arguments of {forward} by their names: if it is one, write `({{...}},)`."
    is_spread = isinstance(inputs, (tuple, list)) and not isinstance(inputs, PackedSequence)
    if takes_one and is_spread and len(inputs) > 1:
        names = ", ".join("abcdefgh"[: len(inputs)]) if len(inputs) < 9 else "a, b, ..."
        kind = "list" if isinstance(inputs, list) else "tuple"
        whole = f"[{names}]" if kind == "list" else f"({names})"
        return (
            f" A {kind} is spread over the arguments of {forward}: if it is one argument, write `({whole},)`."
        )
    required = [
        parameter
        for parameter in signature.parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    if len(required) > 1 and isinstance(inputs, (Tensor, tuple, list)):
        names = ", ".join(parameter.name for parameter in required)
        return (
            f" It takes {len(required)} arguments: write `({names})`, and a batch with labels "
            f"`(({names}), labels)`."
        )
    return ""
