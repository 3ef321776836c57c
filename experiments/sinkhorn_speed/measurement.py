"""One row of the comparison: times of both operators in turn, and their errors against a true gradient."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from experiments.sinkhorn_speed.operators import Published, run_ours

LARGEST_TRUTH = 256
RUNS_PER_TURN = 4


def draw(kind: str, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Scores and the gradient that comes in from the loss."""
    noise = torch.randn(n, n, generator=generator)
    scores = torch.eye(n) + 0.1 * noise if kind == "identity" else noise
    return scores, torch.randn(n, n, generator=generator)


def true_gradient(scores: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """dL/dX at the fixed point, float64, without any code of the package."""
    log_matrix = scores.double() / temperature
    for _ in range(100_000):
        log_matrix = log_matrix - log_matrix.logsumexp(-1, keepdim=True)
        columns = log_matrix.logsumexp(-2, keepdim=True)
        log_matrix = log_matrix - columns
        if float(columns.abs().max()) < 1e-13:
            break
    matrix, weights = log_matrix.exp(), weights.double()
    eye, n = torch.eye(len(matrix), dtype=torch.float64), len(matrix)
    system = torch.cat([torch.cat([eye, matrix], 1), torch.cat([matrix.T, eye], 1)])[:-1, :-1]
    weighted = matrix * weights
    sums = torch.cat([weighted.sum(1), weighted.sum(0)[:-1]])
    potentials = torch.cat([torch.linalg.solve(system, sums), torch.zeros(1, dtype=torch.float64)])
    return (weighted - matrix * (potentials[:n, None] + potentials[None, n:])) / temperature


def marginal_error(matrix: Tensor) -> float:
    matrix = matrix.double()
    return max(float((matrix.sum(axis) - 1).abs().max()) for axis in (0, 1))


def relative_error(found: Tensor, truth: Tensor) -> float:
    return float(torch.linalg.vector_norm(found.double() - truth) / torch.linalg.vector_norm(truth))


def measure(
    published: Published, kind: str, n: int, temperature: float, turns: int, seed: int
) -> dict[str, Any]:
    """One row: both operators in turn, after one turn of each that is not counted."""
    scores, weights = draw(kind, n, torch.Generator().manual_seed(seed))
    published.load(scores, weights)
    ours, theirs = [], []
    for _ in range(turns + 1):
        runs = [run_ours(scores, weights, temperature) for _ in range(RUNS_PER_TURN)]
        ours.append([times for times, _, _ in runs])
        theirs.append([published.run(temperature) for _ in range(RUNS_PER_TURN)])
    times, matrix, gradient = runs[-1]
    their_matrix, their_gradient = published.output()
    row: dict[str, Any] = {
        "scores": kind,
        "n": n,
        "temperature": temperature,
        "iterations": times["iterations"],
    }
    row |= _summary("ours", ours[1:]) | _summary("published", theirs[1:])
    row["ratio"] = row["published_ms"] / row["ours_ms"]
    row["ratio_first"] = row["published_first_ms"] / row["ours_first_ms"]
    row["ratio_wall"] = row["published_wall_ms"] / row["ours_wall_ms"]
    row |= {"ours_marginal": marginal_error(matrix), "published_marginal": marginal_error(their_matrix)}
    if n <= LARGEST_TRUTH:
        truth = true_gradient(scores, weights, temperature)
        row["ours_gradient"] = relative_error(gradient, truth)
        row["published_gradient"] = relative_error(their_gradient, truth)
    return row


def _summary(name: str, turns: Sequence[Sequence[dict[str, float]]]) -> dict[str, float]:
    """Median milliseconds of the repeated runs and of the first ones, with interquartile ranges."""
    repeated = [run for turn in turns for run in turn[1:]]
    summary = {
        f"{name}_forward_ms": 1e3 * statistics.median(run["forward"] for run in repeated),
        f"{name}_backward_ms": 1e3 * statistics.median(run["backward"] for run in repeated),
        f"{name}_wall_ms": 1e3 * statistics.median(run["wall"] for run in repeated),
    }
    for label, runs in ((name, repeated), (f"{name}_first", [turn[0] for turn in turns])):
        total = [1e3 * (run["forward"] + run["backward"]) for run in runs]
        low, middle, high = statistics.quantiles(total, n=4, method="inclusive")
        summary |= {f"{label}_ms": middle, f"{label}_spread_ms": high - low}
    return summary
