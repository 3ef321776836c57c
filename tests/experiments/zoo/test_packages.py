"""The family of other people's packages: its list, its processes, its rows; none of the packages is needed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from experiments.reporting.receipts import read_receipt
from experiments.zoo import __main__ as zoo
from experiments.zoo import packages_family
from experiments.zoo.packages_environment import REQUIREMENTS, commands
from experiments.zoo.packages_family import Runner
from experiments.zoo.packages_models import FIELDS, NETWORKS
from experiments.zoo.packages_models.network import Field, Method, Network, Part
from experiments.zoo.packages_worker import main as work
from experiments.zoo.packages_worker import row_of

STUB = "tests.experiments.zoo.packages_stub"


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def absent() -> nn.Module:
    raise ImportError("No module named 'absent'")


def noise(batch: int) -> torch.Tensor:
    return torch.randn(batch, 3)


def stub(kind: str) -> Network:
    return Network(f"torch/{kind}", "torch", mlp, noise)


def runner(folder: Path, seconds: float = 60.0) -> Runner:
    return Runner(Path(sys.executable), folder, seconds, STUB)


def test_there_are_many_networks_of_many_packages() -> None:
    assert len(NETWORKS) == sum(len(field) for field in FIELDS)
    assert len(NETWORKS) >= 80
    assert len({network.distribution for network in NETWORKS.values()}) >= 30


def test_every_package_is_pinned() -> None:
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    asked = {network.distribution.lower().replace("_", "-") for network in NETWORKS.values()}
    assert asked <= pinned


def test_inputs_have_the_batch_size_asked_for() -> None:
    for network in NETWORKS.values():
        tensors = [
            t for t in torch.utils._pytree.tree_leaves(network.inputs(5)) if isinstance(t, torch.Tensor)
        ]
        assert tensors
        assert any(len(tensor) % 5 == 0 for tensor in tensors), network.name


def test_a_field_lists_its_factories() -> None:
    field = Field()
    assert field.network("torch", noise)(mlp) is mlp
    assert field == [Network("torch/mlp", "torch", mlp, noise)]


def test_a_part_and_a_method_are_functions_to_tensors() -> None:
    class Several(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, -x

        def twice(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

    x = noise(2)
    assert torch.equal(Part(Several(), 1)(x), -x)
    assert torch.equal(Method(Several(), "twice")(x), 2 * x)


def test_a_network_is_measured_with_statistics_of_its_own() -> None:
    row = row_of(stub("mlp"))
    assert row["sound"]
    assert row["version"] == torch.__version__
    assert row["groups"] == 1
    assert row["change of another network"] < 1e-12


def test_a_package_that_does_not_import_is_skipped_with_the_reason() -> None:
    missing = row_of(Network("torch/absent", "torch", absent, noise))
    assert missing["skipped"] == "ImportError: No module named 'absent'"
    assert "No package metadata" in row_of(Network("none/mlp", "no-such-distribution", mlp, noise))["skipped"]


def test_the_worker_writes_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "torch/mlp", stub("mlp"))
    monkeypatch.setattr("experiments.zoo.packages_worker.import_models", lambda: None)
    threads = torch.get_num_threads()
    work("torch/mlp", str(tmp_path / "row.json"))
    torch.set_num_threads(threads)
    assert json.loads((tmp_path / "row.json").read_text(encoding="utf-8"))["sound"]


def test_rows_are_kept_until_something_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = runner(tmp_path).row(stub("right"))
    assert runner(tmp_path).row(stub("right")) == first
    assert [file.name for file in tmp_path.iterdir()] == ["torch-right.json"]
    monkeypatch.setattr(packages_family, "sources", lambda: "others")
    assert runner(tmp_path).row(stub("right"))["process"] != first["process"]


@pytest.mark.parametrize(
    ("kind", "error"), [("raises", "ValueError: a message of its own"), ("crashes", "ended with -6")]
)
def test_a_process_that_fails_is_a_row_too(tmp_path: Path, kind: str, error: str) -> None:
    row = runner(tmp_path).row(stub(kind))
    assert not row["sound"]
    assert error in row["error"]


def test_a_network_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    assert runner(tmp_path, 0.5).row(stub("hangs"))["error"] == "took more than 0.5 s"


def test_the_command_leaves_tables_picture_and_receipt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        row_of(stub("mlp")),
        {"network": "torch/hangs", "sound": False, "error": "took more than 1 s"},
        {"network": "none/absent", "skipped": "ImportError: none"},
    ]
    networks = {row["network"]: Network(row["network"], "torch", mlp, noise) for row in rows}
    monkeypatch.setattr(packages_family, "NETWORKS", networks)
    monkeypatch.setattr(Runner, "row", lambda self, n: next(row for row in rows if row["network"] == n.name))
    zoo.main(["--families", "packages", "--out", str(tmp_path), "--rows", str(tmp_path)])
    assert "took more than 1 s" in capsys.readouterr().out
    metrics = read_receipt(tmp_path / "packages")["metrics"]
    assert metrics["readme"][0]["sound"] == "1 of 2"
    assert metrics["skipped"] == [{"network": "none/absent", "reason": "ImportError: none"}]
    assert [(row["package"], row["networks"], row["sound"]) for row in metrics["packages"]] == [
        ("torch", 2, 1)
    ]
    assert (tmp_path / "packages" / "zoo.png").stat().st_size > 5000


def test_the_environment_takes_this_torch_and_pinned_packages() -> None:
    first, second = commands(Path("python"))
    assert "torch==2.13.0" in first
    assert second[-3:] == ["--no-deps", "--requirement", str(REQUIREMENTS)]
