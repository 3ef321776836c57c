"""What networks are asked for, and how far an answer is from the right one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.front.gain import PartLosses
from sinkhorn_rebasin.front.parts import PARTS
from sinkhorn_rebasin.networks.comparison import check_comparable

Network = Callable[[Tensor], Tensor]
LEAST = 1e-9
KCAL = 627.5094738898777
"""Kilocalories per mole in a Hartree."""


@dataclass(frozen=True)
class Task:
    """Say how outputs are averaged, trained and measured.

    Attributes:
        mean: outputs of several networks to what they say together, which also is what a network is distilled to.
        loss: (outputs, labels or what was said together) to a scalar.
        figures: (outputs, targets of the test) to figures, lower is better in ``"error"``.
        figure: what ``"error"`` is, in words.
        combined: what networks say together, to outputs that are measured as those of one.
        of_classes: whether inputs are standardized images, and outputs scores of classes.
    """

    mean: Callable[[Sequence[Tensor]], Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]
    figures: Callable[[Tensor, Tensor], dict[str, float]]
    figure: str
    combined: Callable[[Tensor], Tensor] = lambda said: said
    of_classes: bool = False

    @torch.no_grad()
    def said_together(self, networks: Sequence[Network], inputs: Tensor, batch: int = 500) -> Tensor:
        """Return what several networks say together of some inputs."""
        return torch.cat([self.mean([network(part) for network in networks]) for part in inputs.split(batch)])

    @torch.no_grad()
    def measured(
        self, network: Network, samples: tuple[Tensor, Tensor], batch: int = 500
    ) -> dict[str, float]:
        """Return the figures of one network on samples and their targets."""
        return self.figures(torch.cat([network(part) for part in samples[0].split(batch)]), samples[1])

    @torch.no_grad()
    def losses(self, network: Network, samples: tuple[Tensor, Tensor], batch: int = 500) -> PartLosses:
        """Return the loss on small parts of samples and their targets."""
        outputs = torch.cat([network(part) for part in samples[0].split(batch)])
        size = math.ceil(len(outputs) / PARTS)
        parts = list(zip(outputs.split(size), samples[1].split(size), strict=True))
        values = torch.stack([self.loss(said, wanted) for said, wanted in parts])
        return PartLosses(values.double(), torch.tensor([len(said) for said, _ in parts]).double())


def mean_of_probabilities(logits: Sequence[Tensor]) -> Tensor:
    """Return the mean probabilities of several networks.

    >>> mean_of_probabilities([torch.zeros(1, 2), torch.zeros(1, 2)]).tolist()
    [[0.5, 0.5]]
    """
    return torch.stack([each.softmax(1) for each in logits]).mean(0)


def mean_of_outputs(outputs: Sequence[Tensor]) -> Tensor:
    """Return the mean outputs of several networks.

    >>> mean_of_outputs([torch.zeros(1), torch.ones(1)]).tolist()
    [0.5]
    """
    return torch.stack(list(outputs)).mean(0)


def divergence(said: Tensor, wanted: Tensor) -> Tensor:
    r"""Return the mean :math:`\mathrm{KL}(\text{wanted} \,\|\, \text{said})` of probabilities on the second axis.

    >>> divergence(torch.tensor([[0.5, 0.5]]), torch.tensor([[0.5, 0.5]])).item()
    0.0
    """
    logarithms = wanted.clamp(min=LEAST).log() - said.clamp(min=LEAST).log()
    return (wanted * logarithms).sum(1).mean()


def energy_error(parts: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean squared error of molecules' energies and of all atoms' parts of them.

    What the networks say of each atom tells more than the sum of a molecule.

    >>> energy_error(torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 1.0]])).item()
    2.0
    """
    wrong = parts - wanted
    return (wrong.sum(1).square() + wrong.square().sum(1)).mean()


def _of_classes(logits: Tensor, labels: Tensor) -> dict[str, float]:
    right = float((logits.argmax(1) == labels).double().mean())
    return {"error": float(F.cross_entropy(logits, labels)), "accuracy": right}


CLASSES = Task(
    mean_of_probabilities,
    F.cross_entropy,
    _of_classes,
    "test loss",
    combined=lambda said: said.clamp(min=LEAST).log(),
    of_classes=True,
)
PROBABILITIES = Task(
    mean_of_outputs,
    divergence,
    lambda said, wanted: {"error": 1000 * float(divergence(said, wanted))},
    "1000 KL to the mean of all members",
)
ENERGIES = Task(
    mean_of_outputs,
    energy_error,
    lambda said, wanted: {"error": float((said - wanted).sum(1).abs().mean())},
    "kcal/mol/atom from the mean of all members",
)


def check_of_one_kind(networks: Sequence[nn.Module], names: Sequence[str]) -> None:
    """Raise ArchitectureError unless the networks of an ensemble differ in values alone.

    >>> check_of_one_kind([nn.Linear(2, 3), nn.Linear(2, 3)], ["first", "second"])
    """
    for name, network in zip(names[1:], networks[1:], strict=True):
        try:
            check_comparable(networks[0], network)
        except ArchitectureError as error:
            raise ArchitectureError(
                f"Expected networks of one architecture but {names[0]} and {name} differ: {error}"
            ) from error
