from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import IterableDataset

from sinkhorn_rebasin import MidpointLoss, WeightDistance
from sinkhorn_rebasin.assignment.temperature import cosine, geometric, linear
from sinkhorn_rebasin.errors import AssignmentError
from sinkhorn_rebasin.training import RebasinModule, TemperatureAnnealing, data_free_steps
from tests.rebasin.rebasin_problems import built
from tests.training.fitting import Recorder, loader, trainer


def temperatures(folder: Path, schedule: Any, batches: Any, **options: Any) -> Recorder:
    """What was recorded of a fit."""
    recorder = Recorder()
    module = RebasinModule(built()[2], MidpointLoss(F.cross_entropy))
    trainer(folder, callbacks=[TemperatureAnnealing(schedule), recorder], **options).fit(module, batches)
    return recorder


@pytest.mark.parametrize("schedule", [geometric(1.0, 0.1), linear(0.8, 0.2), cosine(1.0, 0.5)])
def test_every_step_has_the_temperature_of_the_schedule(tmp_path: Path, schedule: Any) -> None:
    found = temperatures(tmp_path, schedule, loader(), max_epochs=3)
    assert found.temperatures == pytest.approx([schedule(step / 14) for step in range(15)], rel=1e-6)
    assert found.temperatures[0] == pytest.approx(schedule(0.0), rel=1e-6)
    assert found.temperatures[-1] == pytest.approx(schedule(1.0), rel=1e-6)


@pytest.mark.parametrize("steps", [5, 7, 10, 15])
@pytest.mark.parametrize("cycles", [2, 3, 4])
def test_every_cycle_runs_from_the_beginning_to_the_end(tmp_path: Path, steps: int, cycles: int) -> None:
    recorder = Recorder()
    module = RebasinModule(built()[2], MidpointLoss(F.cross_entropy))
    annealing = TemperatureAnnealing(linear(1.0, 0.5), cycles)
    trainer(tmp_path, max_epochs=-1, max_steps=steps, callbacks=[annealing, recorder]).fit(module, loader())
    begins = [step for step in range(steps) if step * cycles // steps > (step - 1) * cycles // steps]
    lengths = [end - begin for begin, end in zip(begins, [*begins[1:], steps], strict=True)]
    expected = [1.0 - 0.5 * done / max(1, length - 1) for length in lengths for done in range(length)]
    assert recorder.temperatures == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"max_epochs": -1, "max_steps": 7}, 7),
        ({"max_epochs": 3, "max_steps": 7}, 7),
        ({"max_epochs": 3, "limit_train_batches": 2}, 6),
        ({"max_epochs": 1, "max_steps": 1}, 1),
    ],
)
def test_the_schedule_spans_whatever_run_the_trainer_makes(
    tmp_path: Path, options: dict[str, int], steps: int
) -> None:
    found = temperatures(tmp_path, linear(1.0, 0.5), loader(), **options)
    expected = [1.0 - 0.5 * step / max(1, steps - 1) for step in range(steps)]
    assert found.temperatures == pytest.approx(expected, rel=1e-6)


def test_batches_of_one_step_share_its_temperature(tmp_path: Path) -> None:
    found = temperatures(tmp_path, linear(1.0, 0.1), loader(), max_epochs=2, accumulate_grad_batches=2)
    # Five batches an epoch are steps of two, two and one batches, six steps in two epochs.
    step_of_batch = [0, 0, 1, 1, 2, 3, 3, 4, 4, 5]
    assert found.steps[-1] == 6
    assert found.temperatures == pytest.approx([1.0 - 0.9 * step / 5 for step in step_of_batch], rel=1e-6)


def test_data_of_unknown_length_need_max_steps(tmp_path: Path) -> None:
    class Endless(IterableDataset):
        def __iter__(self) -> Any:
            return iter(loader())

    batches = torch.utils.data.DataLoader(Endless(), batch_size=None)
    found = temperatures(tmp_path, linear(1.0, 0.5), batches, max_epochs=-1, max_steps=3)
    assert found.temperatures == pytest.approx([1.0, 0.75, 0.5])
    with pytest.raises(AssignmentError, match="max_steps"):
        temperatures(tmp_path, linear(1.0, 0.5), batches, max_epochs=2)


def test_a_run_without_end_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AssignmentError, match="no end"):
        temperatures(tmp_path, linear(1.0, 0.5), data_free_steps(3), max_epochs=-1)


def test_another_module_is_an_error(tmp_path: Path) -> None:
    class Other(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.inner = RebasinModule(built()[2], WeightDistance())

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return self.inner.training_step(batch, batch_idx)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return self.inner.configure_optimizers()

    annealing = TemperatureAnnealing(linear(1.0, 0.5))
    with pytest.raises(AssignmentError, match="Other"):
        trainer(tmp_path, callbacks=[annealing]).fit(Other(), data_free_steps(2))
