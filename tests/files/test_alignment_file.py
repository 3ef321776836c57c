"""Alignments as files: exact, bound to their networks, and refused when they are damaged."""

from __future__ import annotations

import errno
import json
import os
import struct
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sinkhorn_rebasin import __version__
from sinkhorn_rebasin.errors import ArchitectureError, CheckpointError
from sinkhorn_rebasin.files import atomic
from sinkhorn_rebasin.files.alignment_file import read_alignment, write_alignment
from sinkhorn_rebasin.files.receipt import Receipt
from sinkhorn_rebasin.matching import Alignment, weight_matching
from sinkhorn_rebasin.permutations import random_maps, random_permutations
from sinkhorn_rebasin.symmetry import discover_rescaling, discover_symmetry
from tests.symmetry.continuous.networks import symmetries_of_vit, vit_with_unit_gains


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(3, 8), nn.Tanh(), nn.BatchNorm1d(8), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 2)
    )


def matched() -> Alignment:
    """An alignment with signs, found by a method, with a receipt."""
    reference, target, inputs = network(0), network(1), torch.randn(4, 3)
    spec = discover_symmetry(reference, inputs)
    rescaling = discover_rescaling(reference, spec, inputs)
    alignment = weight_matching(reference, target, spec, rescaling=rescaling)
    receipt = Receipt.of(
        reference.state_dict(),
        target.state_dict(),
        settings={"restarts": 2},
        seed=7,
        verified_error=1e-15,
    )
    return replace(alignment, receipt=receipt)


def turned() -> Alignment:
    """An alignment with maps of every kind."""
    spec, continuous, _ = symmetries_of_vit()
    return Alignment(random_permutations(spec), spec, maps=random_maps(continuous), continuous=continuous)


def same(one: object, other: object) -> bool:
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[name], other[name]) for name in one)
    return one == other


@pytest.mark.parametrize("make", [matched, turned], ids=["signs", "maps"])
def test_every_field_comes_back_bit_for_bit(tmp_path: Path, make: object) -> None:
    alignment = make()
    alignment.save(tmp_path / "b_to_a.safetensors")
    loaded = Alignment.load(tmp_path / "b_to_a.safetensors")
    for each in fields(Alignment):
        assert same(getattr(loaded, each.name), getattr(alignment, each.name)), each.name
    assert loaded.signs or loaded.maps
    target = network(1) if make is matched else vit_with_unit_gains()
    assert same(loaded.apply(target), alignment.apply(target))
    assert [file.name for file in tmp_path.iterdir()] == ["b_to_a.safetensors"]


def test_tensors_of_any_kind_fit(tmp_path: Path) -> None:
    alignment = matched()
    given = {each.name: getattr(alignment, each.name) for each in fields(Alignment)}
    given["log_scales"] = {"0": torch.randn(2, 8).double(), "a/b": torch.randn(3).bfloat16()}
    write_alignment(tmp_path / "a.safetensors", given)
    assert same(read_alignment(tmp_path / "a.safetensors")["log_scales"], given["log_scales"])
    with pytest.raises(CheckpointError, match="but got 'notes'"):
        write_alignment(tmp_path / "b.safetensors", {**given, "notes": 3})
    assert not (tmp_path / "b.safetensors").exists()


def test_the_header_says_how_it_was_found_and_no_weight_is_in_it(tmp_path: Path) -> None:
    matched().save(tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", framework="pt") as opened:
        header = opened.metadata()
        kinds = {name: opened.get_tensor(name).dtype for name in opened.keys()}  # noqa: SIM118
    values = json.loads(header["values"])
    assert header["format"] == "rebasin-alignment/1"
    assert values["method"] == "weight_matching"
    receipt = values["receipt"]
    assert (receipt["settings"], receipt["seed"], receipt["package"]) == ({"restarts": 2}, 7, __version__)
    assert receipt["target"]["0.weight"][:2] == ["float32", [8, 3]]
    assert {name.split("/")[0] for name in kinds} == {"permutations", "signs"}
    assert {kinds[name] for name in kinds if name.startswith("permutations")} == {torch.int32}


def test_another_network_is_refused_by_the_first_difference(tmp_path: Path) -> None:
    matched().save(tmp_path / "a.safetensors")
    loaded = Alignment.load(tmp_path / "a.safetensors")
    other = network(1)
    with torch.no_grad():
        other[3].bias[0] += 1
    with pytest.raises(ArchitectureError, match=r"first tensor with other values is '3\.bias'"):
        loaded.apply(other)
    with pytest.raises(ArchitectureError, match=r"'0\.weight' is float32 \(8, 3\).* is float64"):
        loaded.apply(network(1).double())
    wide = nn.Sequential(nn.Linear(4, 8), *list(network(1))[1:])
    with pytest.raises(ArchitectureError, match=r"'0\.weight' is float32 \(8, 3\).* \(8, 4\)"):
        loaded.apply(wide)
    assert same(replace(loaded, receipt=None).apply(other)["3.weight"], loaded.apply(network(1))["3.weight"])
    with pytest.raises(ArchitectureError, match="Expected the reference of this alignment"):
        loaded.receipt.check_reference(network(1).state_dict())
    loaded.receipt.check_reference(network(0).state_dict())


@pytest.mark.parametrize("length", [0, 5, 100, -1])
def test_a_file_cut_short_is_refused(tmp_path: Path, length: int) -> None:
    file = tmp_path / "a.safetensors"
    matched().save(file)
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(
        CheckpointError, match=r"Expected an alignment in .*a\.safetensors but .*cut short"
    ) as caught:
        Alignment.load(file)
    assert "\n" not in str(caught.value)


def test_any_edit_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    matched().save(file)
    whole = file.read_bytes()
    start = 8 + struct.unpack("<Q", whole[:8])[0]
    places = [start, len(whole) - 1, whole.index(b"weight_matching"), whole.index(b"0.weight")]
    for place in places:
        edited = bytearray(whole)
        edited[place] ^= 1
        file.write_bytes(edited)
        with pytest.raises(CheckpointError, match="checksum does not fit its content"):
            Alignment.load(file)


def test_other_files_are_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(2)}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"w\.safetensors but its format is None"):
        Alignment.load(tmp_path / "w.safetensors")
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="no file of safetensors"):
        Alignment.load(tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="no such file"):
        Alignment.load(tmp_path / "nowhere.safetensors")


def test_permutations_that_are_none_are_refused_although_the_checksum_fits(tmp_path: Path) -> None:
    alignment = matched()
    broken = replace(
        alignment, permutations={**alignment.permutations, "0": torch.zeros(8, dtype=torch.long)}
    )
    broken.save(tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"group '0' to be a permutation of 0\.\.7"):
        Alignment.load(tmp_path / "a.safetensors")


def test_a_full_disk_leaves_the_file_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.safetensors"
    matched().save(file)
    before = file.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic, "put_on_disk", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        turned().save(file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]
