"""Small molecules of carbon, nitrogen, oxygen and hydrogen at rest, built by RDKit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

ELEMENTS = ("H", "C", "N", "O")
PLACES = (8, 4, 2, 2)
"""Atoms of each element that a molecule has at most."""
HEAVY = 6
"""Atoms that are not hydrogen, at most."""
RELAXED = 500
"""Steps after which a molecule has to be at rest."""
EXCLUDED = ("*=*=*", "[r3,r4]=,:*", "[R]#[R]")
"""SMARTS of what ANI-1x is no model of: cumulenes, and rings under great strain.

Without these its members are as far apart as on other molecules near rest, .4 to .55 kcal/mol/atom from their mean.
"""


def small_molecules() -> list[str]:
    """Name all small chains and single rings, each once, by its canonical SMILES.

    Source: D. Weininger, SMILES, a chemical language and information system, J. Chem. Inf. Comput. Sci. 28, 1988.
    """
    from rdkit import Chem
    from rdkit.rdBase import BlockLogs

    excluded = [Chem.MolFromSmarts(pattern) for pattern in EXCLUDED]
    found: dict[str, None] = {}
    with BlockLogs():
        for written in _written():
            molecule = Chem.MolFromSmiles(written)
            if molecule is not None and _is_likely(molecule, excluded):
                found[Chem.MolToSmiles(molecule)] = None
    return list(found)


def _written() -> Iterator[str]:
    """Yield SMILES of chains, and of chains closed to a ring; of many no molecule exists."""
    for length in range(1, HEAVY + 1):
        for heavy in itertools.product(ELEMENTS[1:], repeat=length):
            if any(heavy.count(each) > most for each, most in zip(ELEMENTS[1:], PLACES[1:], strict=True)):
                continue
            for bonds in itertools.product(("", "=", "#"), repeat=length - 1):
                for closed_at in (None, *range(2, length)):
                    atoms = [*heavy]
                    if closed_at is not None:
                        atoms[0] += "1"
                        atoms[closed_at] += "1"
                    yield atoms[0] + "".join(map("".join, zip(bonds, atoms[1:], strict=True)))


def _is_likely(molecule: Any, excluded: list[Any]) -> bool:
    """Whether a molecule has four atoms, hydrogens that fit, and nothing that is excluded."""
    from rdkit import Chem

    atoms = [atom.GetSymbol() for atom in Chem.AddHs(molecule).GetAtoms()]
    fits = len(atoms) >= 4 and atoms.count("H") <= PLACES[0]
    return fits and not any(molecule.HasSubstructMatch(pattern) for pattern in excluded)


def conformer(smiles: str, seed: int) -> tuple[Tensor, Tensor] | None:
    """Embed a molecule and relax it in the MMFF94 field.

    Args:
        smiles: of the molecule, without its hydrogens.
        seed: of the places it is embedded at first.

    Returns:
        Numbers of elements, (atoms,), and places in Angstrom, (atoms, 3); None where it does not come to rest.

    Source: S. Wang, J. Witek, G. Landrum and S. Riniker, Improving conformer generation for small rings and
    macrocycles, J. Chem. Inf. Model. 60, 2020.
    """
    from rdkit import Chem
    from rdkit.Chem import AllChem

    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    options = AllChem.ETKDGv3()
    options.randomSeed = seed
    if AllChem.EmbedMolecule(molecule, options) or AllChem.MMFFOptimizeMolecule(molecule, maxIters=RELAXED):
        return None
    elements = torch.tensor([ELEMENTS.index(atom.GetSymbol()) for atom in molecule.GetAtoms()])
    return elements, torch.tensor(molecule.GetConformer().GetPositions(), dtype=torch.float32)
