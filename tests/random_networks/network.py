"""From a plan to a network and its inputs."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.random_networks.joins import make_join
from tests.random_networks.plan import KINDS, SEQUENCE, VECTOR, Plan, channel_axis
from tests.random_networks.shapes import adapted, example, flat_positions, like, limited
from tests.zoo.case import randomise

ACTIVATIONS = {
    "identity": lambda h: h,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "gelu": F.gelu,
    "sin": torch.sin,
    "relu_in_place": lambda h: (h + 0.1).relu_(),
}
WORDS = 7


class Network(nn.Module):
    """A stem, blocks that read earlier tensors and join with them, and a head; built for example inputs."""

    def __init__(self, plan: Plan, inputs: Tensor) -> None:
        super().__init__()
        self.plan = plan
        self.stem: nn.Module = nn.Linear(3, plan.width)
        if plan.stem == "words":
            self.stem = nn.Embedding(WORDS, plan.width)
        self.blocks, self.joins = nn.ModuleList(), nn.ModuleList()
        self.head: nn.Module | None = None
        with torch.no_grad():
            self._run(inputs)

    def forward(self, inputs: Tensor) -> Tensor:
        return self._run(inputs)

    def _run(self, inputs: Tensor) -> Tensor:
        """The forward pass; layers that are not there yet are made for the shapes they meet."""
        found = [(self._start(inputs), self.plan.domain)]
        for number, block in enumerate(self.plan.blocks):
            found.append(self._step(number, found, found[-min(block.back, len(found))]))
        return self._end(*found[-1])

    def _start(self, inputs: Tensor) -> Tensor:
        if self.plan.stem == "words":
            return self.stem(inputs)
        axis = channel_axis(self.plan.domain)
        return self.stem(inputs.movedim(axis, -1)).movedim(-1, axis)

    def _step(
        self, number: int, found: list[tuple[Tensor, str]], source: tuple[Tensor, str]
    ) -> tuple[Tensor, str]:
        block = self.plan.blocks[number]
        kind = KINDS[block.kind]
        domain = source[1] if source[1] in kind.domains else kind.domains[0]
        given = adapted(*source, domain)
        if len(self.blocks) == number:
            made = kind.make(tuple(given.shape), block.width, **block.options)
            self.blocks.append(made.eval())
        result = self.blocks[number](given)
        domain = VECTOR if result.dim() == 2 else domain
        axis = channel_axis(domain)
        earlier = like(adapted(*found[-1], domain), domain, result)
        if len(self.joins) == number:
            join = make_join(block.join, result.shape[axis], earlier.shape[axis])
            self.joins.append(nn.Identity() if join is None else join)
        if not isinstance(self.joins[number], nn.Identity):
            result = self.joins[number](result.movedim(axis, -1), earlier.movedim(axis, -1)).movedim(-1, axis)
        return limited(ACTIVATIONS[block.activation](result), domain), domain

    def _end(self, hidden: Tensor, domain: str) -> Tensor:
        if self.plan.head == "flat" and domain != VECTOR:
            hidden = flat_positions(hidden, domain).flatten(1)
        elif self.plan.head == "positions" and domain != VECTOR:
            hidden = adapted(hidden, domain, SEQUENCE)
        else:
            hidden = adapted(hidden, domain, VECTOR)
        if self.plan.head == "tied" and hidden.shape[-1] == self.plan.width:
            return F.linear(hidden, self.stem.weight if self.plan.stem == "words" else self.stem.weight.t())
        if self.head is None:
            self.head = nn.Linear(hidden.shape[-1], 2)
        return self.head(hidden)


def inputs_of(plan: Plan) -> Tensor:
    """Example inputs of the network of a plan."""
    generator = torch.Generator().manual_seed(plan.seed + 1)
    if plan.stem == "words":
        return torch.randint(WORDS, (2, 6), generator=generator)
    return example(plan.domain, generator)


def build(plan: Plan) -> Network:
    """The network of a plan, with random weights and statistics."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        network = Network(plan, inputs_of(plan))
        randomise(network)
    return network.eval()


def in_double_precision(network: Network) -> Any:
    """A copy in double precision."""
    return copy.deepcopy(network).double().eval()
