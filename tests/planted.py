"""Problems with known answers: a network, the same network in another order, and the way back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.permutations import PermutationSpec, inverse, permute_state, random_permutations
from sinkhorn_rebasin.symmetry import discover_symmetry
from tests.cases import case, noise, randomise, spec_of
from tests.zoo.wiring import Block, resnet

# In narrow networks a method may end in a local optimum, however good it is.
WIDE = {
    "mlp": (
        lambda: nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10)),
        noise(64, 20),
    ),
    "conv_batch_norm": (
        lambda: nn.Sequential(
            *(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 24, 3), nn.BatchNorm2d(24)),
            *(nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(96, 10)),
        ),
        noise(8, 3, 8, 8),
    ),
    "resnet": (
        lambda: resnet(Block(16, 16, 12), Block(16, 24, 20, "B"), Block(24, 24, 18), first=16, last=24),
        noise(8, 2, 6, 6),
    ),
}


@dataclass(frozen=True)
class Planted:
    """A reference, a target that is the reference re-ordered, and the permutations that undo the order."""

    reference: nn.Module
    target: dict[str, Tensor]
    spec: PermutationSpec
    answer: dict[str, Tensor]
    inputs: Tensor


def planted(
    model: nn.Module, spec: PermutationSpec, generator: torch.Generator
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The model's tensors under random permutations, and these: the exact answer is their inverse."""
    permutations = random_permutations(spec, generator=generator)
    return permute_state(tensors_of(model), spec, permutations), permutations


def planted_case(name: str, seed: int = 0) -> Planted:
    """A planted problem on a network of the zoo with random weights."""
    torch.manual_seed(seed)
    model, inputs = randomise(case(name).make()).eval(), case(name).make_inputs()
    return planted_in(model, spec_of(case(name)), inputs, seed)


def planted_wide(name: str, seed: int = 0) -> Planted:
    """A planted problem on a network wide enough that its units are easily told apart."""
    torch.manual_seed(seed)
    make, make_inputs = WIDE[name]
    model, inputs = randomise(make()).eval(), make_inputs()
    return planted_in(model, _spec_of_wide(name), inputs, seed)


@cache
def _spec_of_wide(name: str) -> PermutationSpec:
    make, make_inputs = WIDE[name]
    with torch.random.fork_rng(devices=[]):
        return discover_symmetry(make(), make_inputs())


def planted_network(model: nn.Module, inputs: Tensor, seed: int = 0) -> Planted:
    """A planted problem on this network."""
    return planted_in(model, discover_symmetry(model, inputs), inputs, seed)


def planted_in(model: nn.Module, spec: PermutationSpec, inputs: Tensor, seed: int) -> Planted:
    """A planted problem on a network of this spec."""
    target, permutations = planted(model, spec, torch.Generator().manual_seed(seed))
    return Planted(model, target, spec, inverse(spec, permutations), inputs)
