"""Two processes on the CPU train what one process trains on all of their samples."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler

from sinkhorn_rebasin import MidpointLoss, PermutationSpec, RandomPointLoss, Recipe, SinkhornRebasin, align
from sinkhorn_rebasin.errors import DataError, LossError, RebasinError
from sinkhorn_rebasin.losses import connectivity
from sinkhorn_rebasin.permutations import Group, Layout, Slot
from sinkhorn_rebasin.training import BarrierMonitor, RebasinModule
from sinkhorn_rebasin.training.continual import StableSGD
from sinkhorn_rebasin.training.several_processes import check_same_networks, check_strategy
from tests.training.fitting import dataset, trainer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked")

WIDTH = 12


def rebasin(candidates: Any = "all") -> SinkhornRebasin:
    """A small re-basin, the same at every call."""
    torch.manual_seed(0)
    pair = [nn.Sequential(nn.Linear(5, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 3)) for _ in range(2)]
    shapes = {name: tuple(value.shape) for name, value in pair[0].state_dict().items()}
    places = (("0.weight", 0), ("0.bias", 0), ("2.weight", 1))
    slots = tuple(Slot("0", tensor, (axis,), Layout(1, WIDTH)) for tensor, axis in places)
    spec = PermutationSpec((Group("0", WIDTH),), slots, shapes)
    return SinkhornRebasin(*pair, spec=spec, start="identity", candidates=candidates, check=False)


class Shards(lightning.LightningDataModule):
    """Each process takes its half of every step's samples, in their order."""

    def train_dataloader(self) -> DataLoader[Any]:
        count = self.trainer.world_size
        data = dataset(16)
        sampler = DistributedSampler(data, count, self.trainer.global_rank, shuffle=False)
        return DataLoader(data, 8 // count, sampler=sampler)

    val_dataloader = train_dataloader


def fit(
    folder: Path, processes: int, candidates: Any = "all", **options: Any
) -> tuple[RebasinModule, dict[str, Any]]:
    """Train, and return what is learned and logged."""
    torch.set_num_threads(1)
    module = RebasinModule(
        rebasin(candidates), MidpointLoss(F.cross_entropy), lr=0.1, criterion=F.cross_entropy
    )
    strategy = "ddp_fork" if processes > 1 else "auto"
    run = trainer(
        folder, devices=processes, strategy=strategy, use_distributed_sampler=False, max_epochs=4, **options
    )
    run.fit(module, datamodule=Shards())
    return module, {name: float(value) for name, value in run.callback_metrics.items()}


def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    first, second = fit(tmp_path, 1), fit(tmp_path, 2)
    start = rebasin()
    for name, scores in first[0].rebasin.scores.items():
        assert float((scores - start.scores[name]).detach().abs().max()) > 0.1
        assert torch.allclose(second[0].rebasin.scores[name], scores, atol=1e-5)
        assert torch.equal(
            second[0].rebasin.hard_permutations()[name], first[0].rebasin.hard_permutations()[name]
        )
    for name in ("val_barrier", "val_auc", "val_midpoint_loss"):  # metrics add up over processes
        assert second[1][name] == pytest.approx(first[1][name], abs=1e-5)


def test_candidates_stay_equal_in_all_processes(tmp_path: Path) -> None:
    first, second = (fit(tmp_path, processes, 4)[0].rebasin for processes in (1, 2))
    for ours, theirs in zip(
        first.candidates.indices.buffers(), second.candidates.indices.buffers(), strict=True
    ):
        # The first process proposes candidates from its own samples, so they may differ from those of one process.
        assert theirs.shape == ours.shape
        assert not torch.equal(theirs, rebasin(4).candidates.indices.get_buffer("0"))
    assert second.candidates.share is None


class InEveryProcess(lightning.Callback):
    """Fails where processes have come apart, or send what they need not."""

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, RebasinModule)
        learned = [*pl_module.parameters(), *pl_module.rebasin.candidates.buffers()]
        for tensor in learned:
            gathered: list[Any] = [None, None]
            torch.distributed.all_gather_object(gathered, tensor.detach())
            assert torch.equal(*gathered)
        sent = {name for name, _ in trainer.model.module.named_buffers()}  # type: ignore[union-attr]
        ignored = trainer.model.parameters_to_ignore  # type: ignore[union-attr]
        assert {name for name in sent if ".reference." in name or ".target." in name} <= ignored
        assert not {name for name in ignored if "scor" in name or "temperature" in name or "scaling" in name}


def test_nothing_comes_apart_and_networks_are_not_sent(tmp_path: Path) -> None:
    monitor = BarrierMonitor(DataLoader(dataset(8), 8), F.cross_entropy, points=3, restore_best=True)
    fit(tmp_path, 2, 4, callbacks=[InEveryProcess(), monitor])


def test_align_finds_in_two_processes_what_it_finds_in_one() -> None:
    pair = rebasin()
    networks = pair.plain(pair.reference_state()), pair.plain(pair.target_state())
    batches = list(DataLoader(dataset(16), 8))
    found = []
    for processes in (1, 2):
        # Each process reads all batches here: what one learns does not depend on how many there are.
        options: dict[str, Any] = {
            "accelerator": "cpu",
            "devices": processes,
            "use_distributed_sampler": False,
        }
        options["strategy"] = "ddp_fork" if processes > 1 else "auto"
        found.append(
            align(
                *(*networks, batches, batches),
                criterion=F.cross_entropy,
                loss=MidpointLoss(F.cross_entropy),
                rescale=False,
                symmetry="permutation",
                recipe=Recipe(steps=6, cycles=1, closing_steps=0, points=3, evaluate_every=3),
                trainer=options,
                progress=False,
            )
        )
    one, two = (result.rebasin for result in found)
    for name, scores in one.scores.items():
        assert torch.allclose(two.scores[name], scores, atol=1e-5)
        assert torch.equal(two.hard_permutations()[name], one.hard_permutations()[name])


def test_networks_that_differ_between_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    change = 0.0

    def gather(sums: list[Any], own: list[float]) -> None:
        sums[:] = [own, [own[0], own[1], own[2] + change, own[3]]]

    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    monkeypatch.setattr("torch.distributed.all_gather_object", gather)
    check_same_networks(rebasin())
    change = 0.1
    with pytest.raises(RebasinError, match="same reference and target in each of 2 processes"):
        check_same_networks(rebasin())


def test_what_splits_weights_is_refused() -> None:
    check_strategy(DDPStrategy())
    with pytest.raises(RebasinError, match=r"whole re-basin in every process.*FSDPStrategy"):
        check_strategy(FSDPStrategy())


def test_learners_want_one_process(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    learner = StableSGD(network, tasks=2)
    learner._trainer = SimpleNamespace(world_size=2)  # type: ignore[assignment]
    with pytest.raises(DataError, match="one process"):
        learner.setup("fit")


def positions(monkeypatch: pytest.MonkeyPatch, how: str) -> list[list[float]]:
    """λ of three steps in each of two processes that were seeded alike."""
    drawn = []
    for rank in range(2):
        monkeypatch.setattr(connectivity, "_place_among_processes", lambda rank=rank: (rank, 2))
        generator = torch.Generator().manual_seed(rank if how == "same" else 0)
        loss = RandomPointLoss(generator=generator, across_processes=how)  # type: ignore[arg-type]
        drawn.append([loss.position() for _ in range(3)])
    return drawn


def test_each_process_has_its_own_position_or_that_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = positions(monkeypatch, "own")
    assert not set(first) & set(second)
    sent: list[float] = []
    received = 0

    def broadcast(values: list[float], src: int) -> None:
        nonlocal received
        if len(sent) < 3:
            sent.append(values[0])  # the first process
        else:
            values[0], received = sent[received], received + 1

    monkeypatch.setattr("torch.distributed.broadcast_object_list", broadcast)
    first, second = positions(monkeypatch, "same")
    assert first == second
    assert received == 3
    with pytest.raises(LossError, match="'own' or 'same'"):
        RandomPointLoss(across_processes="any")  # type: ignore[arg-type]


def test_one_process_draws_as_before() -> None:
    loss = RandomPointLoss(generator=torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    assert [loss.position() for _ in range(2)] == [
        0.4 + (0.6 - 0.4) * float(torch.rand((), generator=generator)) for _ in range(2)
    ]
