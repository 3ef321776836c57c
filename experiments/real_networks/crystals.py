"""Networks of crystals: CHGNet."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from experiments.real_networks.absent import stand_in_for
from experiments.real_networks.network import Published

VERSIONS = ("0.2.0", "0.3.0", "r2scan")


def chgnet(version: str) -> nn.Module:
    """CHGNet, which predicts the energy of crystals."""
    # The reader of a graphics card's memory is called for a choice of the device alone.
    with stand_in_for("nvidia_smi"):
        from chgnet.model.model import CHGNet

    network: nn.Module = CHGNet.load(model_name=version, use_device="cpu", verbose=False)
    return network


def crystals(number: int) -> Any:
    """Draw crystals of rock salt, sheared and with displaced atoms, as the package's graphs."""
    with stand_in_for("nvidia_smi"):
        from chgnet.graph import CrystalGraphConverter
    from pymatgen.core import Lattice, Structure

    converter = CrystalGraphConverter(atom_graph_cutoff=6, bond_graph_cutoff=3, algorithm="legacy")
    pairs = (("Na", "Cl"), ("Mg", "O"), ("Li", "F"), ("Ca", "S"), ("Fe", "O"))
    drawn = []
    for place in range(number):
        lattice = Lattice((2.8 * torch.eye(3) + 0.3 * torch.rand(3, 3)).tolist())
        places = torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]]) + 0.05 * torch.rand(2, 3)
        drawn.append(converter(Structure(lattice, pairs[place % len(pairs)], places.tolist())))
    return (drawn,)


def crystal_networks() -> list[Published]:
    """List the networks of crystals."""
    return [Published(f"CHGNet/{v}", "chgnet", partial(chgnet, v), crystals) for v in VERSIONS]
