"""Networks with published weights: their list, one network's figures, the picture; the packages may be absent."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from experiments.real_networks.absent import stand_in_for
from experiments.real_networks.environment import REQUIREMENTS
from experiments.real_networks.measurement import figures_of
from experiments.real_networks.molecules import atoms
from experiments.real_networks.networks import NETWORKS
from experiments.real_networks.picture import draw
from experiments.real_networks.spliceai import SpliceAI, bases
from experiments.zoo.packages_models.network import Network
from sinkhorn_rebasin import discover_symmetry


@dataclass
class Sample:
    x: Tensor


class Reads(nn.Module):
    """Reads its input from an object, in the type of its own weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, sample: Sample) -> Tensor:
        """Two numbers of a sample."""
        outputs: Tensor = self.second(self.first(sample.x).relu())
        return outputs


def absent() -> nn.Module:
    raise ImportError("No module named 'absent'")


def sample(number: int) -> tuple[Sample]:
    return (Sample(torch.randn(number, 3)),)


def test_every_distribution_is_pinned_and_every_network_has_a_name_of_its_own() -> None:
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    assert {n.distribution.lower().replace("_", "-") for n in NETWORKS.values()} <= pinned
    assert len(NETWORKS) == 2 + 1 + 5 + 10 + 1 + 3


def test_figures_of_a_network_that_reads_an_object() -> None:
    row = figures_of(Network("reads", "torch", Reads, sample))
    assert row["sound"]
    assert row["groups"] == 1
    assert row["covered of what could move"] == 1.0
    assert row["change on fresh inputs"] < 1e-12 < 1e-3 < row["change of a wrong one"]
    assert row["precision"] == "float64"


def test_a_network_that_cannot_be_had_says_why() -> None:
    assert "absent" in figures_of(Network("absent", "torch", absent, sample))["skipped"]
    assert "error" in figures_of(Network("other", "torch", Reads, lambda number: (torch.ones(number),)))


def test_a_module_that_is_not_there_can_be_imported_for_a_while() -> None:
    with stand_in_for("reader_that_is_not_there"):
        module = importlib.import_module("reader_that_is_not_there")
    assert module.anything is None
    assert not hasattr(module, "__wrapped__")
    assert "reader_that_is_not_there" not in sys.modules


def test_the_picture_has_a_bar_a_network(tmp_path: Path) -> None:
    rows = [
        {"network": "a", "covered": 0.5, "seconds": 1.0, "sound": True},
        {"network": "b", "skipped": "no"},
    ]
    draw(rows, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 1000


def test_a_small_spliceai_moves_its_channels() -> None:
    torch.manual_seed(0)
    spec = discover_symmetry(SpliceAI(context=0, channels=3).eval(), bases(1, 20))
    assert {group.size for group in spec.groups} == {3}
    assert len(spec.groups) == 18


def test_every_molecule_has_every_element() -> None:
    ((kinds, places),) = atoms(2)
    assert kinds.shape == places.shape[:2]
    assert all(set(row) == {0, 1, 2, 3} for row in kinds.tolist())


@pytest.mark.skipif(importlib.util.find_spec("torchcrepe") is None, reason="torchcrepe is not installed")
def test_torchcrepe_is_covered() -> None:
    row = figures_of(NETWORKS["torchcrepe/tiny"])
    assert row["sound"]
    assert row["covered of what could move"] == 1.0
