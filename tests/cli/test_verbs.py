"""The verbs of the command on two small networks, files in, files out."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import sinkhorn_rebasin
from sinkhorn_rebasin.cli.main import VERBS, main
from sinkhorn_rebasin.files.fingerprint import Fingerprint
from sinkhorn_rebasin.matching import Alignment
from tests.cli.conftest import INPUTS, Disk, model, states
from tests.cli.networks import Small, batches, inputs

DATA = "tests.cli.networks:batches"


def test_align_recovers_a_planted_copy_and_says_how(disk: Disk) -> None:
    alignment = Alignment.load(disk.align())
    reference, target = states()
    moved = alignment.apply(target)
    assert not torch.equal(target["first.weight"], reference["first.weight"])
    assert all(torch.equal(moved[name], tensor) for name, tensor in reference.items())
    receipt = alignment.receipt
    assert alignment.method == "weight_matching"
    assert receipt.verified_error < 1e-12
    assert receipt.settings["target"] == disk.target
    receipt.check_reference(reference)


def test_apply_writes_the_aligned_network_with_its_card(disk: Disk) -> None:
    out = disk.folder / "aligned"
    code, said, err = disk.run("apply", disk.align(), disk.target, "--out", out)
    assert code == 0, err
    assert f"written to {out}" in said
    written, reference = load_file(out / "model.safetensors"), states()[0]
    assert all(torch.equal(written[name], tensor) for name, tensor in reference.items())
    card = (out / "README.md").read_text()
    assert "aligned by | weight_matching" in card
    assert f"target's weights | {Fingerprint.of(states()[1]).contents} |" in card
    assert disk.target in card


def test_merge_writes_the_mixture_with_its_barrier(disk: Disk) -> None:
    reference = states()[0]
    moved = {
        name: tensor + 0.1 if tensor.is_floating_point() else tensor for name, tensor in states()[1].items()
    }
    moved["norm.running_var"] = states()[1]["norm.running_var"]
    torch.save(moved, disk.folder / "b.pt")
    out = disk.folder / "merged"
    code, said, err = disk.run(
        "merge", disk.reference, disk.target, "--at", "0.25", "--data", DATA, "--out", out
    )
    assert code == 0, err
    assert "batch norm has statistics of the networks it was made of" in err
    written = load_file(out / "model.safetensors")
    torch.testing.assert_close(written["last.bias"], reference["last.bias"] + 0.075)
    torch.testing.assert_close(written["first.weight"], reference["first.weight"] + 0.075)
    card = (out / "README.md").read_text()
    assert "base_model_relation: merge" in card
    assert "| loss barrier between the two |" in card
    assert "barrier" in said


def test_merge_takes_an_alignment_and_restores_statistics(disk: Disk) -> None:
    out = disk.folder / "merged"
    code, _, err = disk.run(
        "merge", disk.reference, disk.target, "--alignment", disk.align(), "--repair", DATA, "--out", out
    )
    assert code == 0, err
    assert err == ""
    net = Small()
    net.load_state_dict(load_file(out / "model.safetensors"))
    values = net.first(torch.cat([x for x, _ in batches()]))
    torch.testing.assert_close(net.norm.running_mean, values.mean(0))
    assert (net.norm.running_mean - states()[0]["norm.running_mean"]).abs().max() > 0.1
    assert "restored (REPAIR)" in (out / "README.md").read_text()


def test_path_writes_a_table_json_and_a_picture(disk: Disk) -> None:
    out = disk.folder / "path"
    code, said, err = disk.run(
        "path",
        disk.reference,
        disk.target,
        "--data",
        "tests.cli.networks:once",
        "--points",
        "3",
        "--out",
        out,
    )
    assert code == 0, err
    assert sorted(file.name for file in out.iterdir()) == ["path.json", "path.png", "path.txt"]
    paths = json.loads((out / "path.json").read_text())
    assert list(paths) == ["as they are", "aligned"]
    assert paths["aligned"]["barrier"] < 1e-6 < paths["as they are"]["barrier"]
    assert (out / "path.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "path.txt").read_text().strip() in said


def test_verify_passes_what_is_whole_and_fails_what_is_not(disk: Disk) -> None:
    file = disk.align()
    code, said, err = disk.run("verify", file, disk.reference, disk.target, *INPUTS)
    assert code == 0, err
    assert "distance to A after     0\n" in said
    code, _, err = disk.run("verify", file, disk.target, disk.reference, *INPUTS)
    assert code == 3
    assert "Expected the reference of this alignment but got another network" in err
    whole = Path(file).read_bytes()
    Path(file).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    code, _, err = disk.run("verify", file, disk.reference, disk.target, *INPUTS)
    assert code == 3
    assert "checksum does not fit" in err


def test_inspect_tells_what_is_permuted(disk: Disk) -> None:
    code, said, err = disk.run("inspect", disk.reference, *INPUTS, "--rescaling")
    assert code == 0, err
    assert "Small, 131 parameters" in said
    assert "2 groups, 14 units" in said
    assert "second (positive): second.weight[0] +1" in said


def test_diagnose_tells_distance_and_start(disk: Disk) -> None:
    code, said, err = disk.run("diagnose", disk.reference, disk.target, *INPUTS)
    assert code == 0, err
    said = " ".join(said.split())
    assert "same initialization no (cosine of the weights" in said
    assert "after weight matching 0 (cosine 1.000)" in said
    code, said, _ = disk.run("diagnose", disk.reference, disk.reference, *INPUTS)
    assert "same initialization yes (cosine of the weights 1.000)" in " ".join(said.split())


def test_folders_of_arrays_are_data(disk: Disk) -> None:
    folder = disk.folder / "data"
    folder.mkdir()
    (first, labels), (second, more) = batches()
    save_file({"inputs": first, "labels": labels}, folder / "0.safetensors")
    np.savez(folder / "1.npz", inputs=second.numpy(), labels=more.numpy())
    file = disk.folder / "b_to_a.safetensors"
    code, _, err = disk.run(
        "align",
        disk.reference,
        disk.target,
        "--out",
        file,
        "--train",
        folder,
        "--method",
        "activation_matching",
    )
    assert code == 0, err
    moved = Alignment.load(file).apply(states()[1])
    assert torch.equal(moved["first.weight"], states()[0]["first.weight"])
    assert Alignment.load(file).method == "activation_matching"


def test_an_alignment_is_learned_on_a_folder_of_arrays(disk: Disk) -> None:
    folder, recipe = disk.folder / "data", disk.folder / "recipe.yaml"
    folder.mkdir()
    for number, (arrays, labels) in enumerate([*batches(), *batches()]):
        save_file({"inputs": arrays, "labels": labels}, folder / f"{number}.safetensors")
    recipe.write_text("steps: 2\ncycles: 1\nclosing_steps: 1\nevaluate_every: 1\n")
    file = disk.folder / "b_to_a.safetensors"
    options = ["--train", folder, "--recipe", recipe, "--out", file]
    code, _, err = disk.run("align", disk.reference, disk.target, *options)
    assert code == 0, err
    found = Alignment.load(file)
    assert found.method == "align"
    assert found.log_scales
    assert found.receipt is not None
    assert found.receipt.verified_error < 1e-12
    assert disk.run("verify", file, disk.reference, disk.target, *INPUTS)[0] == 0


def test_learning_is_the_packages_own_call(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Alignment.load(disk.align())
    asked = {}
    taken = inspect.signature(sinkhorn_rebasin.align)

    def align(*networks: object, **options: object) -> object:
        asked.update(taken.bind(*networks, **options).arguments)
        return SimpleNamespace(alignment=Alignment(found.permutations, found.spec))

    monkeypatch.setattr(sinkhorn_rebasin, "align", align, raising=False)
    file = disk.folder / "learned.safetensors"
    code, _, err = disk.run(
        "align", disk.reference, disk.target, "--out", file, "--train", DATA, "--seconds", "3", "--seed", "5"
    )
    assert code == 0, err
    assert (asked["recipe"].seconds, asked["seed"], asked["symmetry"], len(asked["train"])) == (
        3.0,
        5,
        "permutation",
        2,
    )
    assert Alignment.load(file).method == "learned"


def test_settings_come_from_a_file(disk: Disk) -> None:
    settings = disk.folder / "settings.yaml"
    file = disk.folder / "out.safetensors"
    settings.write_text(
        f"reference: {disk.reference}\ntarget: {disk.target}\nout: {file}\ninputs: tests.cli.networks:inputs\n"
    )
    code, _, err = disk.run("align", "--config", settings, "--seed", "4")
    assert code == 0, err
    assert Alignment.load(file).receipt.seed == 4


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"example: sinkhorn-rebasin {verb} " in said
    assert "(required" not in said  # further models of merge are not


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sinkhorn_rebasin", "--help"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert "usage: sinkhorn-rebasin" in done.stdout
    assert "3 verification failed" in " ".join(done.stdout.split())


def test_the_same_inputs_every_time() -> None:
    assert torch.equal(inputs(), inputs())
    assert model(Path("a")) == "tests.cli.networks:small:a"


def test_a_recipe_of_a_file_reaches_learning(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    found, asked = Alignment.load(disk.align()), {}
    monkeypatch.setattr(
        sinkhorn_rebasin,
        "align",
        lambda *_, **options: asked.update(options) or SimpleNamespace(alignment=found),
        raising=False,
    )
    recipe = disk.folder / "recipe.yaml"
    recipe.write_text("base: transformer\nsteps: 7\n")
    pair, train = [disk.reference, disk.target], ["--train", DATA]
    for text, steps, rate in ((recipe, 7, 0.03), ("quick", 400, 0.1), ("default", 2000, 0.1)):
        file = disk.folder / f"{steps}.safetensors"
        code, _, err = disk.run("align", *pair, *train, "--recipe", text, "--seconds", "9", "--out", file)
        assert code == 0, err
        assert (asked["recipe"].steps, asked["recipe"].learning_rate, asked["recipe"].seconds) == (
            steps,
            rate,
            9,
        )
        assert Alignment.load(file).receipt.settings["recipe"] == str(text)
