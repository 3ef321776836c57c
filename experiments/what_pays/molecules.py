"""ANI-1x as networks of one tensor, and molecules near rest as that tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from experiments.real_networks.molecules import ANI_MEMBERS, ani
from experiments.what_pays.task import KCAL

ELEMENTS = ("H", "C", "N", "O")
PLACES = (8, 4, 2, 2)
"""Atoms of each element that a molecule has at most."""
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


def drawn_molecules(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw molecules near rest, for budgets and for the test; the test's molecules are others.

    They are those of the G2 set, as ase brings it, of hydrogen, carbon, nitrogen and oxygen, with noise on every
    coordinate. Every fourth is one of the test. Between them come the numbers of the molecules for budgets.
    """
    names = molecules_at_rest()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        training = [name for number, name in enumerate(names) if number % 4]
        tests = [name for number, name in enumerate(names) if number % 4 == 0]
        return *_drawn(training, DRAWN), _drawn(tests, TEST_DRAWN)[0]


def molecules_at_rest() -> list[str]:
    """Name the molecules that have places enough, and at least four atoms."""
    from ase.build import molecule
    from ase.collections import g2

    named = []
    for name in g2.names:
        symbols = molecule(name).get_chemical_symbols()
        fits = all(symbols.count(element) <= most for element, most in zip(ELEMENTS, PLACES, strict=True))
        if len(symbols) >= 4 and set(symbols) <= set(ELEMENTS) and fits:
            named.append(name)
    return named


@torch.no_grad()
def _drawn(names: Sequence[str], count: int) -> tuple[Tensor, Tensor]:
    """Return so many molecules, equally many of each name, in a drawn order, and the numbers of their names."""
    from ase.build import molecule

    computer = ani().aev_computer
    parts: list[Tensor] = []
    numbers = []
    for number, name in enumerate(names):
        atoms = molecule(name)
        kinds = torch.tensor([ELEMENTS.index(each) for each in atoms.get_chemical_symbols()])
        copies = len(range(number, count, len(names)))
        rest = torch.tensor(atoms.positions, dtype=torch.float32).expand(copies, -1, -1)
        surroundings = computer((kinds.expand(copies, -1), rest + NOISE * torch.randn(rest.shape))).aevs
        packed = torch.zeros(copies, sum(PLACES), 1 + surroundings.shape[-1])
        for element, most in enumerate(PLACES):
            here = (kinds == element).nonzero().flatten()
            first = sum(PLACES[:element])
            assert len(here) <= most
            packed[:, first : first + len(here), 0] = 1.0
            packed[:, first : first + len(here), 1:] = surroundings[:, here]
        parts.append(packed)
        numbers.append(torch.full((copies,), number))
    together, named = torch.cat(parts), torch.cat(numbers)
    order = torch.randperm(len(together))
    return together[order], named[order]
