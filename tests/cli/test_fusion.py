from __future__ import annotations

import torch
from safetensors.torch import load_file, save_file

import sinkhorn_rebasin as sr
from tests.cli.conftest import INPUTS, Disk, model, states
from tests.cli.networks import Small, batches

DATA = "tests.cli.networks:batches"


def loaded(state: dict[str, torch.Tensor]) -> Small:
    net = Small()
    net.load_state_dict(state)
    return net.eval()


def test_two_models_are_fused_and_the_card_says_how(disk: Disk) -> None:
    torch.manual_seed(5)
    other = Small().state_dict()
    save_file(other, disk.folder / "c.safetensors")
    out, third = disk.folder / "out", model(disk.folder / "c.safetensors")
    options = ["--fusion", "regmean", "--fusion-data", DATA, "--at", "0.3", "--out", out]
    code, told, err = disk.run("merge", disk.reference, third, *options, *INPUTS)
    assert code == 0, err
    assert "regmean of 2 networks" in told
    nets = [loaded(states()[0]), loaded(other)]
    spec = sr.discover_symmetry(nets[0], batches()[0][0])
    alignment = sr.weight_matching(*nets, spec)
    stays = sr.Alignment(sr.identity_permutations(spec), spec)
    expected = sr.regmean(nets, [stays, alignment], [batches()] * 2, [0.3, 0.7])
    written = load_file(out / "model.safetensors")
    for name in ("first.weight", "second.weight", "last.weight", "second.bias"):
        torch.testing.assert_close(written[name], expected[name], rtol=1e-4, atol=1e-5)
    card = (out / "README.md").read_text()
    assert "| fused by | regmean |" in card
    assert "first.weight, second.weight, last.weight" in card


def test_three_models_are_fused_on_data_of_their_own(disk: Disk) -> None:
    save_file(states()[0], disk.folder / "c.safetensors")
    out, third = disk.folder / "out", model(disk.folder / "c.safetensors")
    models = [disk.reference, disk.target, third]
    options = ["--fusion", "fisher", "--fusion-data", DATA, DATA, DATA, "--out", out]
    code, _, err = disk.run("merge", *models, *options, *INPUTS)
    assert code == 0, err
    for name, tensor in load_file(out / "model.safetensors").items():
        torch.testing.assert_close(tensor, states()[0][name], rtol=1e-4, atol=1e-5)
    assert "| fused by | fisher |" in (out / "README.md").read_text()


def test_a_fusion_without_its_data_is_refused(disk: Disk) -> None:
    models = [disk.reference, disk.target, "--out", disk.folder / "out", *INPUTS]
    code, _, err = disk.run("merge", *models, "--fusion", "regmean")
    assert code == 2
    assert "data for --fusion regmean but got none" in err
    code, _, err = disk.run("merge", *models, "--fusion", "regmean", "--fusion-data", DATA, DATA, DATA)
    assert code == 2
    assert "one a model, 2, but got 3" in err
    assert not (disk.folder / "out").exists()
