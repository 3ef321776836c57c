"""Lending weights to a network for one run, in the way that this network needs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from operator import is_
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import _get_current_dispatch_mode

from sinkhorn_rebasin._typing import StateLike
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.architecture import named_tensors
from sinkhorn_rebasin.networks.copying import inputs_like
from sinkhorn_rebasin.networks.deferred_weight import formed
from sinkhorn_rebasin.networks.mode_changes import check_mode_changes, failed_in_its_mode
from sinkhorn_rebasin.networks.private_run import HOOKS, private_run
from sinkhorn_rebasin.networks.reachable import tensors_reached
from sinkhorn_rebasin.networks.shared_memory import overlapping
from sinkhorn_rebasin.networks.stray_reads import StrayReads
from sinkhorn_rebasin.networks.structures import shape_of, tensors_in
from sinkhorn_rebasin.networks.uncompiled import forget_compilation, run_uncompiled

_CONTENTS = ("_parameters", "_buffers", "_modules")
_EMPTY: dict[type, Any] = {dict: {}, list: [], set: set(), OrderedDict: {}}
_STANDARD = frozenset(vars(nn.Module()))


@dataclass
class _Known:
    """Hold what earlier runs told of a network.

    Attributes:
        tensors: the identities of its parameters and buffers; it is met anew when they are others.
        keeps_weights: whether attributes hold its weights too, or views of them; None where nobody has looked.
        lives_on: by modes and shapes, whether its layers were still held by something after a run with gradients.
        watched: whether a run has been watched at its own weights (False), and at others (True).
    """

    tensors: Hashable = None
    keeps_weights: bool | None = None
    lives_on: dict[Hashable, bool] = field(default_factory=dict)
    watched: set[bool] = field(default_factory=set)


_KNOWN: WeakKeyDictionary[nn.Module, _Known] = WeakKeyDictionary()


def run_with(
    module: nn.Module, weights: StateLike, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> Any:
    """Run a network with other weights.

    They take the place of its own while it runs. Returns its output.

    Most networks are lent the weights and return them. Those that keep them elsewhere than as parameters and buffers,
    and, where gradients are asked for, those whose layers outlive the run, run on a copy that keeps them. Attributes
    that a run sets are taken back: what a network keeps of one run's weights is wrong in the next. The first run is
    watched for reads of other weights.

    Raises:
        ArchitectureError: when the network reads weights that it was not given, or changing its mode would have
            changed what it computes.
    """
    known = _known(module)
    if weights and known.keeps_weights is None:
        known.keeps_weights = _keeps_weights(module)
    if bool(weights) in known.watched:
        return _lent(known, module, weights, arguments, keywords)
    weights, watched = formed(weights), _can_be_watched()
    spare = inputs_like((arguments, keywords)) if watched else None  # the network may write to its inputs
    try:
        if watched:
            run = partial(_lent, known, module, weights)
            outputs = _watched(StrayReads(module, weights), run, arguments, keywords)
        else:
            outputs = _lent(known, module, weights, arguments, keywords)
    except Exception as error:
        told = None if isinstance(error, ArchitectureError) else failed_in_its_mode(module, error)
        if told is None:
            raise
        raise told from error
    if spare is not None:
        check_mode_changes(module, weights, spare[0], spare[1], outputs)
        known.watched.add(bool(weights))
    return outputs


def run_itself(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Run a copy at its own weights.

    Returns its output. The first run is watched for reads of the original's.

    >>> layer = nn.Linear(2, 2)
    >>> torch.equal(run_itself(layer, (torch.ones(2),), {}), layer(torch.ones(2)))
    True
    """
    known = _known(module)
    if False in known.watched or not _can_be_watched():
        return module(*arguments, **keywords)
    outputs = _watched(
        StrayReads(module, {}), lambda given, named: module(*given, **named), arguments, keywords
    )
    known.watched.add(False)
    return outputs


def _watched(
    reads: StrayReads,
    run: Callable[[tuple[Any, ...], dict[str, Any]], Any],
    arguments: tuple[Any, ...],
    keywords: dict[str, Any],
) -> Any:
    """Watch a run for stray reads.

    Where an operator refuses to be watched, its plain operations are.
    """
    spare, named = inputs_like((arguments, keywords))
    try:
        with reads.checked():
            return run(arguments, keywords)
    except NotImplementedError:
        forget_compilation()

    def again() -> Any:
        """Run once more, watched for stray reads."""
        with reads.checked():
            return run(spare, named)

    try:
        return run_uncompiled(again)
    finally:
        forget_compilation()


def _known(module: nn.Module) -> _Known:
    tensors = tuple(id(tensor) for child in module.modules() for tensor in _tensors_of(child))
    known = _KNOWN.get(module)
    if known is None or known.tensors != tensors:
        known = _KNOWN[module] = _Known(tensors)
    return known


def _is_transformed() -> bool:
    """Tell whether functions are being transformed.

    torch.func then allows neither hooks nor functions of our own.
    """
    return torch._C._functorch.peek_interpreter_stack() is not None


def _can_be_watched() -> bool:
    """Tell whether nobody else follows the run."""
    return not _is_transformed() and _get_current_dispatch_mode() is None


def _lent(
    known: _Known,
    module: nn.Module,
    weights: StateLike,
    arguments: tuple[Any, ...],
    keywords: dict[str, Any],
) -> Any:
    graded = bool(weights) and torch.is_grad_enabled() and not _is_transformed()
    graded = graded and any(
        tensor.requires_grad for tensor in (*weights.values(), *tensors_in((arguments, keywords)))
    )
    key = _signature(module, arguments, keywords) if graded else None
    if known.keeps_weights or (graded and known.lives_on.get(key, True)):
        outputs, lives_on = private_run(module, formed(weights), arguments, keywords, graded=graded)
        if graded:
            known.lives_on[key] = lives_on
        return outputs
    with _attributes_kept(module):
        return functional_call(module, _each_once(module, weights), arguments, keywords, tie_weights=False)


def _each_once(module: nn.Module, weights: StateLike) -> dict[str, Tensor]:
    """Give every place of a weight its tensor.

    A layer that stands in two places would be lent its weights twice, and be given back those of the first time.
    """
    own = named_tensors(module)
    given: dict[int, Tensor] = {}
    for name, tensor in weights.items():
        if name in own:
            given.setdefault(id(own[name]), tensor)
    places = {
        f"{path}.{name}" if path else name: given[id(tensor)]
        for path, child in module.named_modules()
        for name, tensor in (*child._parameters.items(), *child._buffers.items())
        if tensor is not None and id(tensor) in given
    }
    return {name: tensor for name, tensor in weights.items() if name not in own} | places


def _signature(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Hashable:
    shapes = tuple(shape_of(tensor) for tensor in tensors_in((arguments, keywords)))
    return (*(child.training for child in module.modules()), shapes)


def _keeps_weights(module: nn.Module) -> bool:
    """Tell whether attributes hold weights as well.

    These are parameters or buffers, or views of them.
    """
    own = {id(tensor): tensor for child in module.modules() for tensor in _tensors_of(child)}
    children = {id(child) for child in module.modules()}
    held = [
        value
        for child in module.modules()
        for name, value in vars(child).items()
        # Recurrent layers keep theirs in step themselves.
        if name not in _CONTENTS and not (isinstance(child, nn.RNNBase) and name.startswith("_flat_weight"))
    ]
    others = tensors_reached(held, without=children)
    if any(id(tensor) in own for tensor in others):
        return True
    return any(
        any(id(tensor) in own for tensor in group) and any(id(tensor) not in own for tensor in group)
        for group in overlapping([*own.values(), *others])
    )


def _tensors_of(module: nn.Module) -> list[Tensor]:
    held = (*module._parameters.values(), *module._buffers.values())
    return [tensor for tensor in held if tensor is not None]


@contextmanager
def _attributes_kept(module: nn.Module) -> Iterator[None]:
    """Put all modules' attributes back afterwards.

    So are the items in lists and dicts, and the hooks.
    """
    before = [(child, dict(vars(child))) for child in module.modules()]
    contents = [
        (value, value.copy() if value else _EMPTY[type(value)])
        for _, attributes in before
        for name, value in attributes.items()
        if (name not in _STANDARD and type(value) in _EMPTY) or name in HOOKS
    ]
    try:
        yield
    finally:
        for child, attributes in before:
            _restore(vars(child), attributes)
        for value, items in contents:
            if isinstance(value, dict):
                _restore(value, items)
            elif isinstance(value, list):
                value[:] = items
            else:
                value.clear()
                value.update(items)


def _restore(changed: dict[Any, Any], before: Mapping[Any, Any]) -> None:
    if changed.keys() == before.keys() and all(map(is_, changed.values(), before.values())):
        return
    changed.clear()
    changed.update(before)
