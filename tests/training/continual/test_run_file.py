"""There is always a whole checkpoint, whatever happens while the next one is written."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.fabric.plugins import TorchCheckpointIO

from sinkhorn_rebasin.errors import CheckpointError
from sinkhorn_rebasin.training.continual import learn_tasks
from tests.training.continual.tasks import LEARNERS, Interruption, StopsAt, net, tasks, trainers, weights_of


def learned(folder: Path, file: Path | None, *callbacks: Any) -> dict[str, torch.Tensor]:
    learner = LEARNERS["replay"](net(), 2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        learn_tasks(learner, tasks(2), trainers(folder, *callbacks), checkpoint=file)
    return weights_of(learner)


def full_disk(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class FullFrom(lightning.Callback):
    """The disk is full from some epoch's start on."""

    def __init__(self, epoch: int, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
        self.epoch, self.monkeypatch, self.where = epoch, monkeypatch, where
        self.met = 0

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Count epochs over all tasks."""
        if self.met == self.epoch:
            target = torch if self.where == "save" else os
            self.monkeypatch.setattr(target, self.where, full_disk)
        self.met += 1


@pytest.mark.parametrize("where", ["save", "fsync", "replace"])
@pytest.mark.parametrize("epoch", [0, 1, 3])
def test_a_full_disk_leaves_the_checkpoint_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, epoch: int
) -> None:
    whole = learned(tmp_path, None)
    file = tmp_path / "run.ckpt"
    stays = "stays" if epoch else "there is none before"
    with monkeypatch.context() as patch, pytest.raises(CheckpointError, match=rf"run\.ckpt but .*{stays}"):
        learned(tmp_path, file, FullFrom(epoch, patch, where))
    assert file.is_file() == (epoch > 0)
    assert not list(tmp_path.glob("*.part"))
    resumed = learned(tmp_path, file)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_disk_that_is_full_while_torch_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch reports it in its own words."""
    file, path_open = tmp_path / "run.ckpt", Path.open

    def opened(path: Path, *arguments: Any, **others: Any) -> Any:
        return path_open(Path("/dev/full") if path.suffix == ".part" else path, *arguments, **others)

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(CheckpointError, match=r"run\.ckpt but got .*Make room"):
        learned(tmp_path, file)
    assert not file.is_file()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"no checkpoint at all"])
def test_a_broken_file_is_named_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "run.ckpt"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"run\.ckpt but it does not load.*delete it"):
        learned(tmp_path, file)
    assert file.read_bytes() == content


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_checkpoint_that_was_cut_short_is_named(tmp_path: Path, share: float) -> None:
    file = tmp_path / "run.ckpt"
    with pytest.raises(Interruption):
        learned(tmp_path, file, StopsAt(1, 0))
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=r"run\.ckpt but it does not load"):
        learned(tmp_path, file)


def test_another_file_of_torch_is_no_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "run.ckpt"
    torch.save(torch.ones(3), file)
    with pytest.raises(CheckpointError, match=r"run\.ckpt but it holds no weights"):
        learned(tmp_path, file)


def test_the_rest_of_a_killed_write_is_in_nobodys_way(tmp_path: Path) -> None:
    file = tmp_path / "run.ckpt"
    with pytest.raises(Interruption):
        learned(tmp_path, file, StopsAt(1, 0))
    (tmp_path / "run.ckpt.part").write_bytes(b"half")
    resumed, whole = learned(tmp_path, file), learned(tmp_path, None)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert not list(tmp_path.glob("*.part"))


def test_a_way_to_write_of_ones_own_is_used_and_kept(tmp_path: Path) -> None:
    written: list[Path] = []

    class Own(TorchCheckpointIO):
        def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
            written.append(Path(path))
            super().save_checkpoint(checkpoint, path, storage_options)

    own = Own()

    def make() -> lightning.Trainer:
        made = trainers(tmp_path)()
        made.strategy.checkpoint_io = own
        return made

    learner = LEARNERS["replay"](net(), 2)
    learn_tasks(learner, tasks(2), make, checkpoint=tmp_path / "run.ckpt")
    assert set(written) == {tmp_path / "run.ckpt"}
