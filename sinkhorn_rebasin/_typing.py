"""Types that several layers share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, Literal, TypeAlias

from torch import Tensor, nn

State: TypeAlias = dict[str, Tensor]
"""A state dict: tensor name to tensor."""

StateLike: TypeAlias = Mapping[str, Tensor]
"""Any mapping that can be read as a state dict."""

NetworkLike: TypeAlias = "nn.Module | StateLike | str | PathLike[str]"
"""A module, a state dict, a dict with a ``state_dict`` in it, or the path of a file of weights."""

Heads: TypeAlias = Literal["reference", "target"]
"""Whose ignored layers a network between two has."""

MergedHeads: TypeAlias = Literal["reference", "target", "each"]
"""Whose ignored layers a merged network has; each network's, it is one trunk with several heads."""

Permutations: TypeAlias = Mapping[str, Tensor]
"""Group name to permutation: long indices (..., n) when hard, doubly stochastic (..., n, n) when soft."""

Criterion: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Network output and labels to a scalar loss, averaged over the batch."""

ExampleInputs: TypeAlias = Any
"""What the network's forward takes: a tensor, a tuple of positional or a dict of keyword arguments."""

Outputs: TypeAlias = str | Sequence[str] | Callable[[Any], Any] | None
"""Which outputs of a network count: a name, names, a function of the output, or those that count by default."""

BatchAdapter: TypeAlias = Callable[[Any], tuple[Any, Any]]
"""A batch, as the data yield it, to (inputs, labels)."""
