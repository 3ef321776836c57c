"""ANI-1x as networks of one tensor, and molecules near rest as that tensor."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, islice

import torch
from torch import Tensor, nn

from experiments.real_networks.molecules import ANI_MEMBERS, ani
from experiments.what_pays.conformers import PLACES, conformer, small_molecules
from experiments.what_pays.task import KCAL
from sinkhorn_rebasin.errors import DataError

DRAWN, TEST_DRAWN = 2000, 500
NOISE = 0.1
"""Standard deviation of what is added to every coordinate, in Angstrom."""


class AtomNetworks(nn.Module):
    r"""Give each atom's part of the energy of its molecule, by the network of its element.

    Takes (molecules, places, 1 + features): whether there is an atom, and its surroundings. The first places are
    those of hydrogen, then come those of the other elements. Returns (molecules, places), in kcal/mol and divided by
    the number of atoms, so that a row's sum is the energy per atom; zero where there is none. No network sees a place
    without an atom, since what it says there would spoil the statistics of its units.

    Args:
        networks: one an element, (…, features) to (…, 1), in Hartree.
        places: of each element.

    >>> network = AtomNetworks([nn.Linear(3, 1), nn.Linear(3, 1)], places=(2, 1))
    >>> network(torch.ones(5, 3, 4)).shape
    torch.Size([5, 3])
    """

    def __init__(self, networks: Sequence[nn.Module], places: Sequence[int] = PLACES) -> None:
        super().__init__()
        self.networks, self.places = nn.ModuleList(networks), tuple(places)

    def forward(self, molecules: Tensor) -> Tensor:
        """Return one part of the energy an atom."""
        there = molecules[..., 0] > 0
        elements = zip(
            self.networks, molecules.split(self.places, 1), there.split(self.places, 1), strict=True
        )
        parts = []
        for network, atoms, here in elements:
            energies = network(atoms[here][:, 1:]).squeeze(-1)
            parts.append(energies.new_zeros(here.shape).index_put(here.nonzero(as_tuple=True), energies))
        return KCAL * torch.cat(parts, 1) / there.sum(1, keepdim=True)


def members_of_ani() -> list[nn.Module]:
    """Return the eight members of ANI-1x, with the package's weights."""
    ensemble = ani().neural_networks
    return [AtomNetworks(list(ensemble[number].values())).eval() for number in range(ANI_MEMBERS)]


def drawn_molecules(seed: int) -> tuple[Tensor, Tensor]:
    """Draw molecules near rest, for budgets and for the test, no two of which are the same.

    They are chains and rings of hydrogen, carbon, nitrogen and oxygen, with noise on every coordinate.
    """
    count = DRAWN + TEST_DRAWN
    names = small_molecules()
    with torch.random.fork_rng(devices=[]):
        computer = ani().aev_computer
        torch.manual_seed(seed)
        order = torch.randperm(len(names)).tolist()
        at_rest = (conformer(names[number], seed) for number in order)
        packed = [_packed(computer, *found) for found in islice(filter(None, at_rest), count)]
    if len(packed) < count:
        raise DataError(f"Expected {count} molecules that come to rest but got {len(packed)}: draw fewer.")
    return torch.stack(packed[:DRAWN]), torch.stack(packed[DRAWN:])


@torch.no_grad()
def _packed(computer: nn.Module, elements: Tensor, places: Tensor) -> Tensor:
    """Return the surroundings of atoms that noise has moved, at the places of their elements."""
    moved = places + NOISE * torch.randn(places.shape)
    surroundings = computer((elements[None], moved[None])).aevs[0]
    packed = torch.zeros(sum(PLACES), 1 + surroundings.shape[-1])
    for element, first in enumerate(accumulate(PLACES[:-1], initial=0)):
        here = surroundings[elements == element]
        packed[first : first + len(here), 0] = 1.0
        packed[first : first + len(here), 1:] = here
    return packed
