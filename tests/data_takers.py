"""Everything of the package that takes data, run on some."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.activations.batch_norm import batch_norm_statistics
from sinkhorn_rebasin.activations.statistics import paired_moments
from sinkhorn_rebasin.connectivity import LinearPath
from sinkhorn_rebasin.connectivity.batch_scores import batch_scores
from sinkhorn_rebasin.connectivity.evaluate_path import evaluate_state, scores_along
from sinkhorn_rebasin.matching.midpoint import Midpoint
from sinkhorn_rebasin.merging import pairwise_barriers
from sinkhorn_rebasin.merging.fusing import fused
from sinkhorn_rebasin.training import continual
from tests.fitted_module import fitted
from tests.landscape_takers import LANDSCAPE
from tests.partial_takers import PARTIAL
from tests.taken_networks import Net, networks


def monitored(data: Any, batch: Any) -> Any:
    a, b, spec = networks()
    monitor = sr.training.BarrierMonitor(data, points=3, repair=data, batch=batch)
    module = sr.training.RebasinModule(sr.SinkhornRebasin(a, b, spec=spec), sr.WeightDistance("l2"))
    fitted(module, [0, 1], monitor)
    return [evaluation.losses for _, evaluation in monitor.history]


def trained(loss: Any, data: Any, batch: Any) -> Any:
    a, b, spec = networks()
    module = sr.training.RebasinModule(sr.SinkhornRebasin(a, b, spec=spec), loss, batch=batch)
    return [
        tensor for name, tensor in fitted(module, list(data)).items() if name.startswith("rebasin.scores")
    ]


def learned(data: Any, batch: Any) -> Any:
    learner = continual.ExperienceReplay(networks()[0], 1, batch=batch)
    return [tensor for name, tensor in fitted(learner, list(data)).items() if name.startswith("network")]


def jointly(data: Any, batch: Any) -> Any:
    learner = continual.JointTraining(networks()[0], 1, batch=batch)
    given = [[one] for one in data]
    learner.validation_step = lambda *_: None  # type: ignore[method-assign]
    return [tensor for name, tensor in fitted(learner, given).items() if name.startswith("network")]


def elastic(data: Any, batch: Any) -> Any:
    return list(
        fitted(continual.ElasticWeightConsolidation(networks()[0], 1, batch=batch), list(data)).values()
    )


def carried(data: Any, batch: Any) -> Any:
    base, new_base, spec = networks()
    tuned = Net().eval()
    update = sr.carry(tuned, base, new_base, spec=spec, data=data, validation=data, criterion=CE, batch=batch)
    return list(update.state.values())


def called(loss: Callable[..., Any], data: Any) -> Tensor:
    a, b, spec = networks()
    value: Tensor = loss(sr.SinkhornRebasin(a, b, spec=spec), data[0])
    return value.detach()


def continual_loss(data: Any, batch: Any) -> Tensor:
    a, _, spec = networks()
    rebasin = sr.SinkhornRebasin(a, a, spec=spec, start="identity")
    loss: Tensor = sr.ContinualLoss(F.cross_entropy, batch=batch)(rebasin, {}, data[0])
    return loss.detach()


def repaired_loss(data: Any, batch: Any) -> Tensor:
    a, b, spec = networks()
    repair = sr.RepairAlongPath(a, b, spec, data, batch=batch)
    return called(sr.RepairLoss(F.cross_entropy, repair, 0.5, 0.5, batch=batch), data)


def repaired_simplex(data: Any, batch: Any) -> Tensor:
    a, b, spec = networks()
    repair = sr.RepairAlongPath(a, [b, a], spec, data, batch=batch)
    loss = sr.RepairSimplexLoss(CE, repair, float("inf"), batch=batch)
    return loss(sr.JointRebasin([a, b, a], spec=spec), data[0]).detach()


def barriers(data: Any, batch: Any) -> Tensor:
    a, b, spec = networks()
    return pairwise_barriers([a, b], spec, data, CE, statistics=data, repair=True, batch=batch)


def barriers_of_many(data: Any, batch: Any) -> Tensor:
    a, b, spec = networks()
    return sr.match_many([a, b], spec).barriers([a, b], data, criterion=CE, batch=batch)


def repaired_mean(data: Any, batch: Any) -> list[Tensor]:
    a, b, spec = networks()
    many = sr.match_many([a, b, a], spec)
    return list(many.to_model([a, b, a], repair=data, batch=batch).state_dict().values())


def moments(data: Any, batch: Any) -> Any:
    a, b, spec = networks()
    found = paired_moments(a, a.state_dict(), b.state_dict(), spec, data, batch=batch)
    return [pair.cross for _, pair in found.values()]


def matched(method: Callable[..., sr.Alignment], **options: Any) -> Callable[[Any, Any], Any]:
    return lambda data, batch: list(
        method(*networks(), data=data, batch=batch, **options).permutations.values()
    )


def at_midpoint(data: Any, batch: Any) -> float:
    a, b, spec = networks()
    return Midpoint(a, b, spec, data, F.cross_entropy, batch).loss(sr.identity_permutations(spec))


def merged(data: Any, batch: Any) -> Any:
    a, b, spec = networks()
    return list(
        sr.SinkhornRebasin(a, b, spec=spec).merge(0.5, repair=data, batch=batch).state_dict().values()
    )


def jointly_merged(data: Any, batch: Any) -> Any:
    a, b, spec = networks()
    return list(sr.JointRebasin([a, b, a], spec=spec).merge(repair=data, batch=batch).state_dict().values())


def fused_by(way: Callable[..., Any], **options: Any) -> Callable[[Any, Any], Any]:
    """Fuse two networks by a function of (networks, alignments, data)."""

    def run(data: Any, batch: Any) -> Any:
        a, b, spec = networks()
        found = way([a, b], sr.match_many([a, b], spec), data=[data, data], batch=batch, **options)
        return [tensor.float() for tensor in found.values()]

    return run


def merged_by_method(networks: Any, many: sr.ManyAlignment, **options: Any) -> Any:
    return many.merge(networks, fusion="regmean", **options)


def fused_result(data: Any, batch: Any) -> Any:
    a, b, spec = networks()
    found = sr.align(a, b, spec=spec, rescale=False, symmetry="permutation")
    return [tensor.float() for tensor in found.fused("regmean", data=[data, data], batch=batch).values()]


def aligned_together(data: Any, batch: Any) -> Any:
    a, b, spec = networks()
    recipe = sr.Recipe.many(steps=2, closing_steps=0)
    options: dict[str, Any] = {"validation": data, "rescale": False, "progress": False, "recipe": recipe}
    found = sr.align_many([a, b, a], spec, train=data, batch=batch, trainer={"accelerator": "cpu"}, **options)
    return [order for alignment in found for order in alignment.permutations.values()]


def at_simplex(data: Any, batch: Any) -> Tensor:
    a, b, spec = networks()
    loss = sr.SimplexLoss(CE, float("inf"), batch=batch)
    return loss(sr.JointRebasin([a, b, a], spec=spec), data[0]).detach()


def scores(data: Any, batch: Any) -> list[float | None]:
    a, b, _ = networks()
    comparison = sr.compare([a, b], a, data, CE, batch=batch)
    assert comparison.ensemble is not None
    measured = *comparison.members, comparison.merged, comparison.ensemble
    return [figure for score in measured for figure in (score.loss, score.accuracy)]


def carrying(data: Any, batch: Any) -> Any:
    base, new_base, spec = networks()
    tuned = Net().eval()
    module = sr.training.CarryModule(sr.SinkhornRebasin(new_base, base, spec=spec), tuned, batch=batch)
    return [
        tensor for name, tensor in fitted(module, list(data)).items() if name.startswith("rebasin.scores")
    ]


def fisher(function: Callable[..., Any]) -> Callable[[Any, Any], float]:
    def traced(data: Any, batch: Any) -> float:
        found: float = function(networks()[0], data, labels="observed", batch=batch).trace()
        return found

    return traced


CE = F.cross_entropy
# What is run, by the name of the function or class that takes the adapter.
RUN: dict[str, Callable[[Any, Any], Any]] = {
    "BarrierMonitor": monitored,
    **PARTIAL,
    **LANDSCAPE,
    "BatchNormReset": lambda d, b: list(
        sr.BatchNormReset(d, batch=b)(networks()[0], networks()[0].state_dict()).values()
    ),
    "ContinualLearner": learned,
    "CarryModule": carrying,
    "carry": carried,
    "ContinualLoss": continual_loss,
    "ElasticWeightConsolidation": elastic,
    "JointRebasin.merge": jointly_merged,
    "JointTraining": jointly,
    "Midpoint": at_midpoint,
    "MidpointLoss": lambda d, b: called(sr.MidpointLoss(CE, batch=b), d),
    "RandomPointLoss": lambda d, b: called(sr.RandomPointLoss(CE, 0.5, 0.5, batch=b), d),
    "RebasinModule": lambda d, b: trained(sr.MidpointLoss(CE), d, b),
    "RepairAlongPath": lambda d, b: list(sr.RepairAlongPath(*networks(), d, batch=b).start_moments["a"].mean),
    "RepairLoss": repaired_loss,
    "RepairSimplexLoss": repaired_simplex,
    "ManyAlignment.to_model": repaired_mean,
    "ManyAlignment.barriers": barriers_of_many,
    "mean_network": repaired_mean,
    "pairwise_barriers": barriers,
    "RebasedSegment.merge": merged,
    "SimplexLoss": at_simplex,
    "AlignmentResult.fused": fused_result,
    "ManyAlignment.merge": fused_by(merged_by_method),
    "EnsembleTargets": lambda d, b: [sr.EnsembleTargets(networks()[:2], batch=b)(each)[1] for each in d],
    "activation_matching": matched(sr.activation_matching),
    "align_many": aligned_together,
    "batch_norm_statistics": lambda d, b: list(
        batch_norm_statistics(networks()[0], networks()[0].state_dict(), d, batch=b).values()
    ),
    "batch_scores": lambda d, b: batch_scores(networks()[0], networks()[0].state_dict(), d, batch=b).losses,
    "compare": scores,
    "diagonal_fisher": fisher(sr.diagonal_fisher),
    "evaluate_path": lambda d, b: sr.evaluate_path(networks()[:2], d, points=3, batch=b).losses,
    "scores_along": lambda d, b: [
        each.losses for each in scores_along(LinearPath.between(*networks()[:2]), [0.0, 0.5], d, batch=b)
    ],
    "evaluate_state": lambda d, b: evaluate_state(networks()[0], networks()[0].state_dict(), d, batch=b)[0],
    "fisher": fused_by(sr.fisher),
    "fused": fused_by(lambda nets, many, data, batch: fused(nets, many, "regmean", data, batch=batch)),
    "gram_matrices": lambda d, b: [
        each.matrix for each in sr.gram_matrices(networks()[0], d, batch=b).layers.values()
    ],
    "kronecker_fisher": fisher(sr.kronecker_fisher),
    "merge_many": fused_by(sr.merge_many, fusion="regmean"),
    "paired_moments": moments,
    "regmean": fused_by(sr.regmean),
    "regmean_plus_plus": fused_by(sr.regmean_plus_plus),
    "repair": lambda d, b: list(sr.repair(networks()[0], *networks(), d, batch=b).state_dict().values()),
    "reset_batch_norm": lambda d, b: list(
        sr.reset_batch_norm(networks()[0], d, batch=b).state_dict().values()
    ),
    "simulated_annealing": matched(sr.simulated_annealing, criterion=CE, steps=2),
    "sinkhorn_matching": matched(sr.sinkhorn_matching, loss="midpoint", criterion=CE, steps=2),
    "straight_through": matched(sr.straight_through, criterion=CE, epochs=1),
}
