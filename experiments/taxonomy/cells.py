"""One cell of the grid: two networks of one width and batch size, and how they are connected."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import sinkhorn_rebasin as sr
from experiments.curves.training import bend
from experiments.data import ImageData
from experiments.models.family import Batches, batches_of
from experiments.taxonomy.setting import Setting
from sinkhorn_rebasin import PathEvaluation
from sinkhorn_rebasin.connectivity import LearnedCurve
from sinkhorn_rebasin.metrics import curve_connectivity, linear_cka
from sinkhorn_rebasin.training import CurveModule


def cell_row(
    setting: Setting, width: int, batch_size: int, data: tuple[ImageData, Batches, Batches], cache: Path
) -> dict[str, Any]:
    """Train two networks, and measure how they are connected as they are and aligned."""
    images, held, tests = data
    own = of_cell(setting, width, batch_size)
    reference, target = (own.network(cache, images, seed) for seed in (0, 1))
    count = setting.match_images
    train = batches_of(images.train_images[:count], images.train_labels[:count])
    options: dict[str, Any] = {"recipe": setting.recipe, "progress": False, "trainer": {"accelerator": "cpu"}}
    aligned = sr.align(reference, target, train, held or None, **options).to_model()
    row: dict[str, Any] = {"width": width, "batch size": batch_size}
    for name, start in {"raw": target, "aligned": aligned}.items():
        segment, curve = curve_losses(start, reference, images, setting)
        row |= {name: curve_connectivity(curve), f"{name}, segment": curve_connectivity(segment)}
    with torch.no_grad():
        outputs = [torch.cat([network(x).softmax(1) for x, _ in tests]) for network in (reference, target)]
    labels = torch.cat([labels for _, labels in tests])
    right = [float((each.argmax(1) == labels).double().mean()) for each in outputs]
    return {**row, "accuracy": sum(right) / 2, "similarity": float(linear_cka(*outputs))}


def of_cell(setting: Setting, width: int, batch_size: int) -> Setting:
    """Return the setting of one cell."""
    arguments = {**setting.arguments, "widths": [width] * setting.layers}
    return replace(setting, arguments=arguments, training=replace(setting.training, batch_size=batch_size))


def curve_losses(
    target: nn.Module, reference: nn.Module, data: ImageData, setting: Setting
) -> tuple[PathEvaluation, PathEvaluation]:
    """Return training losses along the segment, and along a Bezier curve after its training."""
    curve = LearnedCurve(target, reference)
    module = CurveModule(curve, F.cross_entropy, lr=setting.curve_rate)
    batches = batches_of(data.train_images[: setting.path_images], data.train_labels[: setting.path_images])
    found = []
    for steps in (0, setting.curve_steps):
        draw = torch.Generator().manual_seed(0)
        bend(module, module.configure_optimizers(), data, steps, 100, draw)
        prepare = sr.BatchNormReset(batches, batches=2)
        found.append(
            sr.evaluate_path(curve.path(), batches, F.cross_entropy, points=setting.points, prepare=prepare)
        )
    return found[0], found[1]
