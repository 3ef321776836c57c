"""One network of somebody else's package: a factory, the inputs it takes, and where it is listed."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

Inputs = Callable[[int], Any]


@dataclass(frozen=True)
class Network:
    """A network by name.

    Attributes:
        name: the package's name, a slash, and the factory's.
        distribution: what pip calls the package.
        make: builds the network from a configuration, with random weights.
        inputs: draws inputs of a given batch size (nodes, for graphs), as the network takes them.
    """

    name: str
    distribution: str
    make: Callable[[], nn.Module]
    inputs: Inputs

    @property
    def source(self) -> str:
        """A short hash of the file that holds the factory."""
        return hashlib.sha256(Path(inspect.getfile(self.make)).read_bytes()).hexdigest()[:16]


class Field(list[Network]):
    """The networks of one field, in the order in which their factories are written."""

    def network(self, distribution: str, inputs: Inputs) -> Callable[[Callable[[], nn.Module]], Any]:
        """Return the decorator that lists a factory."""

        def listed(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
            self.append(Network(f"{distribution}/{make.__name__}", distribution, make, inputs))
            return make

        return listed


class Part(nn.Module):
    """A network as the function from its inputs to one part of what it returns.

    People train these networks on one of their outputs; caches and hidden states beside it are not part of the
    function.
    """

    def __init__(self, model: nn.Module, part: str | int) -> None:
        super().__init__()
        self.model = model
        self.part = part

    def forward(self, *arguments: Any, **named: Any) -> Tensor:
        outputs = self.model(*arguments, **named)
        named = isinstance(self.part, str) and not isinstance(outputs, dict)
        found: Tensor = getattr(outputs, str(self.part)) if named else outputs[self.part]
        return found


class Method(nn.Module):
    """A network of which a method is the function, such as the log-probability of a flow."""

    def __init__(self, model: nn.Module, method: str) -> None:
        super().__init__()
        self.model = model
        self.method = method

    def forward(self, *arguments: Any, **named: Any) -> Any:
        return getattr(self.model, self.method)(*arguments, **named)
