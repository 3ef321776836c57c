"""For which inputs the symmetries of a network were found, and what was proven."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Validity:
    """For which inputs symmetries hold: those that lead the network one of the ways that were followed.

    A network in Python may do something else for inputs of other shapes or types, for other arguments, and in
    training mode. Where it reads no values it does the same for all values.

    Attributes:
        inputs: name, shape and type of each tensor among the example inputs.
        training: whether a run in training mode was followed as well as those in eval mode.
        reads_values: whether the network reads values, by which it may choose what it does.
        ways: how many ways through the network were followed.
        change: largest relative change of the output under random permutations, where that was tried; None elsewhere.
        unread: tensors that no run of a network that reads values has used.

    >>> print(Validity(("x: (4, 3) float32",)))
    followed in eval mode for x: (4, 3) float32
    """

    inputs: tuple[str, ...] = ()
    training: bool = False
    reads_values: bool = False
    ways: int = 1
    change: float | None = None
    unread: tuple[str, ...] = ()

    def __str__(self) -> str:
        modes = "eval and training mode" if self.training else "eval mode"
        parts = [f"followed in {modes} for {', '.join(self.inputs)}"]
        if self.reads_values:
            parts.append(f"it reads values: {self.ways} ways through it were followed")
        if self.change is not None:
            parts.append(f"proven on other inputs to {self.change:.0e}")
        if self.unread:
            parts.append(f"no run used {', '.join(self.unread)}")
        return "; ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON takes them."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Validity:
        """What :meth:`to_json` gave."""
        lists = {name: tuple(data[name]) for name in ("inputs", "unread")}
        return cls(**{**data, **lists})


def digest_of(tensor: Tensor) -> str:
    """Hash the values of a tensor of integers.

    >>> import torch
    >>> digest_of(torch.tensor([1, 0])) == digest_of(torch.tensor([1, 0], dtype=torch.int32))
    True
    """
    return hashlib.sha256(tensor.detach().long().cpu().contiguous().numpy().tobytes()).hexdigest()[:16]
