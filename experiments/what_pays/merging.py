"""Merges that take no steps: by weights, by activations, and with REPAIR."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import sinkhorn_rebasin
from experiments.what_pays.problem import Given, Problem
from sinkhorn_rebasin import ManyAlignment
from sinkhorn_rebasin.front.gain import PartLosses, simplest, together
from sinkhorn_rebasin.front.many_starts import by_activations
from sinkhorn_rebasin.merging.states import mean_state
from sinkhorn_rebasin.networks.resizing import resized

NOISE, MATCHED, MEASURED = 1000, 2000, 1000


@dataclass(frozen=True)
class Merge:
    """Hold a merge, and the networks that it is the mean of."""

    network: nn.Module
    aligned: Sequence[nn.Module]


def mean_of(networks: Sequence[nn.Module], alignment: ManyAlignment | None = None) -> Merge:
    """Return the mean of networks, aligned with the first or as they are."""
    if alignment is None:
        states = [network.state_dict() for network in networks]
    else:
        states = alignment.apply(networks)
    aligned = [resized(network, state) for network, state in zip(networks, states, strict=True)]
    return Merge(resized(networks[0], mean_state(states)), aligned)


def without_data(problem: Problem) -> dict[str, Merge]:
    """Return every merge that looks at no data, by its way."""
    networks, spec = problem.networks, problem.spec
    draw = torch.Generator().manual_seed(problem.group)
    matched = sinkhorn_rebasin.match_many(networks, spec, generator=draw)
    merges = {"plain mean": mean_of(networks), "weight matching": mean_of(networks, matched)}
    if len(networks) == 2:
        scaled = sinkhorn_rebasin.align(*networks, **options_of(problem))
        merges["weight matching and scales"] = Merge(scaled.merge(), [networks[0], scaled.to_model()])
    if problem.task.of_classes:
        merge, noise = merges["weight matching"], list(noise_of(problem).split(100))
        merges["weight matching, REPAIR on noise"] = Merge(
            repaired_merge(problem, merge, noise), merge.aligned
        )
    if problem.setting.share is not None:
        merges["weight matching, classes weighed"] = mean_of(weighed(problem), matched)
    return merges


def noise_of(problem: Problem) -> Tensor:
    """Draw inputs of the mean and deviation of standardized images."""
    shape = problem.pool.inputs.shape[1:]
    return torch.randn((NOISE, *shape), generator=torch.Generator().manual_seed(problem.group))


def options_of(problem: Problem) -> dict[str, object]:
    """Return what every call of the front door is told of a problem."""
    return {
        "example_inputs": problem.example,
        "spec": problem.spec,
        "rescale": problem.rescaling or False,
        "symmetry": "permutation",
        "progress": False,
        "seed": problem.group,
    }


def weighed(problem: Problem) -> list[nn.Module]:
    """Weigh each owner's classes by what it knows, as its answers to noise tell."""
    known = sinkhorn_rebasin.known_classes(problem.networks, noise_of(problem))
    return sinkhorn_rebasin.weigh_classes(problem.networks, known, head_of(problem))


def head_of(problem: Problem) -> str:
    """Name the layer that has one row a class."""
    tensors = [each.tensor for each in problem.spec.frozen if each.reason == "output of the network"]
    return tensors[0].rpartition(".")[0]


def with_data(problem: Problem, given: Given, merges: dict[str, Merge]) -> dict[str, Merge]:
    """Return every merge that looks at unlabelled data but takes no steps, by its way.

    Args:
        problem: with the networks.
        given: the samples.
        merges: those without data.
    """
    batches = list(given.train[0][:MATCHED].split(given.batch_size))
    by = by_activations(problem.networks, problem.spec, batches, None)[0]
    found = {"activation matching": mean_of(problem.networks, by)}
    for way, merge in (("weight matching", merges["weight matching"]), *found.copy().items()):
        repaired = repaired_merge(problem, merge, batches)
        found[f"{way}, REPAIR"] = Merge(repaired, merge.aligned)
    return found


def repaired_merge(problem: Problem, merge: Merge, batches: Sequence[Tensor]) -> nn.Module:
    """Put the statistics of a merge right."""
    first, *others = merge.aligned
    few = list(torch.cat(list(batches))[:MEASURED].split(len(batches[0])))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sinkhorn_rebasin.repair(merge.network, first, others, problem.spec, few)


def best_on_held_out(problem: Problem, given: Given, networks: dict[str, nn.Module]) -> tuple[str, nn.Module]:
    """Return the first network that none is visibly better than on held-out samples, and its name.

    Args:
        problem: with the task.
        given: the samples.
        networks: the simplest first; none was fitted to these samples.
    """
    losses = [problem.task.losses(each, given.held_out) for each in networks.values()]
    return list(networks.items())[simplest(losses)]


def best_merge(problem: Problem, given: Given, merges: dict[str, Merge], blind: dict[str, Merge]) -> str:
    """Name the first merge that none is visibly better than on held-out samples.

    Of few samples each fold decides on what is merged without it.

    Args:
        problem: with the task.
        given: the samples.
        merges: the simplest first.
        blind: those of them that look at no data.
    """
    if not given.folds:
        return best_on_held_out(problem, given, {way: each.network for way, each in merges.items()})[0]
    found: dict[str, list[PartLosses]] = {way: [] for way in merges}
    for fold in given.folds:
        for way, merge in (blind | with_data(problem, fold, blind)).items():
            found[way].append(problem.task.losses(merge.network, fold.held_out))
    return list(found)[simplest([together(each) for each in found.values()])]
