"""Networks of molecules: ADMET-AI's Chemprop networks, and ANI-1x."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn

from experiments.real_networks.absent import stand_in_for
from experiments.real_networks.network import Published, folder_of

ENSEMBLES, MEMBERS = ("classification", "regression"), 5
ANI_MEMBERS = 8
# A compiled maker of features for other networks, which needs a library that its wheel does not bring.
NOT_CALLED = ("cuik_molmaker", "cuik_molmaker.mol_features")
# Small molecules with rings, branches, halides, charges and double bonds.
SMILES = (
    "CC(=O)Oc1ccccc1C(=O)O",
    "CN1C=NC2=C1C(=O)N(C(=O)N2C)C",
    "CC(C)Cc1ccc(cc1)C(C)C(=O)O",
    "OC1CCN(CC1)c1ncc(Cl)cn1",
    "C[N+](C)(C)CC(O)=O",
    "O=S(=O)(N)c1ccc(F)cc1Br",
    "CC#N",
    "C1CC1C=CC(=O)NCCS",
)


def chemprop(kind: str, member: int) -> nn.Module:
    """One of ADMET-AI's Chemprop networks."""
    with stand_in_for(*NOT_CALLED):
        from chemprop.models import load_model

    file = folder_of("admet_ai") / "resources" / "models" / f"admet_{kind}" / f"model_{member}.pt"
    network: nn.Module = load_model(file, multicomponent=False)
    return network


def graphs(number: int) -> Any:
    """Draw molecules, as one graph of all their atoms and bonds."""
    with stand_in_for(*NOT_CALLED):
        from chemprop.data import BatchMolGraph
        from chemprop.featurizers import SimpleMoleculeMolGraphFeaturizer
    from rdkit import Chem

    featurizer = SimpleMoleculeMolGraphFeaturizer()
    chosen = torch.randperm(len(SMILES))[:number].tolist()
    return (BatchMolGraph([featurizer(Chem.MolFromSmiles(SMILES[place])) for place in chosen]),)


def ani() -> nn.Module:
    """ANI-1x: eight networks for each element, with the package's weights.

    The package's list of its files is empty, and it would load them from elsewhere; the files themselves are there.
    """
    import torchani
    from torchani import neurochem

    folder = Path(torchani.__file__).parent / "resources" / "ani-1x_8x"
    files = (folder / "rHCNO-5.2R_16-3.5A_a4-8.params", folder / "sae_linfit.dat", folder / "train")
    found = (*(str(file) for file in files), ANI_MEMBERS)
    with mock.patch.object(neurochem, "parse_neurochem_resources", return_value=found):
        network: nn.Module = torchani.models.ANI1x()
    return network


def atoms(number: int) -> Any:
    """Draw molecules of hydrogen, carbon, nitrogen and oxygen at places near a grid's."""
    length = 6 + number
    kinds = torch.cat([torch.arange(4).expand(number, 4), torch.randint(4, (number, length - 4))], dim=1)
    grid = torch.cartesian_prod(*[torch.arange(3.0)] * 3)
    places = torch.stack([grid[torch.randperm(len(grid))[:length]] for _ in range(number)])
    return ((kinds, 1.2 * places + 0.2 * torch.rand(number, length, 3)),)


def molecule_networks() -> list[Published]:
    """List the networks of molecules."""
    return [
        *(
            Published(f"ADMET-AI/{kind} {member}", "admet_ai", partial(chemprop, kind, member), graphs)
            for kind in ENSEMBLES
            for member in range(MEMBERS)
        ),
        Published("ANI-1x", "torchani", ani, atoms),
    ]
