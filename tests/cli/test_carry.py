"""``carry TUNED BASE NEW_BASE``: on two small networks, of which the new base is the base in another order."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.cli.carrying import WAYS
from sinkhorn_rebasin.cli.models import loaded
from sinkhorn_rebasin.files.fingerprint import Fingerprint
from sinkhorn_rebasin.matching import Alignment
from tests.cli.conftest import INPUTS, Disk, model, states
from tests.cli.networks import Small, inputs
from tests.cli.test_bad_input import refused

DATA = "tests.cli.networks:batches"


def tuned_state() -> dict[str, Tensor]:
    """The base (``b.pt``) with its parameters moved a little; it is the target of the alignments."""
    generator = torch.Generator().manual_seed(9)
    kept = {name for name, _ in Small().named_parameters()}
    return {
        name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator) if name in kept else tensor
        for name, tensor in states()[1].items()
    }


def written_tuned(disk: Disk, **changes: Tensor) -> str:
    """The fine-tune on disk, some tensors changed."""
    save_file({**tuned_state(), **changes}, disk.folder / "tuned.safetensors")
    return model(disk.folder / "tuned.safetensors")


def carry(disk: Disk, tuned: str, *more: object) -> list[object]:
    return ["carry", tuned, disk.target, disk.reference, "--out", disk.folder / "out", *INPUTS, *more]


def test_the_new_base_gets_what_the_fine_tune_learned_with_its_card(disk: Disk) -> None:
    tuned = written_tuned(disk)
    code, said, err = disk.run(*carry(disk, tuned, "--way", "weights", "--scale", "1"))
    assert code == 0, err
    assert f"written to {disk.folder / 'out'}" in said
    planted = Alignment.load(disk.align())
    expected = sr.permute_state(tuned_state(), planted.spec, planted.permutations)
    written = load_file(disk.folder / "out" / "model.safetensors")
    for name, tensor in written.items():
        torch.testing.assert_close(tensor, expected[name], msg=name)
    net = Small().eval()
    net.load_state_dict(written)
    first = Small().eval()
    first.load_state_dict(tuned_state())
    torch.testing.assert_close(net(inputs()), first(inputs()))
    card = (disk.folder / "out" / "README.md").read_text()
    assert "base_model_relation: finetune" in card
    assert "| carried by | weights |" in card
    assert "| scale of the update | 1 |" in card
    prints = [Fingerprint.of(state).contents for state in (tuned_state(), states()[1], states()[0])]
    for role, contents in zip(("tuned network", "base", "new base"), prints, strict=True):
        assert f"| fingerprint of the {role}'s weights | {contents} |" in card
    assert card.index(disk.reference) < card.index(tuned) < card.index(disk.target)


def test_an_alignment_of_a_file_and_the_scale_without_data(disk: Disk) -> None:
    tuned = written_tuned(disk)
    code, _, err = disk.run(*carry(disk, tuned, "--alignment", disk.align()))
    assert code == 0, err
    written = load_file(disk.folder / "out" / "model.safetensors")
    planted = Alignment.load(disk.folder / "b_to_a.safetensors")
    moved = sr.permute_state(tuned_state(), planted.spec, planted.permutations)
    start = states()[0]
    for name, _ in Small().named_parameters():
        torch.testing.assert_close(written[name], start[name] + 0.75 * (moved[name] - start[name]))
    card = (disk.folder / "out" / "README.md").read_text()
    assert "| aligned by | weight_matching |" in card
    assert "| verified change of the function |" in card


def test_data_choose_the_scale_and_settings_come_from_a_file(disk: Disk) -> None:
    settings = disk.folder / "settings.yaml"
    settings.write_text(
        f"tuned: {written_tuned(disk)}\nbase: {disk.target}\nnew_base: {disk.reference}\nway: weights\n"
        f"data: {DATA}\nout: {disk.folder / 'out'}\n"
    )
    code, said, err = disk.run("carry", "--config", settings)
    assert code == 0, err
    assert "scale 1: loss" in said
    assert "| scale of the update | 1 |" in (disk.folder / "out" / "README.md").read_text()


def test_a_head_of_other_labels_is_left_and_told(disk: Disk) -> None:
    class Five(Small):
        def __init__(self) -> None:
            super().__init__()
            self.last = torch.nn.Linear(6, 5)

    head = {"last.weight": torch.ones(5, 6), "last.bias": torch.ones(5)}
    from tests.cli import networks

    networks.five = lambda: _named(Five(), "Small")
    try:
        written_tuned(disk, **head)
        tuned = model(disk.folder / "tuned.safetensors", "five")
        code, said, err = disk.run(*carry(disk, tuned, "--way", "weights"))
    finally:
        del networks.five
    assert code == 0, err
    told = "heads of other labels stay as they are: last.weight, last.bias"
    assert told in said
    assert told in (disk.folder / "out" / "README.md").read_text()
    written = load_file(disk.folder / "out" / "model.safetensors")
    assert torch.equal(written["last.weight"], states()[0]["last.weight"])
    assert not torch.equal(written["first.weight"], states()[0]["first.weight"])


def _named(net: torch.nn.Module, name: str) -> torch.nn.Module:
    net.__class__.__name__ = name
    return net


def test_a_fine_tune_of_another_architecture_is_refused_by_its_first_difference(disk: Disk) -> None:
    save_file(Small(9).state_dict(), disk.folder / "wide.safetensors")
    said = refused(disk, 2, *carry(disk, model(disk.folder / "wide.safetensors")))
    assert "'first.weight' of shape (8, 4)" in said
    other = model(disk.folder / "b.pt", "other")
    assert f"{other} is a Other and {disk.target} a Small" in refused(disk, 2, *carry(disk, other))
    smooth = model(disk.folder / "b.pt", "smooth")
    assert "is one of its layers or activations another" in refused(disk, 2, *carry(disk, smooth))


def test_an_alignment_of_other_bases_is_refused_by_name(disk: Disk) -> None:
    tuned, file = written_tuned(disk), disk.align()
    swapped = ["carry", tuned, disk.reference, disk.target, "--out", disk.folder / "out", *INPUTS]
    said = refused(disk, 2, *swapped, "--alignment", file)
    assert "the first tensor with other values is 'first.weight'" in said


@pytest.mark.parametrize(
    ("tuned", "more", "said"),
    [
        (lambda disk: disk.target, [], "nothing to carry"),
        (written_tuned, ["--scale", "nan"], "Got value: nan"),
        (written_tuned, ["--scale", ".nan"], "Expected scale to be a finite number"),
        (written_tuned, ["--scale", ".inf"], "Expected scale to be a finite number"),
        (written_tuned, ["--way", "activations"], "'activations' looks at, but got none"),
        (written_tuned, ["--way", "activations", "--alignment", "b_to_a"], "which finds its own"),
        (
            lambda disk: written_tuned(disk, **{"last.bias": torch.tensor([0, 0, torch.nan])}),
            [],
            "'last.bias'",
        ),
    ],
)
def test_what_cannot_be_carried_is_told_and_nothing_is_written(
    disk: Disk, tuned: Callable[[Disk], str], more: list[str], said: str
) -> None:
    assert said in refused(disk, 2, *carry(disk, tuned(disk), *more))


def test_what_is_there_stays_without_force_and_a_full_disk_leaves_nothing(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = disk.folder / "out"
    out.mkdir()
    (out / "mine").write_text("mine")
    tuned = written_tuned(disk)
    assert "not empty: pass --force" in refused(disk, 2, *carry(disk, tuned))

    def full(_: object, file: Path, **__: object) -> None:
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(loaded, "save_file", full)
        said = refused(disk, 2, *carry(disk, tuned, "--way", "weights", "--force"))
    assert "No space left on device" in said
    assert (out / "mine").read_text() == "mine"
    code, _, err = disk.run(*carry(disk, tuned, "--way", "weights", "--force"))
    assert code == 0, err
    assert sorted(file.name for file in out.iterdir()) == ["README.md", "model.safetensors"]


def lora(disk: Disk, **config: object) -> Path:
    """A LoRA of the first layer of the base, on disk."""
    generator = torch.Generator().manual_seed(6)
    tensors = {
        "first.lora_A.weight": torch.randn(2, 4, generator=generator),
        "first.lora_B.weight": torch.randn(8, 2, generator=generator),
    }
    folder = disk.folder / "lora"
    sr.Adapter({"peft_type": "LORA", "lora_alpha": 2, **config}, tensors).save(folder)
    return folder


def adapt(disk: Disk, folder: Path, *more: object) -> list[object]:
    models = [disk.target, disk.reference]
    return ["carry", *models, "--adapter", folder, "--out", disk.folder / "out", *INPUTS, *more]


def test_an_adapter_stands_for_the_fine_tune_and_an_adapter_is_written(disk: Disk) -> None:
    folder = lora(disk)
    code, said, err = disk.run(*adapt(disk, folder, "--scale", "0.5", "--alignment", disk.align()))
    assert code == 0, err
    assert "Adapter(rank 2; 2 tensors; scale 0.5)" in said
    written, before = sr.Adapter.load(disk.folder / "out"), sr.Adapter.load(folder)
    order = Alignment.load(disk.folder / "b_to_a.safetensors").permutations["first"]
    assert torch.equal(written.tensors["first.lora_A.weight"], before.tensors["first.lora_A.weight"])
    expected = 0.5 * before.tensors["first.lora_B.weight"][order]
    torch.testing.assert_close(written.tensors["first.lora_B.weight"], expected)
    assert not torch.equal(order, torch.arange(8))
    card = (disk.folder / "out" / "README.md").read_text()
    assert "library_name: peft" in card
    assert "base_model_relation: adapter" in card
    assert "| scale of the update | 0.5 |" in card
    assert f"adapter's weights | {Fingerprint.of(before.tensors).contents} |" in card


def test_an_adapter_is_named_in_a_file_of_settings_and_data_choose_its_scale(disk: Disk) -> None:
    settings = disk.folder / "settings.yaml"
    settings.write_text(
        f"base: {disk.target}\nnew_base: {disk.reference}\nadapter: {lora(disk)}\nout: {disk.folder / 'out'}\n"
    )
    code, said, err = disk.run("carry", "--config", settings, "--data", DATA)
    assert code == 0, err
    assert "scale 1: loss" in said
    assert "| loss at scale 1 |" in (disk.folder / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("config", "more", "code", "said"),
    [
        ({"peft_type": "IA3"}, [], 2, "its config says 'IA3'"),
        ({}, ["--scale", ".nan"], 2, "finite number"),
        ({}, ["--way", "activations"], 2, "--way weights with --adapter"),
        ({}, ["tests.cli.networks:small"], 2, "but got three models"),
    ],
)
def test_adapters_that_cannot_be_carried_are_told(
    disk: Disk, config: dict[str, object], more: list[str], code: int, said: str
) -> None:
    folder = lora(disk, **config)
    arguments = adapt(disk, folder)
    assert said in refused(disk, code, *arguments[:3], *more, *arguments[3:])


def test_an_adapter_without_a_counterpart_and_one_cut_short_are_told(disk: Disk) -> None:
    folder = lora(disk)
    plain = ["carry", "tests.cli.networks:frozen", "tests.cli.networks:frozen", "--adapter", folder]
    said = refused(disk, 2, *plain, "--out", disk.folder / "out", *INPUTS)
    assert "counterpart of the adapter's target 'first'" in said
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    assert "does not load" in refused(disk, 2, *adapt(disk, folder))
    weights.unlink()
    assert "there is no such file" in refused(disk, 2, *adapt(disk, folder))


def test_every_way_is_offered_by_name() -> None:
    ways = {name for name in sr.carrying.__all__ if hasattr(getattr(sr.carrying, name), "carried")} - {"Way"}
    assert {type(way).__name__ for way in WAYS.values()} == ways
    assert [*WAYS][-2:] == ["learned", "distilled"]
