from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sinkhorn_rebasin.errors import ArchitectureError, CheckpointError
from sinkhorn_rebasin.files.shards import INDEX, Shards, rewrite

TENSORS = {
    "a": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).bfloat16(),
    "b": torch.arange(5),
    "c": torch.tensor(True),
    "d": torch.zeros(0, 2),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint of two shards and an index."""
    made = tmp_path / "made"
    made.mkdir()
    files = {"one.safetensors": ("b", "a"), "two.safetensors": ("c", "d")}
    for file, names in files.items():
        save_file({name: TENSORS[name] for name in names}, made / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, names in files.items() for name in names}}
    (made / INDEX).write_text(json.dumps(index))
    return made


def test_a_checkpoint_rewritten_as_it_is_is_the_same_byte_for_byte(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    rewrite(Shards(folder), copy, lambda _, tensor: tensor)
    assert {file.name: file.read_bytes() for file in copy.iterdir()} == {
        file.name: file.read_bytes() for file in folder.iterdir()
    }


def test_other_values_are_written_under_their_names(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    rewrite(Shards(folder), copy, lambda name, tensor: tensor.flip(0) if name == "a" else tensor)
    assert torch.equal(load_file(copy / "one.safetensors")["a"], TENSORS["a"].flip(0))
    assert torch.equal(load_file(copy / "one.safetensors")["b"], TENSORS["b"])
    with pytest.raises(ArchitectureError, match=r"'b' to stay torch\.int64"):
        rewrite(Shards(folder), copy, lambda _, tensor: tensor.float())


def test_damage_is_told_by_the_file(folder: Path) -> None:
    assert set(Shards(folder)) == set(TENSORS)
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["a"] = "two.safetensors"
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"'a' in .*two\.safetensors"):
        Shards(folder)
    (folder / "two.safetensors").write_bytes((folder / "two.safetensors").read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"two\.safetensors but it was cut short"):
        Shards(folder)
    (folder / "two.safetensors").unlink()
    with pytest.raises(CheckpointError, match="a shard is missing"):
        Shards(folder)
    (folder / INDEX).write_text("{")
    with pytest.raises(CheckpointError, match="it is damaged"):
        Shards(folder)
