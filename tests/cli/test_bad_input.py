"""Bad input: a message in one line, an exit code, and nothing half-written."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from sinkhorn_rebasin.cli.models import loaded
from tests.cli.conftest import INPUTS, Disk, model, states
from tests.cli.networks import Small


def refused(disk: Disk, code: int, *arguments: object) -> str:
    """Run a verb that must fail, and return its message."""
    before = sorted(disk.folder.rglob("*"))
    got, _, err = disk.run(*arguments)
    assert got == code, err
    assert err.startswith("sinkhorn-rebasin: ")
    assert err.count("\n") == 1, err
    assert sorted(disk.folder.rglob("*")) == before
    return err


def align(disk: Disk, reference: str, target: str, *more: str) -> list[object]:
    return ["align", reference, target, "--out", disk.folder / "new" / "x.safetensors", *INPUTS, *more]


def test_another_class_is_not_mergeable(disk: Disk) -> None:
    other = model(disk.folder / "b.pt", "other")
    said = refused(disk, 2, *align(disk, disk.reference, other))
    assert f"is a Small and {other} a Other: convert or distill" in said


def test_another_function_is_not_mergeable(disk: Disk) -> None:
    smooth = model(disk.folder / "b.pt", "smooth")
    assert "is one of its layers or activations another" in refused(
        disk, 2, *align(disk, disk.reference, smooth)
    )


def test_other_widths_are_not_mergeable_and_the_tensor_is_named(disk: Disk) -> None:
    save_file(Small(9).state_dict(), disk.folder / "wide.safetensors")
    wide = model(disk.folder / "wide.safetensors")
    for verb in (align(disk, disk.reference, wide), ["diagnose", disk.reference, wide, *INPUTS]):
        said = refused(disk, 2, *verb)
        assert "'first.weight' of shape (8, 4)" in said
        assert "(9, 4)" in said


def test_a_network_without_hidden_units_is_told(disk: Disk) -> None:
    plain = "tests.cli.networks:frozen"
    assert "hidden units that can be permuted" in refused(disk, 2, *align(disk, plain, plain))


def test_an_alignment_of_another_network_is_refused_by_name(disk: Disk) -> None:
    file = disk.align()
    said = refused(disk, 2, "apply", file, disk.reference, "--out", disk.folder / "out")
    assert "the first tensor with other values is 'first.weight'" in said


@pytest.mark.parametrize("name", ["a.safetensors", "b.pt"])
def test_files_cut_short_are_told(disk: Disk, name: str) -> None:
    file = disk.folder / name
    file.write_bytes(file.read_bytes()[:-100])
    assert f"{name} but it does not load" in refused(disk, 2, *align(disk, disk.reference, disk.target))


class Runs:
    """A pickle that runs code when it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (os.environ["MADE_BY_A_PICKLE"],)


@pytest.mark.parametrize("write", [torch.save, lambda value, file: file.write_bytes(pickle.dumps(value))])
def test_a_pickle_with_code_is_refused_and_not_run(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, write: object
) -> None:
    made = disk.folder / "made"
    monkeypatch.setenv("MADE_BY_A_PICKLE", str(made))
    write({"w": Runs()}, disk.folder / "b.pt")
    said = refused(disk, 2, *align(disk, disk.reference, disk.target))
    assert "would run code, which is refused" in said
    assert not made.exists()


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("nothing", "at least one batch from tests.cli.networks:nothing but it yields nothing"),
        ("wide_batches", "but the first raised RuntimeError"),
        ("failing", "it raised OSError: no such disk"),
        ("nowhere", "Expected a function 'nowhere'"),
        ("small", "Expected batches from tests.cli.networks:small but got Small"),
    ],
)
def test_data_that_do_not_fit_are_told(disk: Disk, function: str, said: str) -> None:
    data = f"tests.cli.networks:{function}"
    assert said in refused(disk, 2, *align(disk, disk.reference, disk.target, "--train", data))


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("breaking", "but batch 2 raised KeyError: 'image'"),
        ("lazily_breaking", "but batch 2 raised KeyError: 'image'"),
        ("later_wide", "but batch 3 raised RuntimeError"),
        (
            "later_label",
            "Expected labels from 0 to 2, as the network has 3 classes, but got labels from 7 to 7",
        ),
        ("wide_batches", "but the first raised RuntimeError"),
        ("nothing", "it yields nothing"),
    ],
)
def test_the_batch_at_fault_is_told(disk: Disk, function: str, said: str) -> None:
    data, out = f"tests.cli.networks:{function}", disk.folder / "out"
    path = ["path", disk.reference, disk.target, "--points", "3", "--data", data, "--out", out]
    assert said in refused(disk, 2, *path)
    if function in ("lazily_breaking", "later_wide"):
        assert said in refused(disk, 2, "merge", disk.reference, disk.target, "--repair", data, "--out", out)
    if function == "later_wide":
        networks = [disk.target, disk.reference, disk.reference]
        assert said in refused(disk, 2, "carry", *networks, "--data", data, "--out", out)


def test_an_error_that_is_no_fault_of_the_data_is_not_hidden(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr("sinkhorn_rebasin.cli.verbs.path.evaluate_path", broken)
    data = ["--data", "tests.cli.networks:batches", "--out", str(disk.folder / "out")]
    with pytest.raises(ZeroDivisionError, match="a mistake of ours"):
        disk.run("path", disk.reference, disk.target, *data)


def test_what_is_there_is_not_replaced_without_force(disk: Disk) -> None:
    file, out = disk.align(), disk.folder / "out"
    out.mkdir()
    (out / "mine").write_text("mine")
    assert "exists: pass --force" in refused(
        disk, 2, "align", disk.reference, disk.target, "--out", file, *INPUTS
    )
    assert "not empty: pass --force" in refused(disk, 2, "apply", file, disk.target, "--out", out)
    code, _, err = disk.run("apply", file, disk.target, "--out", out, "--force")
    assert code == 0, err
    assert sorted(written.name for written in out.iterdir()) == ["README.md", "model.safetensors"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_leaves_nothing(disk: Disk, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def full(_: object, file: Path, **__: object) -> None:
        file.write_bytes(b"half")
        raise error

    monkeypatch.setattr(loaded, "save_file", full)
    said = refused(disk, 2, "apply", disk.align(), disk.target, "--out", disk.folder / "out")
    assert "No space left on device" in said


def test_an_interrupt_leaves_nothing(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object, file: Path, **__: object) -> None:
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(loaded, "save_file", interrupted)
    assert "interrupted" in refused(
        disk, 130, "apply", disk.align(), disk.target, "--out", disk.folder / "out"
    )


def test_unknown_settings_are_named_with_the_nearest(disk: Disk) -> None:
    settings = disk.folder / "settings.yaml"
    settings.write_text("metod: weight_matching\n")
    said = refused(disk, 2, *align(disk, disk.reference, disk.target, "--config", str(settings)))
    assert "'metod'" in said
    assert "did you mean 'method'?" in said
    settings.write_text("method: [1\n")
    refused(disk, 2, *align(disk, disk.reference, disk.target, "--config", str(settings)))
    assert "did you mean '--signs'?" in refused(disk, 2, *align(disk, disk.reference, disk.target, "--sings"))
    assert "did you mean 'align'?" in refused(disk, 2, "alinge")


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("stpes: 3\n", "'stpes'; did you mean 'steps'?"),
        ("base: quik\n", "base to be one of default, quick, transformer"),
        ("steps: many\n", "steps to be a whole number"),
        ("steps: [1\n", "does not load"),
        ("- 3\n", "names with values"),
        (None, "did you mean 'quick'?"),
    ],
)
def test_recipes_that_are_none_are_told(disk: Disk, recipe: str | None, said: str) -> None:
    file = disk.folder / "recipe.yaml"
    if recipe is not None:
        file.write_text(recipe)
    name = "quik" if recipe is None else str(file)
    data = ["--train", "tests.cli.networks:batches", "--recipe", name]
    assert said in refused(disk, 2, *align(disk, disk.reference, disk.target, *data))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["align", "a"], "Expected target for align. Example: sinkhorn-rebasin align"),
        (["inspect", "nowhere"], "neither a folder nor one of"),
        (["inspect", "no.such.module:factory"], "ModuleNotFoundError"),
        (["inspect", "tests.cli.networks:inputs"], "to return a network but got Tensor"),
        (["inspect", "tests.cli.networks:small:nowhere.pt"], "there is no such file"),
        (["inspect", "tests.cli.networks:small"], "pass --inputs"),
        (["inspect", "timm:resnet18"], "timm"),
    ],
)
def test_models_that_are_none_are_told(disk: Disk, arguments: list[str], said: str) -> None:
    assert said in refused(disk, 2, *arguments)


def test_options_that_contradict_each_other_are_told(disk: Disk) -> None:
    pair = (disk.reference, disk.target)
    assert "pass --train DATA" in refused(disk, 2, *align(disk, *pair, "--method", "learned"))
    assert "--seconds above 0" in refused(disk, 2, *align(disk, *pair, "--seconds", "0"))
    assert "--recipe with --method learned" in refused(disk, 2, *align(disk, *pair, "--recipe", "quick"))
    merge = ["merge", *pair, "--out", disk.folder / "out", "--at", "1.5"]
    assert "--at from 0 to 1 but got 1.5" in refused(disk, 2, *merge)


def test_an_alignment_that_changes_the_function_fails_verification(disk: Disk) -> None:
    # A network whose first layer has another order of its units than its norm: a false symmetry.
    from dataclasses import replace

    from sinkhorn_rebasin.matching import Alignment

    alignment = Alignment.load(disk.align())
    spec = replace(alignment.spec, slots=tuple(s for s in alignment.spec.slots if s.tensor != "last.weight"))
    replace(alignment, spec=spec).save(disk.folder / "false.safetensors")
    said = refused(disk, 3, "verify", disk.folder / "false.safetensors", disk.reference, disk.target, *INPUTS)
    assert "its output changes by" in said
    assert states()[0].keys() == states()[1].keys()
