"""Models of timm and torchvision by their names; the libraries are played by a stand-in with their interface."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.cli.conftest import Disk
from tests.cli.test_bad_input import refused


class Images(nn.Module):
    """A small network of images with any number of classes."""

    default_cfg = {"input_size": (3, 6, 6)}

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 5, 3)
        self.norm = nn.BatchNorm2d(5)
        self.head = nn.Linear(5, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.stem(x)).relu().mean((2, 3)))


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    def create(name: str, num_classes: int = 1000) -> nn.Module:
        return {"tiny": Images}[name](num_classes)

    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=create))
    models: Any = SimpleNamespace(get_model=create)
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(models=models))


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_named_networks_are_merged_with_as_many_classes_as_their_weights(disk: Disk, library: str) -> None:
    nets = [Images(4), Images(4)]
    names = []
    for index, net in enumerate(nets):
        save_file(
            net.state_dict(), disk.folder / f"{index}.safetensors"
        )  # its names are sorted: the head is first
        names.append(f"{library}:tiny:{disk.folder / f'{index}.safetensors'}")
    out = disk.folder / "out"
    code, _, err = disk.run("merge", *names, "--out", out, "--at", "1")
    assert code == 0, err
    written = load_file(out / "model.safetensors")
    assert all(torch.equal(written[name], tensor) for name, tensor in nets[0].state_dict().items())
    card = (out / "README.md").read_text()
    assert f"library_name: {library}" in card
    assert "('tiny', num_classes=4)" in card


def test_unknown_names_and_missing_weights_are_told(disk: Disk) -> None:
    torch.save(Images(4).state_dict(), disk.folder / "0.pt")
    assert "to name a model but KeyError" in refused(disk, 2, "inspect", f"timm:huge:{disk.folder / '0.pt'}")
    assert "timm:NAME:FILE, with a file of weights" in refused(disk, 2, "inspect", "timm:tiny")
    torch.save({"stem.weight": torch.zeros(5, 3, 3, 3)}, disk.folder / "0.pt")
    assert "'stem.bias'" in refused(disk, 2, "inspect", f"timm:tiny:{disk.folder / '0.pt'}")
