"""A run that was stopped inside an epoch and resumed is bit for bit the run that was not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from sinkhorn_rebasin import MidpointLoss, RandomPointLoss
from sinkhorn_rebasin.errors import DataError, RebasinWarning
from sinkhorn_rebasin.training import RebasinModule
from sinkhorn_rebasin.training.continual import ExperienceReplay
from tests.rebasin.rebasin_problems import built
from tests.training.fitting import dataset, loader, scores_of, trainer

# Lightning does not know that the loader is opened as it was.
pytestmark = [
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch"),
    pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization:UserWarning"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning"),
]

Loader = Callable[[], Any]


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """Samples with an augmentation that draws from torch's global state."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        inputs, label = dataset()[index]
        return inputs + torch.randn(5), label


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    """Samples whose number nobody knows, in an order of their own in each epoch."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for index in torch.randperm(20).tolist():
            yield dataset()[index]


class Stateful(DataLoader[Any]):
    """A loader that Lightning restores itself."""

    given = first = 0

    def __iter__(self) -> Any:
        return self.rest(super().__iter__())

    def rest(self, batches: Iterator[Any]) -> Iterator[Any]:
        """What was not given before a stop."""
        first, self.first = self.first, 0
        for number, batch in enumerate(batches):
            if number >= first:
                self.given = number + 1
                yield batch

    def state_dict(self) -> dict[str, int]:
        return {"given": self.given % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.first = state["given"]


LOADERS: dict[str, Loader] = {
    "in order": loader,
    "shuffled": lambda: loader(shuffle=True),
    "augmented": lambda: DataLoader(Noisy(), 4, shuffle=True),
    "of unknown length": lambda: DataLoader(Stream(), 4),
    "with a generator": lambda: DataLoader(
        dataset(), 4, shuffle=True, generator=torch.Generator().manual_seed(5)
    ),
    "with state": lambda: Stateful(dataset(), 4),
}


def run(
    folder: Path | None, made: Any, resume: Path | None = None, stop: int = -1, **options: Any
) -> tuple[dict[str, Tensor], Tensor]:
    """Three epochs of five steps, or up to a step; the scores, and the random state at the end."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(77 if resume else 1)
        module = RebasinModule(built()[2], RandomPointLoss(F.cross_entropy), points=3)
        saving = (
            []
            if folder is None
            else [ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1, save_last=False)]
        )
        fit = trainer(folder or Path(), callbacks=saving, max_epochs=3, max_steps=stop, **options)
        fit.fit(module, made, ckpt_path=resume)
        return scores_of(module), torch.get_rng_state()


def same(one: tuple[dict[str, Tensor], Tensor], other: tuple[dict[str, Tensor], Tensor]) -> bool:
    return all(torch.equal(one[0][name], other[0][name]) for name in one[0]) and torch.equal(one[1], other[1])


@pytest.mark.parametrize("name", LOADERS)
def test_resumed_from_any_step(tmp_path: Path, name: str) -> None:
    whole = run(tmp_path, LOADERS[name]())
    for step in (1, 4, 5, 6, 10, 13):
        assert same(whole, run(None, LOADERS[name](), tmp_path / f"step={step}.ckpt")), step


@cache
def whole_run() -> tuple[dict[str, Tensor], Tensor]:
    """The run on shuffled data that nothing stopped."""
    return run(None, loader(shuffle=True))


@pytest.mark.parametrize("stops", [(2, 4), (2, 7), (5, 7), (6, 8)])
def test_stopped_twice(tmp_path: Path, stops: tuple[int, int]) -> None:
    first, second = stops
    run(tmp_path, loader(shuffle=True), stop=first)
    run(tmp_path, loader(shuffle=True), tmp_path / f"step={first}.ckpt", stop=second)
    assert same(whole_run(), run(None, loader(shuffle=True), tmp_path / f"step={second}.ckpt"))


def test_with_part_of_the_batches_and_workers(tmp_path: Path) -> None:
    options = {"limit_train_batches": 4}
    made = lambda: DataLoader(Noisy(), 4, shuffle=True, num_workers=1)  # noqa: E731
    whole = run(tmp_path, made(), **options)
    for step in (2, 7):
        assert same(whole, run(None, made(), tmp_path / f"step={step}.ckpt", **options))


def test_with_validation_inside_the_epoch(tmp_path: Path) -> None:
    def fitted(folder: Path | None, resume: Path | None = None) -> dict[str, Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(77 if resume else 1)
            module = RebasinModule(built()[2], RandomPointLoss(F.cross_entropy), points=3)
            saving = ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)
            fit = trainer(tmp_path, callbacks=[saving] if folder else [], max_epochs=2, val_check_interval=2)
            fit.fit(module, loader(shuffle=True), loader(), ckpt_path=resume)
            return scores_of(module)

    whole = fitted(tmp_path)
    for step in (1, 2, 3, 4, 6, 8):
        resumed = fitted(None, tmp_path / f"step={step}.ckpt")
        assert all(torch.equal(whole[name], resumed[name]) for name in whole), step


def test_a_learner_with_a_memory(tmp_path: Path) -> None:
    def learned(folder: Path | None, resume: Path | None = None) -> dict[str, Any]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            learner = ExperienceReplay(nn.Linear(5, 3), tasks=2, per_class=2)
            torch.manual_seed(77 if resume else 1)
            saving = ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)
            fit = trainer(tmp_path, callbacks=[saving] if folder else [], max_epochs=2)
            fit.fit(learner, loader(shuffle=True), ckpt_path=resume)
            torch.manual_seed(5)
            trainer(tmp_path, max_epochs=1).fit(learner, loader(shuffle=True))
            return learner.network.state_dict()

    whole = learned(tmp_path)
    for step in (2, 5, 8):
        resumed = learned(None, tmp_path / f"step={step}.ckpt")
        assert all(torch.equal(whole[name], tensor) for name, tensor in resumed.items()), step


def test_checkpoints_load_without_running_code(tmp_path: Path) -> None:
    run(tmp_path, LOADERS["with a generator"](), stop=7)
    checkpoint = torch.load(tmp_path / "step=7.ckpt", weights_only=True)
    assert checkpoint["epoch_begin"]["batches"] == 2
    assert len(checkpoint["loader_random_states"]) == 1


def test_a_checkpoint_without_the_state_of_the_epochs_begin_is_warned_of(tmp_path: Path) -> None:
    run(tmp_path, loader(), stop=7)
    for step, warns in ((5, False), (7, True)):
        checkpoint = torch.load(tmp_path / f"step={step}.ckpt", weights_only=True)
        del checkpoint["epoch_begin"], checkpoint["loader_random_states"]
        torch.save(checkpoint, tmp_path / "old.ckpt")
        if not warns:
            run(None, loader(), tmp_path / "old.ckpt")
            continue
        with pytest.warns(RebasinWarning, match=r"Expected a checkpoint of the end of an epoch"):
            run(None, loader(), tmp_path / "old.ckpt")


def test_a_shorter_loader_is_an_error(tmp_path: Path) -> None:
    run(tmp_path, loader(), stop=9)
    with pytest.raises(DataError, match=r"had trained on 4 batches .* ends after 2"):
        run(None, DataLoader(TensorDataset(*dataset()[:8]), 4), tmp_path / "step=9.ckpt")


def test_the_loss_needs_no_data_for_it(tmp_path: Path) -> None:
    """The first steps of an epoch are skipped, not taken: nothing is computed for them."""
    run(tmp_path, loader(), stop=8)
    taken: list[int] = []

    def counted(rebasin: Any, batch: Any) -> Tensor:
        taken.append(1)
        return MidpointLoss(F.cross_entropy)(rebasin, batch)

    module = RebasinModule(built()[2], counted, points=3)
    trainer(tmp_path, max_epochs=2).fit(module, loader(), ckpt_path=tmp_path / "step=8.ckpt")
    assert len(taken) == 2
