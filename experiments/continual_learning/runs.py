"""One run of one method with one seed, kept in a file of its own so that it is made only once."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor

from experiments.continual_learning.benchmarks import Benchmark
from experiments.continual_learning.methods import build_learner
from experiments.reporting.json_files import read_json, write_json
from experiments.reporting.progress import EpochProgress
from sinkhorn_rebasin.metrics import average_accuracy, backward_transfer, forgetting, forward_transfer
from sinkhorn_rebasin.training.continual import ContinualLearner, learn_tasks


@dataclass(frozen=True)
class Run:
    """What a finished run leaves.

    `matrix` holds accuracies on all tasks (columns) after each (rows), `initial` those of the untrained network, as
    fractions, None where nothing was tested. `seconds` of a run that was stopped and gone on with are those of its
    last part, and `resumed` says so.
    """

    method: str
    seed: int
    matrix: list[list[float | None]]
    initial: list[float | None]
    seconds: float
    resumed: bool

    def tensor(self) -> Tensor:
        """The accuracy matrix, with NaN where nothing was tested."""
        return _tensor(self.matrix)

    def figures(self) -> dict[str, float | None]:
        """Average accuracy and, where the whole matrix is known, forgetting and transfer, in percent."""
        matrix, initial = self.tensor(), _tensor([self.initial])[0]
        known = not bool(matrix.isnan().any())
        return {
            "average accuracy": 100 * float(average_accuracy(matrix)),
            "forgetting": 100 * float(forgetting(matrix)) if known else None,
            "backward transfer": 100 * float(backward_transfer(matrix)) if known else None,
            "forward transfer": 100 * float(forward_transfer(matrix, initial)) if known else None,
            "learning accuracy": 100 * float(matrix.diagonal().mean()) if known else None,
            "seconds": self.seconds,
        }


def finished_run(
    benchmark: Benchmark, method: str, seed: int, config: dict[str, Any], folder: Path, *, per_class: int
) -> Run:
    """Return the run of this configuration, made now, gone on with, or read back from the folder."""
    learner = _learner(benchmark, method, seed, per_class)
    config = {**config, "options": _options(learner)}
    stem = f"{method}-seed{seed}".replace(" ", "_").replace(",", "").replace("+", "p")
    file, checkpoint = folder / f"{stem}.json", folder / f"{stem}.ckpt"
    folder.mkdir(parents=True, exist_ok=True)
    if file.is_file():
        kept = read_json(file)
        if kept["config"] == config:
            return Run(**kept["run"])
    note = folder / f"{stem}.config.json"
    if not (note.is_file() and read_json(note) == config):
        checkpoint.unlink(missing_ok=True)
    write_json(note, config)
    run = _made(benchmark, learner, method, seed, checkpoint)
    write_json(file, {"config": config, "run": asdict(run)}, indent=1)
    checkpoint.unlink(missing_ok=True)
    note.unlink()
    return run


def _learner(benchmark: Benchmark, method: str, seed: int, per_class: int) -> ContinualLearner:
    """A fresh learner."""
    lightning.seed_everything(seed, verbose=False)
    return build_learner(
        method,
        benchmark.network(seed),
        len(benchmark.datamodules),
        benchmark.example_inputs(),
        classes=benchmark.classes,
        per_class=per_class,
        seed=seed,
    )


def _options(learner: ContinualLearner) -> dict[str, float | str | None]:
    """The numbers and words a learner was made with: a run belongs to them."""
    kept = {name: value for name, value in vars(learner).items() if isinstance(value, (int, float, str))}
    options = {name: value for name, value in kept.items() if not name.startswith("_") and name != "training"}
    factory = learner.optimizer_factory
    return {
        "learner": type(learner).__name__,
        **options,
        "optimizer": None if factory is None else getattr(factory, "__name__", repr(factory)),
    }


def _made(benchmark: Benchmark, learner: ContinualLearner, method: str, seed: int, checkpoint: Path) -> Run:
    tasks = len(benchmark.datamodules)
    progress = EpochProgress(f"{method}, seed {seed}", tasks * benchmark.epochs)
    resumed, start = checkpoint.is_file(), time.perf_counter()
    with progress:
        matrix = learn_tasks(
            learner,
            benchmark.datamodules,
            lambda: _trainer(benchmark.epochs, progress, checkpoint.parent),
            checkpoint=checkpoint,
        )
    seconds = time.perf_counter() - start
    numbers = [_numbers(row) for row in matrix]
    return Run(method, seed, numbers, _numbers(learner.initial_accuracies()), seconds, resumed)


def _trainer(epochs: int, progress: lightning.Callback, folder: Path) -> lightning.Trainer:
    return lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[progress],
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _numbers(row: Tensor) -> list[float | None]:
    return [None if value != value else value for value in row.double().tolist()]


def _tensor(rows: list[Any]) -> Tensor:
    return torch.tensor([[float("nan") if value is None else value for value in row] for row in rows])
