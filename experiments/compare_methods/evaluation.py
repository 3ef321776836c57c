"""What the table says of one outcome: the path as it is and with REPAIR, and that the function stayed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from experiments.compare_methods.pair import Outcome, Pair
from experiments.compare_methods.setting import Evaluation
from sinkhorn_rebasin import LinearPath, PathEvaluation, RepairAlongPath, evaluate_path
from sinkhorn_rebasin._typing import Permutations
from sinkhorn_rebasin.metrics import relative_change
from sinkhorn_rebasin.metrics.functional import count_agreeing
from sinkhorn_rebasin.networks.execution import run_at

BATCH = 500
CHANGE_IMAGES = 1000


def evaluate(pair: Pair, outcome: Outcome, evaluation: Evaluation) -> dict[str, Any]:
    """Test path, test path with REPAIR, training path, and the change of the target's function."""
    reference = pair.reference.state_dict() if outcome.reference is None else outcome.reference
    path = LinearPath(
        pair.reference if outcome.network is None else outcome.network, outcome.rebased, reference
    )
    data, points = pair.data, evaluation.points
    test = _batches(data.test_images, data.test_labels, evaluation.test_images)
    train = _batches(data.train_images, data.train_labels, evaluation.train_images)
    with torch.autocast("cpu", torch.bfloat16, enabled=evaluation.bfloat16):
        repair = RepairAlongPath(
            path.module_at(1.0),
            path.module_at(0.0),
            pair.spec if outcome.spec is None else outcome.spec,
            pair.batches(evaluation.repair_images, BATCH),
        )
        plain = evaluate_path(path, test, _cross_entropy, points=points, progress=True)
        repaired = evaluate_path(path, test, _cross_entropy, points=points, prepare=repair, progress=True)
        trained = evaluate_path(path, train, _cross_entropy, points=points)
    return {
        **_figures("test", plain),
        **_figures("repaired", repaired),
        **_figures("train", trained),
        "endpoint_accuracy": sum(plain.endpoint_accuracies or (0.0, 0.0)) / 2,
        "relative_change": function_change(pair, outcome),
    }


def function_change(pair: Pair, outcome: Outcome) -> float:
    """Relative change of the target's output, in the type it was trained in."""
    images = pair.data.test_images[:CHANGE_IMAGES]
    network = pair.target if outcome.network is None else outcome.network
    with torch.no_grad():
        return float(relative_change(pair.target(images), run_at(network, outcome.rebased, images)))


def agreement(found: Permutations, matched: Permutations) -> dict[str, float]:
    """Per group, the share of units that two methods put in the same place."""
    shares = {}
    for name, indices in found.items():
        same, units = count_agreeing(indices, matched[name])
        shares[name] = same / units
    return shares


def _cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(outputs.float(), labels)


def _figures(name: str, path: PathEvaluation) -> dict[str, Any]:
    return {
        f"{name}_barrier": path.barrier,
        f"{name}_auc": path.auc,
        f"{name}_midpoint_accuracy": path.midpoint_accuracy,
        f"{name}_path": path.to_dict(),
    }


def _batches(images: Tensor, labels: Tensor, count: int | None) -> list[tuple[Tensor, Tensor]]:
    """The first images and labels in parts small enough for the cache."""
    return list(zip(images[:count].split(BATCH), labels[:count].split(BATCH), strict=True))
