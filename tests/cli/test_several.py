from __future__ import annotations

import json

import torch
from safetensors.torch import load_file, save_file

import sinkhorn_rebasin as sr
from tests.cli.conftest import INPUTS, Disk, model, states
from tests.cli.networks import Small, batches

DATA = "tests.cli.networks:batches"


def test_three_networks_are_merged_into_their_mean(disk: Disk) -> None:
    save_file(states()[0], disk.folder / "c.safetensors")
    out = disk.folder / "out"
    third = model(disk.folder / "c.safetensors")
    code, _, err = disk.run("merge", disk.reference, disk.target, third, "--out", out, *INPUTS)
    assert code == 0, err
    written = load_file(out / "model.safetensors")
    for name, tensor in states()[0].items():
        torch.testing.assert_close(written[name], tensor)
    card = (out / "README.md").read_text()
    assert card.count("tests.cli.networks:small") >= 3
    assert "each to the mean of the others" in card
    settings = disk.folder / "settings.yaml"
    settings.write_text(f"more: [{json.dumps(third)}]\n")
    options = ["--config", settings, "--out", disk.folder / "again", *INPUTS]
    code, _, err = disk.run("merge", disk.reference, disk.target, *options)
    assert code == 0, err
    assert (disk.folder / "again" / "README.md").read_text() == card
    code, _, err = disk.run(
        "merge", disk.reference, disk.target, third, "--at", "0.3", "--out", out, "--force", *INPUTS
    )
    assert code == 2
    assert "--at with two models alone" in err


def test_three_networks_are_learned_together_and_repaired(disk: Disk) -> None:
    save_file(states()[0], disk.folder / "c.safetensors")
    third, out, recipe = (
        model(disk.folder / "c.safetensors"),
        disk.folder / "out",
        disk.folder / "recipe.yaml",
    )
    recipe.write_text("base: many\nsteps: 3\nclosing_steps: 2\n")
    models, data = [disk.reference, disk.target, third], ["--train", DATA, "--repair", DATA]
    code, said, err = disk.run("merge", *models, *data, "--recipe", recipe, "--out", out)
    assert code == 0, err
    assert "start: merge_many (loss of the mean on held-out data: merge_many " in said
    assert "so it is kept" in said or " at the start, " in said
    card = (out / "README.md").read_text()
    assert "learning permutations and scales together" in card
    assert "restored (REPAIR)" in card
    x, labels = (torch.cat(part) for part in zip(*batches(), strict=True))
    merged, first = Small(), Small()
    merged.load_state_dict(load_file(out / "model.safetensors"))
    first.load_state_dict(states()[0])
    # The three are one network, and a few steps of learning keep it good.
    losses = [
        float(torch.nn.functional.cross_entropy(net.eval()(x), labels).detach()) for net in (merged, first)
    ]
    assert losses[0] < losses[1] + 0.05
    code, _, err = disk.run("merge", *models, *data, "--seconds", "5", "--out", disk.folder / "more")
    assert code == 2
    assert "--seconds without --train for more than two models" in err


def test_the_mean_of_several_has_the_statistics_of_its_networks(disk: Disk) -> None:
    noise = torch.Generator().manual_seed(3)
    noisy = {
        name: tensor + 0.3 * torch.randn(tensor.shape, generator=noise)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in states()[0].items()
    }
    save_file(noisy, disk.folder / "c.safetensors")
    models = [disk.reference, disk.target, model(disk.folder / "c.safetensors")]
    code, _, err = disk.run("merge", *models, "--repair", DATA, "--out", disk.folder / "out")
    assert code == 0, err
    networks = [Small().eval() for _ in range(3)]
    for network, state in zip(networks, (*states(), noisy), strict=True):
        network.load_state_dict(state)
    many = sr.match_many(networks, sr.discover_symmetry(networks[0], batches()[0][0]))
    mean, *moved = (Small().eval() for _ in range(4))
    for network, state in zip((mean, *moved), (many.merge(networks), *many.apply(networks)), strict=True):
        network.load_state_dict(state)
    expected = sr.repair(mean, moved[0], moved[1:], many.spec, batches()).state_dict()
    written = load_file(disk.folder / "out" / "model.safetensors")
    assert not torch.allclose(written["norm.running_var"], mean.norm.running_var)
    for name, tensor in written.items():
        torch.testing.assert_close(tensor, expected[name], msg=name)
