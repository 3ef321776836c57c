"""The command that aligns transformers runs, and leaves what it says it leaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from experiments import transformer_connectivity
from experiments.data import ImageData, load_digits, load_source_text
from experiments.data.source_text import VOCABULARY
from experiments.models import Architecture
from experiments.receipts import read_receipt

VISION = {"size": 8, "patch": 2, "width": 16, "depth": 1, "heads": 2, "channels": 1}
LANGUAGE = {"vocabulary": VOCABULARY, "context": 16, "width": 16, "depth": 1, "heads": 2}


@pytest.fixture(autouse=True)
def threads():  # type: ignore[no-untyped-def]
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def _short_text() -> ImageData:
    return load_source_text(16, ["copy"], ["glob"])


@pytest.mark.parametrize(
    ("name", "architecture", "load"),
    [
        ("vit", Architecture("vit", (1, 1, 8, 8), VISION), lambda _: load_digits()),
        ("gpt", Architecture("gpt", (1, 16), LANGUAGE), _short_text),
    ],
)
def test_table_pictures_networks_and_receipt(
    name: str,
    architecture: Architecture,
    load: Callable[..., ImageData],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small = transformer_connectivity.Experiment(
        "tiny", architecture, 6, 3e-3, 32, transformer_connectivity.ALIGNMENT
    )
    monkeypatch.setitem(transformer_connectivity.EXPERIMENTS, name, small)
    monkeypatch.setattr(
        transformer_connectivity, "load_cifar10" if name == "vit" else "load_source_text", load
    )
    transformer_connectivity.main(
        ["--networks", name, "--seeds", "2", "--steps", "100", "--out", str(tmp_path)]
    )
    assert "weight matching" in capsys.readouterr().out
    receipt = read_receipt(tmp_path)
    rows = {row["method"]: row for row in receipt["metrics"]["rows"]}
    assert list(rows) == list(transformer_connectivity.METHODS)
    assert all(row["relative_change"] < 1e-4 for row in rows.values())
    assert rows["ours"]["train_barrier"] < rows["naive"]["train_barrier"]
    assert rows["ours"]["train_barrier"] < rows["weight matching"]["train_barrier"]
    assert 0.2 < rows["ours"]["endpoint_accuracy"] <= 1
    assert {"network", "method", "test barrier"} <= set(receipt["metrics"]["readme"][0])
    assert (tmp_path / "barriers.png").stat().st_size > 5000
    assert len(list(tmp_path.glob("paths-*.png"))) == 1
    files = list((tmp_path / "networks").glob("*.safetensors"))
    assert len(files) == 2 * len(rows)
    for file in files:
        architecture.build().load_state_dict(load_file(file))


def test_one_network_makes_no_pair() -> None:
    with pytest.raises(SystemExit):
        transformer_connectivity.parse(["--seeds", "1"])
