"""Bends that are trained and measured on the way."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from experiments.curves.setting import Setting
from experiments.data import ImageData
from experiments.models.family import Batches
from sinkhorn_rebasin import BatchNormReset, PathEvaluation, SinkhornRebasin, evaluate_path
from sinkhorn_rebasin.connectivity import LearnedCurve
from sinkhorn_rebasin.training import AlternatingCurveModule, CurveModule

PROXIMAL_TEMPERATURE = 0.2


def measured_curve(
    curve: LearnedCurve, data: ImageData, tests: Batches, setting: Setting, seed: int, before: int = 0
) -> list[dict[str, Any]]:
    """Train a quadratic Bezier curve, and measure it on test images at every checkpoint.

    It ends with the first checkpoint at which the curve is connected, or with the last.

    Args:
        curve: as it is before the first step.
        data: whose training images it learns from.
        tests: batches that it is measured on.
        setting: checkpoints and rates.
        seed: of what is drawn.
        before: steps that were taken already, which count.
    """
    module = CurveModule(curve, F.cross_entropy, lr=setting.rate, weight_decay=setting.weight_decay)
    optimizer, found, step = module.configure_optimizers(), list[dict[str, Any]](), 0
    draw = torch.Generator().manual_seed(seed)
    for checkpoint in setting.checkpoints:
        bend(module, optimizer, data, checkpoint - step, setting.batch_size, draw, setting.training.bfloat16)
        step = checkpoint
        path = measured(curve, data, tests, setting)
        found.append({"step": before + step, **path.to_dict(), "lowest": lowest(path), "short": short(path)})
        if connected(path, setting.tolerance):
            break
    return found


def alternated(
    reference: nn.Module, target: nn.Module, data: ImageData, setting: Setting, seed: int
) -> LearnedCurve:
    """Return a curve after the first half of a round of permutations and bends in turn.

    Permutations are learned at a fixed bend, from the order in which the units are.
    """
    rebasin = SinkhornRebasin(
        reference, target, data.train_images[:2], start="identity", temperature=PROXIMAL_TEMPERATURE
    )
    module = AlternatingCurveModule(rebasin, F.cross_entropy)
    draw = torch.Generator().manual_seed(seed)
    bend(module, module.configure_optimizers(), data, setting.alternation_steps, setting.batch_size, draw)
    module.take_permutations()
    return module.curve


def bend(
    module: CurveModule,
    optimizer: torch.optim.Optimizer,
    data: ImageData,
    steps: int,
    batch_size: int,
    draw: torch.Generator,
    bfloat16: bool = False,
) -> None:
    """Train the bends of a curve for so many steps.

    Args:
        module, optimizer: of the curve.
        data: whose training images are drawn.
        steps: how many.
        batch_size: of each.
        draw: draws batches and points of the curve.
        bfloat16: run in mixed precision.
    """
    module.curve.train()
    for step in range(steps):
        batch = torch.randint(len(data.train_labels), (batch_size,), generator=draw)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (), generator=draw)))
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                loss = module.training_step((data.train_images[batch], data.train_labels[batch]), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def measured(curve: LearnedCurve, data: ImageData, tests: Batches, setting: Setting) -> PathEvaluation:
    """Return loss and accuracy along a curve on test images; batch norm is measured at every point."""
    few = [(data.train_images[:500], data.train_labels[:500])]
    prepare = BatchNormReset(few)
    return evaluate_path(curve.path(), tests, F.cross_entropy, points=setting.points, prepare=prepare)


def lowest(path: PathEvaluation) -> float:
    """Return the lowest accuracy on a path.

    >>> lowest(PathEvaluation(torch.tensor([0.0, 0.5, 1.0]), torch.zeros(3), torch.tensor([0.9, 0.5, 0.8])))
    0.5
    """
    return float("nan") if path.accuracies is None else float(path.accuracies.min())


def short(path: PathEvaluation) -> float:
    """Return by how much the lowest accuracy on a path is below that of the worse end.

    >>> short(PathEvaluation(torch.tensor([0.0, 0.5, 1.0]), torch.zeros(3), torch.tensor([0.75, 0.5, 1.0])))
    0.25
    """
    return min(path.endpoint_accuracies or (float("nan"),)) - lowest(path)


def connected(path: PathEvaluation, tolerance: float) -> bool:
    """Tell whether accuracy stays within a tolerance of the worse end and the loss below the chord's.

    >>> bent = torch.tensor([1.0, 0.5, 1.0], dtype=torch.float64)
    >>> connected(PathEvaluation(torch.tensor([0.0, 0.5, 1.0]), bent, torch.ones(3)), 0.003)
    True
    """
    return short(path) <= tolerance and path.barrier <= 0
