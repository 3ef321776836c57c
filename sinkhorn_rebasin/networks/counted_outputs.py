"""Which of the tensors that a network returns count, so that its symmetries must leave them unchanged."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from sinkhorn_rebasin._typing import Outputs
from sinkhorn_rebasin.errors import ArchitectureError, outputs_message
from sinkhorn_rebasin.networks.caches import without_caches
from sinkhorn_rebasin.networks.nested_tensors import tensors_in

# The attribute of a copy that says what counts; copies of the copy have it too.
_WANTED = "_outputs_that_count"


def count_only(copy: nn.Module, outputs: Outputs) -> None:
    """Remember on a copy which outputs count.

    The copy is private. Its own copies remember that, too.

    Raises:
        ArchitectureError: when ``outputs`` is no name, no names and no function.
    """
    if message := outputs_message(outputs):
        raise ArchitectureError(message)
    vars(copy)[_WANTED] = (outputs,) if isinstance(outputs, str) else outputs


def counted(network: nn.Module, returned: Any) -> Any:
    """Select what counts of a network's output.

    In training mode some networks return something else; where what is asked for is not there, everything counts.

    Raises:
        ArchitectureError: when an output that was asked for does not exist, or a function returns no tensor.

    >>> net = nn.Linear(2, 3)
    >>> count_only(net, "logits")
    >>> len(counted(net, {"logits": Tensor(), "hidden": Tensor()}))
    1
    """
    wanted = vars(network).get(_WANTED)
    try:
        if wanted is None:
            names = names_that_count(returned)
            return (
                [fields_of(returned)[name] for name in names]
                if names
                else without_caches(network, returned)[0]
            )
        return _computed(network, wanted, returned) if callable(wanted) else _named(network, wanted, returned)
    except ArchitectureError:
        if network.training:
            return without_caches(network, returned)[0]
        raise


def names_that_count(returned: Any) -> tuple[str, ...]:
    """Name the outputs that count by default.

    None are named where all count. Of an output of the transformers library the logits count, if it has any:
    ``logits``, or else all whose names begin or end with it (both similarities of CLIP, the start and the end of an
    answer); and what is predicted beside them (``pred_boxes``).

    >>> names_that_count({"logits": Tensor(), "hidden": Tensor()})
    ()
    """
    if not (
        isinstance(returned, Mapping) and any(k.__name__ == "ModelOutput" for k in type(returned).__mro__)
    ):
        return ()
    names = list(fields_of(returned))
    logits = [n for n in names if n == "logits"] or [
        n
        for n in names
        if n.startswith("logits_") or (n.endswith("_logits") and not n.endswith("router_logits"))
    ]
    return tuple(n for n in names if n in logits or n.startswith("pred_")) if logits else ()


def names_asked_for(network: nn.Module, returned: Any) -> tuple[str, ...]:
    """Name the outputs that count of a network.

    They were asked for or not. None are named where all count, or a function tells.
    """
    wanted = vars(network).get(_WANTED)
    if callable(wanted):
        return ()
    return names_that_count(returned) if wanted is None else tuple(wanted)


def names_left_out(network: nn.Module, returned: Any, names: Sequence[str]) -> tuple[str, ...]:
    """Name the outputs that do not count.

    They hold tensors. ``names`` are those that count, or none where all do. Caches that lie in containers are told
    by their place, such as ``[1]``.
    """
    if callable(vars(network).get(_WANTED)):
        return ()
    if names:
        return tuple(name for name in fields_of(returned) if name not in names)
    return without_caches(network, returned)[1]


def fields_of(returned: Any) -> dict[str, Any]:
    """Return the outputs by name.

    Outputs without a name or a tensor are left out.

    >>> list(fields_of({"logits": Tensor(), "loss": None}))
    ['logits']
    """
    if isinstance(returned, Mapping):
        named = {name: value for name, value in returned.items() if isinstance(name, str)}
    elif isinstance(returned, tuple):
        named = dict(zip(getattr(returned, "_fields", ()), returned, strict=False))
    elif dataclasses.is_dataclass(returned):
        named = {field.name: getattr(returned, field.name, None) for field in dataclasses.fields(returned)}
    else:
        named = {} if isinstance(returned, (Tensor, list)) else dict(getattr(returned, "__dict__", {}))
    return {name: value for name, value in named.items() if tensors_in(value)}


def _named(network: nn.Module, wanted: Sequence[str], returned: Any) -> list[Any]:
    known = fields_of(returned)
    for name in wanted:
        if name not in known:
            there = f"outputs {', '.join(map(repr, known))}."
            if not known:
                kind = type(returned).__name__
                there = (
                    f"{kind}, without names. Pass a function of the output, as outputs=lambda out: out[0]."
                )
            raise ArchitectureError(
                f"Expected outputs of {type(network).__name__} by name but got {name!r}, where it returns the {there}"
            )
    return [known[name] for name in wanted]


def _computed(network: nn.Module, function: Any, returned: Any) -> Any:
    try:
        found = function(returned)
    except Exception as error:
        raise ArchitectureError(
            f"Expected outputs to be a function that takes what {type(network).__name__} returns, a "
            f"{type(returned).__name__}, but it raised {type(error).__name__}: {error}"
        ) from error
    if not tensors_in(found):
        raise ArchitectureError(
            f"Expected outputs to be a function that returns at least one tensor but it made "
            f"{type(found).__name__} of what {type(network).__name__} returns."
        )
    return found
