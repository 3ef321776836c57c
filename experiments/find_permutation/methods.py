"""Finds a planted permutation by each method."""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from torch import Tensor, nn

from experiments.find_permutation.problems import Problem
from experiments.published import PublishedError, published_planted
from sinkhorn_rebasin import SinkhornRebasin, WeightDistance, weight_matching
from sinkhorn_rebasin.metrics.functional import permutation_recovery
from sinkhorn_rebasin.permutations import PermutationSpec


def ours(
    problem: Problem,
    reference: nn.Module,
    target: nn.Module,
    spec: PermutationSpec,
    answer: dict[str, Tensor],
    seed: int,
) -> dict[str, Any]:
    """Train the scores until the hard permutation is the planted one; the time includes that comparison."""
    rebasin = SinkhornRebasin(
        reference,
        target,
        spec=spec,
        start="identity",
        noise=0.1,
        tolerance=1e-3,
        check=False,
        generator=torch.Generator().manual_seed(seed),
    )
    loss = WeightDistance("l2")
    optimizer = torch.optim.Adam(rebasin.parameters(), lr=problem.learning_rate, betas=(0.0, 0.9))
    started = time.perf_counter()
    found = rebasin.hard_permutations()
    for iteration in range(1, problem.iterations + 1):
        optimizer.zero_grad()
        loss(rebasin).backward()
        optimizer.step()
        found = rebasin.hard_permutations()
        if all(torch.equal(found[name], answer[name]) for name in answer):
            return {"iteration": iteration, "seconds": time.perf_counter() - started, "recovered": 1.0}
    seconds, recovered = time.perf_counter() - started, float(permutation_recovery(found, answer))
    return {"iteration": None, "seconds": seconds, "recovered": recovered}


def matched(
    reference: nn.Module,
    target: nn.Module,
    spec: PermutationSpec,
    answer: dict[str, Tensor],
    seed: int,
    start: Any,
) -> dict[str, Any]:
    """Weight matching from one order of the groups; an iteration is one pass over all of them."""
    started = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    alignment = weight_matching(reference, target, spec, generator=generator, start=start)
    seconds = time.perf_counter() - started
    found = dict(alignment.permutations)
    exact = all(torch.equal(found[name], answer[name]) for name in answer)
    return {
        "iteration": len(alignment.objective) if exact else None,
        "seconds": seconds,
        "recovered": float(permutation_recovery(found, answer)),
    }


def published(
    problem: Problem, reference: nn.Module, target: nn.Module, options: argparse.Namespace, seed: int
) -> dict[str, Any]:
    """The published implementation on the same pair, from its own start."""
    try:
        result = published_planted(
            options.published_python,
            problem.architecture,
            reference.state_dict(),
            target.state_dict(),
            iterations=problem.iterations,
            lr=problem.published_learning_rate,
            seed=seed,
            threads=options.threads,
        )
    except PublishedError as error:
        return {"iteration": None, "seconds": None, "error": str(error)[:200]}
    return {"iteration": result["iteration"], "seconds": result["seconds"], "error": result["error"]}
