"""Bends that are trained, and curves that are measured."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.curves.setting import Setting, Way
from experiments.data import ImageData
from experiments.models.family import Batches, batches_of
from experiments.models.training import augmented
from experiments.what_pays.task import mean_of_probabilities
from sinkhorn_rebasin import BatchNormReset, PathEvaluation, SinkhornRebasin, evaluate_path
from sinkhorn_rebasin.connectivity import LearnedCurve
from sinkhorn_rebasin.training import AlternatingCurveModule, CosineAnnealing, CurveModule

PROXIMAL_TEMPERATURE = 0.2


def trained(
    curve: LearnedCurve, data: ImageData, setting: Setting, way: Way, steps: int, seed: int
) -> LearnedCurve:
    """Return a copy of a curve after so many steps of its bend."""
    adam = partial(torch.optim.Adam, lr=way.rate, betas=(0.9, 0.99)) if way.optimizer == "adam" else None
    options: dict[str, Any] = {"lr": way.rate, "weight_decay": way.weight_decay, "optimizer": adam}
    if way.distilled:
        ends = [copy.deepcopy(network).eval() for network in (curve.start, curve.end)]
        options["batch"] = partial(softened, networks=ends, share=way.distilled)
    module = CurveModule(copy.deepcopy(curve), F.cross_entropy, **options)
    draw = torch.Generator().manual_seed(seed)
    options = {"bfloat16": setting.training.bfloat16, "prepare": preparation(way)}
    annealing = CosineAnnealing(steps) if way.annealed else None
    optimizer = module.configure_optimizers()
    bend(module, optimizer, data, steps, setting.batch_size, draw, annealing=annealing, **options)
    return module.curve


@torch.no_grad()
def softened(
    batch: tuple[Tensor, Tensor], networks: Sequence[nn.Module], share: float
) -> tuple[Tensor, Tensor]:
    """Mix labels with what networks say together.

    >>> flat = lambda images: torch.zeros(len(images), 4)
    >>> softened((torch.ones(1, 2), torch.tensor([1])), [flat, flat], 0.5)[1]
    tensor([[0.1250, 0.6250, 0.1250, 0.1250]])
    """
    images, labels = batch
    said = mean_of_probabilities([network(images).float() for network in networks])
    return images, share * said + (1 - share) * F.one_hot(labels, said.shape[1])


def preparation(way: Way) -> Callable[[Tensor], Tensor]:
    """Return what shifts or mirrors images.

    >>> preparation(Way())(torch.ones(1, 1, 2, 2)).sum()
    tensor(4.)
    """
    if way.augmented:
        return augmented
    return partial(augmented, reach=0) if way.mirrored else Tensor.clone


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
    *,
    bfloat16: bool = False,
    prepare: Callable[[Tensor], Tensor] = Tensor.clone,
    annealing: CosineAnnealing | None = None,
) -> None:
    """Train the bends of a curve for so many steps.

    Args:
        module, optimizer: of the curve.
        data: whose training images are drawn.
        steps: how many.
        batch_size: of each.
        draw: draws batches and points of the curve.
        bfloat16: run in mixed precision.
        prepare: from images to those that are learned from.
        annealing: of the optimiser's rates; without it they stay.
    """
    module.curve.train()
    rates = [group["lr"] for group in optimizer.param_groups]
    for step in range(steps):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate if annealing is None else rate * annealing.factor(step)
        batch = torch.randint(len(data.train_labels), (batch_size,), generator=draw)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (), generator=draw)))
            images = prepare(data.train_images[batch])
            images = as_fast(images) if bfloat16 else images
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                loss = module.training_step((images, data.train_labels[batch]), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def measured(curve: LearnedCurve, data: ImageData, batches: Batches, setting: Setting) -> PathEvaluation:
    """Return loss and accuracy along a curve; batch norm is measured at every point."""
    count = setting.norm_images
    seen = batches_of(data.train_images[:count], data.train_labels[:count])
    if setting.training.bfloat16:
        seen, batches = ([(as_fast(x), y) for x, y in part] for part in (seen, batches))
    prepare = BatchNormReset(seen)
    with torch.autocast("cpu", torch.bfloat16, enabled=setting.training.bfloat16):
        return evaluate_path(
            curve.path(), batches, float_cross_entropy, points=setting.points, prepare=prepare
        )


def as_fast(images: Tensor) -> Tensor:
    """Lay the channels of images out last in memory, which mixed precision on processors is fastest with.

    >>> as_fast(torch.zeros(2, 3, 4, 4)).stride()
    (48, 1, 12, 3)
    """
    return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images


def float_cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the cross entropy of outputs in single precision.

    >>> float_cross_entropy(torch.zeros(1, 2, dtype=torch.bfloat16), torch.tensor([0])).dtype
    torch.float32
    """
    return F.cross_entropy(outputs.float(), labels)


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
