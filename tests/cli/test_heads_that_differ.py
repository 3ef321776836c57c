"""Models whose heads differ: found by themselves or named, kept apart, and told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sinkhorn_rebasin.matching import Alignment
from tests.cli.conftest import INPUTS, Disk, model, states
from tests.cli.networks import Small, batches, inputs
from tests.cli.test_bad_input import refused
from tests.matcher_contract import equal

DATA = "tests.cli.networks:batches"
HIDDEN = ("first.weight", "first.bias", "norm.running_mean", "second.weight", "second.bias")


@pytest.fixture
def five(disk: Disk) -> str:
    """The planted target of ``disk`` under a head of five classes."""
    torch.manual_seed(7)
    state = Small(classes=5).state_dict()
    state |= {name: tensor for name, tensor in states()[1].items() if not name.startswith("last.")}
    save_file(state, disk.folder / "five.safetensors")
    return model(disk.folder / "five.safetensors", "five_classes")


def network(file: Path, classes: int) -> Small:
    net = Small(classes=classes)
    net.load_state_dict(load_file(file))
    return net.eval()


def test_align_finds_them_and_the_target_keeps_its_function(disk: Disk, five: str) -> None:
    file, out = disk.folder / "b_to_a.safetensors", disk.folder / "aligned"
    code, said, err = disk.run("align", disk.reference, five, "--out", file, *INPUTS)
    assert code == 0, err
    assert "kept apart: last.bias, last.weight; each network keeps its own" in said
    assert Alignment.load(file).spec.ignored == {"last.weight", "last.bias"}
    assert disk.run("apply", file, five, "--out", out)[0] == 0
    assert "layers that each network keeps | last.bias, last.weight" in (out / "README.md").read_text()
    moved, before = network(out / "model.safetensors", 5), network(disk.folder / "five.safetensors", 5)
    torch.testing.assert_close(moved(inputs()), before(inputs()))
    assert all(torch.equal(moved.state_dict()[name], states()[0][name]) for name in HIDDEN)
    code, said, err = disk.run("verify", file, disk.reference, five, *INPUTS)
    assert code == 0, err
    assert "distance to A after     0\n" in said
    assert "kept apart: last.bias, last.weight" in said


@pytest.mark.parametrize("options", [[], ["--data", DATA], ["--repair", DATA], ["--alignment"]])
def test_a_merge_has_the_head_of_the_first(disk: Disk, five: str, options: list[str]) -> None:
    file, out = disk.folder / "b_to_a.safetensors", disk.folder / "merged"
    if options == ["--alignment"]:
        assert disk.run("align", disk.reference, five, "--out", file, *INPUTS)[0] == 0
        options = ["--alignment", str(file)]
    code, said, err = disk.run("merge", disk.reference, five, "--at", "0.3", "--out", out, *INPUTS, *options)
    assert code == 0, err
    assert "kept apart: last.bias, last.weight" in said
    assert "| not mixed | last.bias, last.weight: those of a.safetensors |" in (out / "README.md").read_text()
    merged = network(out / "model.safetensors", 3).state_dict()
    assert torch.equal(merged["last.weight"], states()[0]["last.weight"])
    if "--repair" not in options:  # which gives units other scales
        torch.testing.assert_close(merged["second.weight"], states()[0]["second.weight"])


def test_a_path_is_measured_with_the_head_of_the_first(disk: Disk, five: str) -> None:
    out = disk.folder / "path"
    code, said, err = disk.run("path", disk.reference, five, "--data", DATA, "--points", "3", "--out", out)
    assert code == 0, err
    assert "kept apart" in said
    paths, net = json.loads((out / "path.json").read_text()), network(disk.folder / "a.safetensors", 3)
    expected = torch.stack([torch.nn.functional.cross_entropy(net(x), y) for x, y in batches()]).mean().item()
    assert paths["aligned"]["losses"] == pytest.approx([expected] * 3, rel=1e-5)
    assert paths["as they are"]["losses"][0] != pytest.approx(expected, rel=1e-4)


def test_diagnose_tells_that_a_head_blocks_nothing(disk: Disk, five: str) -> None:
    code, said, err = disk.run("diagnose", disk.reference, five, *INPUTS)
    assert code == 0, err
    said = " ".join(said.split())
    assert "kept apart last.bias, last.weight; each network keeps its own" in said
    assert "after weight matching 0 (cosine 1.000)" in said


def test_named_layers_are_kept_apart_though_they_have_one_shape(disk: Disk) -> None:
    state = {name: tensor.clone() for name, tensor in states()[1].items()}
    state["last.weight"] *= 1e6  # it would decide alone
    save_file(state, disk.folder / "b.safetensors")
    file, target = disk.folder / "b_to_a.safetensors", model(disk.folder / "b.safetensors")
    code, said, err = disk.run("align", disk.reference, target, "--ignore", "last", "--out", file, *INPUTS)
    assert code == 0, err
    assert "kept apart: last.bias, last.weight" in said
    found = Alignment.load(file)
    assert found.receipt is not None
    assert found.receipt.settings["ignore"] == ["last"]
    assert all(torch.equal(found.apply(state)[name], states()[0][name]) for name in HIDDEN)
    _, said, _ = disk.run("inspect", disk.reference, "--ignore", "last", *INPUTS)
    assert "ignored, each network keeps its own: last.{weight,bias}" in said


def test_three_models_are_merged_under_the_head_of_the_first(disk: Disk, five: str) -> None:
    out = disk.folder / "merged"
    code, said, err = disk.run("merge", disk.reference, five, disk.target, "--out", out, *INPUTS)
    assert code == 0, err
    assert "kept apart: last.bias, last.weight" in said
    merged = network(out / "model.safetensors", 3).state_dict()
    for name in (*HIDDEN, "last.weight"):
        torch.testing.assert_close(merged[name], states()[0][name])


@pytest.mark.parametrize("options", [[], ["--repair", DATA], ["--alignment"]])
def test_two_models_are_merged_once_with_each_head(disk: Disk, five: str, options: list[str]) -> None:
    file, out = disk.folder / "b_to_a.safetensors", disk.folder / "merged"
    if options == ["--alignment"]:
        assert disk.run("align", disk.reference, five, "--out", file, *INPUTS)[0] == 0
        options = ["--alignment", str(file)]
    arguments = ["merge", disk.reference, five, *INPUTS, *options]
    code, _, err = disk.run(*arguments, "--heads", "each", "--out", out)
    assert code == 0, err
    assert disk.run(*arguments, "--out", disk.folder / "plain")[0] == 0
    first, second = network(out / "0" / "model.safetensors", 3), network(out / "1" / "model.safetensors", 5)
    assert equal(first.state_dict(), network(disk.folder / "plain" / "model.safetensors", 3).state_dict())
    trunk = {name for name in first.state_dict() if not name.startswith("last.")}
    assert all(torch.equal(first.state_dict()[name], second.state_dict()[name]) for name in trunk)
    if "--repair" not in options:  # The two are one trunk, in whose order the second's head reads its units.
        torch.testing.assert_close(second(inputs()), network(disk.folder / "five.safetensors", 5)(inputs()))
    assert "last.bias, last.weight: those of five.safetensors |" in (out / "1" / "README.md").read_text()


@pytest.mark.parametrize("options", [[], ["--repair", DATA]])
def test_three_models_are_merged_once_with_each_head(disk: Disk, five: str, options: list[str]) -> None:
    out, arguments = disk.folder / "merged", ["merge", disk.reference, five, disk.target, *INPUTS, *options]
    code, _, err = disk.run(*arguments, "--heads", "each", "--out", out)
    assert code == 0, err
    assert sorted(path.name for path in out.iterdir()) == ["0", "1", "2"]
    assert disk.run(*arguments, "--out", disk.folder / "plain")[0] == 0
    nets = [network(out / str(number) / "model.safetensors", (3, 5, 3)[number]) for number in range(3)]
    plain = network(disk.folder / "plain" / "model.safetensors", 3).state_dict()
    assert equal(nets[0].state_dict(), plain)
    for net in nets[1:]:
        assert all(torch.equal(net.state_dict()[name], plain[name]) for name in HIDDEN)
    if not options:
        torch.testing.assert_close(nets[1](inputs()), network(disk.folder / "five.safetensors", 5)(inputs()))


def test_each_head_is_refused_where_all_is_mixed(disk: Disk) -> None:
    third = model(disk.folder / "a.safetensors")
    for models in ([disk.reference, disk.target], [disk.reference, disk.target, third]):
        out = disk.folder / "out"
        said = refused(disk, 2, "merge", *models, "--heads", "each", "--out", out, *INPUTS)
        assert "layers that each model keeps for --heads each but all are mixed" in said
        assert not out.exists()


def test_names_that_are_none_and_contradictions_are_told(disk: Disk, five: str) -> None:
    out = disk.folder / "out"
    said = refused(disk, 2, "merge", disk.reference, five, "--out", out, "--ignore", "lasst", *INPUTS)
    assert "no tensor matches 'lasst'; did you mean 'last'?" in said
    both = ["--alignment", disk.align(), "--ignore", "last", "--out", out]
    assert "the file says what it ignores" in refused(disk, 2, "merge", disk.reference, five, *both)
    said = refused(disk, 2, "merge", disk.reference, five, *both[:2], "--out", out)
    assert "'last.weight' to have one shape in both networks but got (3, 6) and (5, 6)" in said
