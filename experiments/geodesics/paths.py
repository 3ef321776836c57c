"""Every way to match two networks, and every path between them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import sinkhorn_rebasin as sr
from experiments.data import ImageData
from experiments.geodesics.setting import Setting
from experiments.models.family import Batches, batches_of
from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.connectivity import GeodesicPath

LINE, NORMALISED, GEODESIC = "line", "line of normalised networks", "geodesic"


def measured(
    reference: nn.Module, target: nn.Module, data: ImageData, held: Batches, tests: Batches, setting: Setting
) -> list[dict[str, Any]]:
    """Return one row a matching and path, with its errors on training and test images."""
    count = setting.match_images
    train = batches_of(data.train_images[:count], data.train_labels[:count])
    example = train[0][0][:4]
    spec = sr.discover_symmetry(reference, example)
    rescaling = sr.discover_rescaling(reference, spec, example, signs=False)
    seen = batches_of(data.train_images[: setting.path_images], data.train_labels[: setting.path_images])
    rows = []
    for matching, moved in matched(reference, target, spec, train, held, setting).items():
        for name, path in paths(reference, moved, spec, rescaling).items():
            figures = {
                side: errors(path, batches, train, setting)
                for side, batches in (("train", seen), ("test", tests))
            }
            rows.append({"matching": matching, "path": name, **figures})
    return rows


def matched(
    reference: nn.Module,
    target: nn.Module,
    spec: sr.PermutationSpec,
    train: Batches,
    held: Batches,
    setting: Setting,
) -> dict[str, State]:
    """Return the weights of the target after every matching."""
    pair = reference, target, spec
    options: dict[str, Any] = {"recipe": setting.recipe, "progress": False, "trainer": {"accelerator": "cpu"}}
    learned = sr.align(reference, target, train, held or None, spec=spec, rescale=False, **options)
    return {
        "none": sr.Alignment(sr.identity_permutations(spec), spec).apply(target),
        "greedy cosine": sr.greedy_cosine(*pair).apply(target),
        "weight matching": sr.weight_matching(*pair, restarts=5).apply(target),
        "activation matching": sr.activation_matching(*pair, data=train).apply(target),
        "ours": learned.alignment.apply(target),
    }


def paths(
    reference: nn.Module, moved: State, spec: sr.PermutationSpec, rescaling: sr.RescalingSpec
) -> dict[str, sr.LinearPath | GeodesicPath]:
    """Return the segment, that of the normalised networks, and the geodesic."""
    network = reference.state_dict()
    geodesic = GeodesicPath(reference, moved, network, spec, rescaling)
    return {
        LINE: sr.LinearPath(reference, moved, network),
        NORMALISED: sr.LinearPath(reference, geodesic.start, geodesic.end),
        GEODESIC: geodesic,
    }


def errors(
    path: sr.LinearPath | GeodesicPath, batches: Batches, statistics: Batches, setting: Setting
) -> dict[str, Any]:
    """Return the error along a path, and how far it rises above the chord.

    Batch norm is measured at every point.
    """
    prepare = sr.BatchNormReset(statistics, batches=2)
    told = sr.evaluate_path(path, batches, points=setting.points, prepare=prepare)
    accuracies = torch.empty(0) if told.accuracies is None else told.accuracies
    return {
        "errors": (1 - accuracies).tolist(),
        "barrier": told.accuracy_barrier,
        "loss barrier": told.barrier,
        "largest": float(1 - accuracies.min()),
    }
