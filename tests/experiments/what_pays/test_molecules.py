"""Molecules that budgets and tests are drawn from, where RDKit is there to build them."""

from __future__ import annotations

import pytest
import torch

from experiments.what_pays import molecules
from experiments.what_pays.conformers import ELEMENTS, PLACES, conformer, small_molecules

NEEDS = "needs RDKit, which comes with `experiments.real_networks.environment`"


def test_molecules_have_places_enough_and_are_named_once() -> None:
    chem = pytest.importorskip("rdkit.Chem", reason=NEEDS)
    names = small_molecules()
    assert len(set(names)) == len(names)
    assert {"CCO", "C1CCC1", "Oc1ccc[nH]1"} <= set(names)
    few_atoms, cumulene, strained, many_carbons = "C#N", "C=C=C", "C1=CC1", "CCCCC"
    assert not {few_atoms, cumulene, strained, many_carbons} & set(names)
    for name in names[::50]:
        molecule = chem.AddHs(chem.MolFromSmiles(name))
        symbols = [atom.GetSymbol() for atom in molecule.GetAtoms()]
        assert all(symbols.count(each) <= most for each, most in zip(ELEMENTS, PLACES, strict=True))


def test_a_conformer_has_the_bonds_of_its_molecule() -> None:
    pytest.importorskip("rdkit", reason=NEEDS)
    found = conformer("CCO", seed=3)
    assert found is not None
    elements, places = found
    assert elements.tolist() == [1, 1, 3, 0, 0, 0, 0, 0, 0]
    between = torch.cdist(places, places)
    # Lengths of bonds in ethanol, by microwave spectroscopy: CC 1.51 and CO 1.43 Angstrom.
    assert between[0, 1].item() == pytest.approx(1.51, abs=0.03)
    assert between[1, 2].item() == pytest.approx(1.43, abs=0.03)
    again = conformer("CCO", seed=3)
    assert again is not None
    assert torch.equal(again[1], places)


def test_no_molecule_of_the_test_is_one_of_budgets(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rdkit", reason=NEEDS)
    pytest.importorskip("torchani", reason="needs torchani, which comes with the same environment")
    drawn: list[str] = []
    monkeypatch.setattr(molecules, "DRAWN", 6)
    monkeypatch.setattr(molecules, "TEST_DRAWN", 3)
    monkeypatch.setattr(
        molecules, "conformer", lambda name, seed: drawn.append(name) or conformer(name, seed)
    )
    before = torch.get_rng_state()
    inputs, tests = molecules.drawn_molecules(seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert (len(inputs), len(tests), len(set(drawn))) == (6, 3, len(drawn))
    # Each element has its own places, filled from the first on.
    there = inputs[..., 0]
    for places in there.split(PLACES, 1):
        assert torch.equal(places, places.sort(1, descending=True).values)
    # What is beside atoms is moved, and what has no atom is empty.
    assert not inputs[there == 0].any()
    again, _ = molecules.drawn_molecules(seed=1)
    assert torch.equal(again, inputs)
    energies = molecules.members_of_ani()[0](inputs)
    assert energies.shape == there.shape
    monkeypatch.setattr(molecules, "TEST_DRAWN", 10**6)
    monkeypatch.setattr(molecules, "small_molecules", lambda: ["CCO", "CCC"])
    with pytest.raises(molecules.DataError, match="Expected 1000006 molecules that come to rest but got 2"):
        molecules.drawn_molecules(seed=1)
