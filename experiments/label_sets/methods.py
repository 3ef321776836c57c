"""Every way to merge two networks of different classes, with the options that are chosen on held-out images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from experiments.label_sets.setting import Setting
from sinkhorn_rebasin import (
    Alignment,
    PermutationSpec,
    activation_matching,
    discover_symmetry,
    identity_permutations,
    weight_matching,
)
from sinkhorn_rebasin.merging import match_outputs, merge_trunks, pleas, zipit
from sinkhorn_rebasin.merging.fit_layers import Inputs

Way = Callable[[], nn.Module]
Ways = Callable[[], dict[str, Way]]
RIDGES = (1e-4, 1e-2)
BUDGETS = (1.0, 1.2)


@dataclass
class Problem:
    """Hold a pair of networks, and what methods may look at.

    Attributes:
        reference, target: the networks.
        spec: the symmetries.
        batches: unlabelled training images.
        learning_batches: the same in the batches of learning.
        setting: where it comes from.
    """

    reference: nn.Module
    target: nn.Module
    spec: PermutationSpec
    batches: list[Tensor]
    learning_batches: list[Tensor]
    setting: Setting

    @classmethod
    def of(cls, networks: list[nn.Module], images: Tensor, setting: Setting) -> Problem:
        """Find the symmetries, and split the images into batches."""
        spec = discover_symmetry(networks[0], images[:2])
        size = setting.learning.batch_size
        learning = [part for part in images.split(size) if len(part) == size]
        return cls(networks[0], networks[1], spec, list(images.split(250)), learning, setting)

    @property
    def heads(self) -> list[str]:
        """Name the tensors of the last layer."""
        return sorted({item.tensor for item in self.spec.frozen if item.reason == "output of the network"})


def methods(problem: Problem) -> Iterator[tuple[str, float, Ways]]:
    """Yield each method: its name, its cost in networks, and its options by name, of which one is chosen.

    Alignments are found when they are first needed, and used again.
    """
    found = Alignments(problem)
    for name in ("direct averaging", "weight matching", "activation matching"):
        yield name, 1.0, lambda name=name: {"": partial(averaged, problem, found[name])}
    yield (
        "ZipIt",
        1.0,
        lambda: {
            f"alpha {alpha}, beta {beta}": partial(_zipped, problem, alpha, beta)
            for alpha, beta in ((0.3, 0.0), (0.3, 0.25), (1.0, 0.0), (1.0, 1.0))
        },
    )
    for budget in BUDGETS:
        yield (
            f"PLeaS, {budget:.1f}x",
            budget,
            partial(_fitted, problem, found, budget, "activation matching", "ensemble"),
        )
    yield "ours, alignment alone", 1.0, lambda: {"": partial(averaged, problem, found["learned"])}
    for budget in BUDGETS:
        yield f"ours, {budget:.1f}x", budget, partial(_fitted, problem, found, budget, "learned", "merged")


class Alignments(dict[str, Alignment]):
    """Find alignments of the target by their names, each once."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem

    def __missing__(self, name: str) -> Alignment:
        problem, spec = self.problem, self.problem.spec
        pair = problem.reference, problem.target, spec
        if name == "direct averaging":
            self[name] = Alignment(identity_permutations(spec), spec)
        elif name == "weight matching":
            self[name] = weight_matching(*pair, ignore=problem.heads)
        elif name == "activation matching":
            self[name] = activation_matching(*pair, data=problem.batches, ignore=problem.heads)
        else:
            self[name] = learned_alignment(problem, self["activation matching"])
        return self[name]


def _fitted(
    problem: Problem, found: Alignments, budget: float, matching: str, inputs: Inputs
) -> dict[str, Way]:
    """Return merges by least squares, one a ridge."""
    pair = problem.reference, problem.target, problem.spec
    options: dict[str, Any] = {"budget": budget, "inputs": inputs, "positions": problem.setting.positions}
    return {
        f"ridge {ridge}": lambda ridge=ridge: (
            pleas(*pair, data=problem.batches, matching=found[matching], ridge=ridge, **options).network
        )
        for ridge in RIDGES
    }


def averaged(problem: Problem, alignment: Alignment) -> nn.Module:
    """Average both trunks along an alignment."""
    pair = problem.reference, problem.target, problem.spec
    return merge_trunks(*pair, alignment, data=problem.batches).network


def learned_alignment(problem: Problem, start: Alignment) -> Alignment:
    """Learn permutations with which the merged trunk answers as both networks do."""
    learning = problem.setting.learning
    pair = problem.reference, problem.target, problem.spec
    options = {"steps": learning.steps, "lr": learning.learning_rate, "every": max(1, learning.steps // 5)}
    with torch.autocast("cpu", torch.bfloat16, enabled=problem.setting.bfloat16):
        return match_outputs(*pair, data=problem.learning_batches, start=start, **options)


def _zipped(problem: Problem, alpha: float, beta: float) -> nn.Module:
    pair = problem.reference, problem.target, problem.spec
    return zipit(*pair, data=problem.batches, alpha=alpha, beta=beta).network
