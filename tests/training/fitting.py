"""Short fits on a small problem, shared by the tests of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from sinkhorn_rebasin import SinkhornRebasin
from sinkhorn_rebasin.training import RebasinModule


def dataset(samples: int = 20) -> TensorDataset:
    """Normal inputs with three random classes, always the same."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(samples, 5, generator=generator)
    return TensorDataset(inputs, torch.randint(3, (samples,), generator=generator))


def loader(batch_size: int = 4, samples: int = 20, shuffle: bool = False) -> DataLoader[Any]:
    """The dataset in batches."""
    return DataLoader(dataset(samples), batch_size, shuffle=shuffle)


def in_turn(batches: list[Any]) -> DataLoader[Any]:
    """Ready-made batches; Lightning takes a list for several dataloaders."""
    return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


def rescaling(seed: int = 0) -> SinkhornRebasin:
    """A small re-basin that learns scales."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pair = (nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)) for _ in range(2))
        return SinkhornRebasin(*pair, torch.randn(2, 5), rescale=True)


def trainer(folder: Path, **options: Any) -> lightning.Trainer:
    """A quiet Trainer on the CPU."""
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    saving = {"enable_checkpointing": "checkpoint" in str(options.get("callbacks", "")).lower()}
    return lightning.Trainer(
        accelerator="cpu", default_root_dir=folder, **{"max_epochs": 2, **quiet, **saving, **options}
    )


def scores_of(module: RebasinModule) -> dict[str, Tensor]:
    """A copy of the scores."""
    return {name: scores.detach().clone() for name, scores in module.rebasin.scores.items()}


class Recorder(lightning.Callback):
    """Writes down the temperature and the scores of every step."""

    def __init__(self) -> None:
        self.temperatures: list[float] = []
        self.steps: list[int] = []
        self.scores: list[dict[str, Tensor]] = []

    def on_before_zero_grad(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, optimizer: Any
    ) -> None:
        """Called in every optimiser step."""
        assert isinstance(pl_module, RebasinModule)
        self.scores.append(scores_of(pl_module))

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: Any
    ) -> None:
        """Called after every batch."""
        assert isinstance(pl_module, RebasinModule)
        self.temperatures.append(float(pl_module.rebasin.temperature))
        self.steps.append(trainer.global_step)
