"""All networks of the experiment by name."""

from __future__ import annotations

from experiments.real_networks.crystals import crystal_networks
from experiments.real_networks.molecules import molecule_networks
from experiments.real_networks.sound import sound_networks
from experiments.real_networks.spliceai import strand_networks

NETWORKS = {
    network.name: network
    for network in (*sound_networks(), *strand_networks(), *molecule_networks(), *crystal_networks())
}
