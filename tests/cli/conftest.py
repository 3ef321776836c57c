"""Two small networks on disk, the second a planted copy of the first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sinkhorn_rebasin.cli.main import main
from sinkhorn_rebasin.permutations import permute_state, random_permutations
from sinkhorn_rebasin.symmetry import discover_symmetry
from tests.cli.networks import Small, inputs

INPUTS = ["--inputs", "tests.cli.networks:inputs"]


@dataclass
class Disk:
    """Where the two models lie, and the command run on them."""

    folder: Path
    reference: str
    target: str
    run: Callable[..., tuple[int, str, str]]

    def align(self) -> str:
        """Write an alignment of the two."""
        file = str(self.folder / "b_to_a.safetensors")
        code, _, err = self.run("align", self.reference, self.target, "--out", file, *INPUTS)
        assert code == 0, err
        return file


def model(file: Path, function: str = "small") -> str:
    return f"tests.cli.networks:{function}:{file}"


def states() -> tuple[dict, dict]:
    """A state and a permuted copy of it."""
    torch.manual_seed(0)
    net = Small()
    net.norm.running_mean.normal_()
    net.norm.running_var.uniform_(0.5, 2)
    spec = discover_symmetry(net, inputs())
    planted = random_permutations(spec, generator=torch.Generator().manual_seed(1))
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    return state, {name: tensor.clone() for name, tensor in permute_state(state, spec, planted).items()}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def disk(tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> Disk:
    first, second = states()
    save_file(first, tmp_path / "a.safetensors")
    torch.save(
        {"state_dict": {f"module.{name}": tensor for name, tensor in second.items()}}, tmp_path / "b.pt"
    )
    return Disk(tmp_path, model(tmp_path / "a.safetensors"), model(tmp_path / "b.pt"), run)
