"""Training and eval mode as a flag of each module, without calls that networks may answer by rewriting weights."""

from __future__ import annotations

from functools import partial
from typing import TypeVar
from weakref import ref

from torch import nn

Module = TypeVar("Module", bound=nn.Module)

MODE_BEFORE = "_sinkhorn_rebasin_mode_before"


def in_mode(module: Module, training: bool) -> Module:
    """Set the mode of every module.

    Returns the network.

    ``train()`` and ``eval()`` are not called: adapters add their product to a weight there, and others fold or
    average weights, in memory that the caller may share.

    >>> class Doubling(nn.Linear):
    ...     def train(self, mode=True):
    ...         self.weight.data.mul_(2)
    ...         return super().train(mode)
    >>> layer = Doubling(1, 1)
    >>> before = layer.weight.item()
    >>> in_mode(layer, False).training, layer.weight.item() == before
    (False, True)
    """
    for child in module.modules():
        if changes_mode_itself(child):
            vars(child).setdefault(MODE_BEFORE, child.training)
        child.training = training
    return module


def changes_mode_itself(module: nn.Module) -> bool:
    """Tell whether a class overrides its mode change.

    It then does more than to set a flag.

    >>> changes_mode_itself(nn.Linear(2, 2))
    False
    """
    kind = type(module)
    return kind.train is not nn.Module.train or kind.eval is not nn.Module.eval


def hold_modes(module: nn.Module) -> None:
    """Make modes mere flags for good.

    This holds also where ``train()`` or ``eval()`` is called on what holds the network.
    """
    for child in module.modules():
        if changes_mode_itself(child):
            vars(child).setdefault(MODE_BEFORE, child.training)
            vars(child)["train"] = partial(_flag, child)
            vars(child)["eval"] = partial(_flag, child, False)


def hold_modes_weakly(module: nn.Module) -> None:
    """Make held modes hold no layer, for a copy that is to end with its last use.

    >>> from weakref import ref
    >>> class Fusing(nn.Linear):
    ...     def train(self, mode=True):
    ...         return super().train(mode)
    >>> layer = Fusing(2, 2)
    >>> hold_modes(layer)
    >>> hold_modes_weakly(layer)
    >>> layer.eval().training
    False
    >>> left = ref(layer)
    >>> del layer
    >>> left() is None
    True
    """
    for child in module.modules():
        if isinstance(vars(child).get("train"), partial) and MODE_BEFORE in vars(child):
            vars(child)["train"] = partial(_flag_of, ref(child))
            vars(child)["eval"] = partial(_flag_of, ref(child), False)


def free_modes(module: nn.Module) -> None:
    """Take back what :func:`hold_modes` and :func:`in_mode` noted."""
    for child in module.modules():
        if MODE_BEFORE in vars(child):
            for name in (MODE_BEFORE, "train", "eval"):
                vars(child).pop(name, None)


def _flag_of(layer: ref[nn.Module], mode: bool = True) -> nn.Module:
    module = layer()
    if module is None:
        raise ReferenceError("Expected a layer that is still there but it is gone.")
    return _flag(module, mode)


def _flag(module: nn.Module, mode: bool = True) -> nn.Module:
    module.training = mode
    for child in module.children():
        child.train(mode)
    return module
