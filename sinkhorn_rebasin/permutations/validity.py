"""For which inputs the symmetries of a network were found, and what was proven."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from sinkhorn_rebasin._typing import Outputs
from sinkhorn_rebasin.errors import SpecError, listed, outputs_message


@dataclass(frozen=True, repr=False)
class Validity:
    """Tell for which inputs symmetries hold.

    They hold for inputs that lead the network one of the ways that were followed. A network in Python may do
    something else for inputs of other shapes or types, for other arguments, and in training mode. Where it reads no
    values it does the same for all values.

    Attributes:
        inputs: name, shape and type of each tensor among the example inputs.
        training: whether a run in training mode was followed as well as those in eval mode.
        reads_values: whether the network reads values, by which it may choose what it does.
        ways: how many ways through the network were followed.
        change: largest relative change of the output under random permutations, where that was tried; None elsewhere.
        unread: tensors that no run of a network that reads values has used.
        outputs: names of the outputs that count, which permutations leave unchanged; none where all of them do.
        left_out: names of the outputs that do not, which permutations may change.
        function: name of the function of the output that counts, where it is one.
        chosen: this function, which JSON does not hold.

    >>> print(Validity(("x: (4, 3) float32",)))
    followed in eval mode for x: (4, 3) float32
    """

    inputs: tuple[str, ...] = ()
    training: bool = False
    reads_values: bool = False
    ways: int = 1
    change: float | None = None
    unread: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    function: str = ""
    chosen: Callable[[Any], Any] | None = field(default=None, compare=False, repr=False)

    def __repr__(self) -> str:
        change = "" if self.change is None else f", change {self.change:.0e}"
        unread = f", no run used {listed(self.unread)}" if self.unread else ""
        kept = self.function or listed(self.outputs)
        counts = f", {kept} counts" if kept else ""
        return f"Validity(inputs {listed(self.inputs)}; {self.ways} ways{change}{counts}{unread})"

    def __str__(self) -> str:
        modes = "eval and training mode" if self.training else "eval mode"
        parts = [f"followed in {modes} for {', '.join(self.inputs)}"]
        if self.reads_values:
            parts.append(f"it reads values: {self.ways} ways through it were followed")
        if self.change is not None:
            parts.append(f"proven on other inputs to {self.change:.0e}")
        if self.unread:
            parts.append(f"no run used {', '.join(self.unread)}")
        if self.function:
            parts.append(f"keeps what {self.function} makes of the output, and nothing else")
        if self.outputs:
            parts.append(f"keeps the outputs {', '.join(self.outputs)}")
        if self.left_out:
            parts.append(f"does not keep the outputs {', '.join(self.left_out)}")
        return "; ".join(parts)

    @property
    def arguments(self) -> tuple[str, ...]:
        """Name the arguments that hold the example's tensors.

        Each argument of the network is named once.
        """
        return tuple(dict.fromkeys(text.partition(":")[0] for text in self.inputs))

    @property
    def selection(self) -> Outputs:
        """Return what counts, as ``outputs=`` takes it.

        Raises:
            SpecError: when it is a function, which JSON did not hold.
        """
        if self.function and self.chosen is None:
            raise SpecError(
                f"Expected the function {self.function!r} of the output, for which the symmetries were found, but "
                f"the JSON of a spec does not hold it: pass it as outputs=."
            )
        return self.chosen or self.outputs or None

    def counting(self, outputs: Outputs) -> Validity:
        """Copy the validity with these outputs counting."""
        if callable(outputs):
            name = str(getattr(outputs, "__qualname__", type(outputs).__qualname__))
            return replace(self, outputs=(), left_out=(), function=name, chosen=outputs)
        if message := outputs_message(outputs):
            raise SpecError(message)
        names = (outputs,) if isinstance(outputs, str) else tuple(outputs or ())
        left_out = tuple(name for name in self.left_out if name not in names)
        return replace(self, outputs=names, left_out=left_out, function="", chosen=None)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON takes them."""
        return {name: value for name, value in vars(self).items() if name != "chosen"}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Validity:
        """Read what :meth:`to_json` gave."""
        lists = {name: tuple(data.get(name, ())) for name in ("inputs", "unread", "outputs", "left_out")}
        return cls(**{**data, **lists, "chosen": None})


def digest_of(tensor: Tensor) -> str:
    """Hash the values of a tensor of integers.

    >>> import torch
    >>> digest_of(torch.tensor([1, 0])) == digest_of(torch.tensor([1, 0], dtype=torch.int32))
    True
    """
    return hashlib.sha256(tensor.detach().long().cpu().contiguous().numpy().tobytes()).hexdigest()[:16]
