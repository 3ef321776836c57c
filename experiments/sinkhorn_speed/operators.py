"""One timed forward and backward pass of each operator: ours here, the published one in a process of its own."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sinkhorn_rebasin.assignment import sinkhorn

WORKER = Path(__file__).parents[1] / "published" / "sinkhorn_operator.py"
TOLERANCES = {1.0: 1e-4, 0.3: 1e-4, 0.1: 1e-3}
PUBLISHED_ITERATIONS = 20


class Published:
    """The published operator in a process of its own."""

    def __init__(self, python: str, folder: Path) -> None:
        self._paths = {
            name: str(folder / f"{name}.npy") for name in ("scores", "weights", "matrix", "gradient")
        }
        self._process = subprocess.Popen(
            [python, "-I", str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.versions = self._read()

    def __enter__(self) -> Published:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("Expected an answer of the published operator but its process ended.")
        return json.loads(line)

    def load(self, scores: Tensor, weights: Tensor) -> None:
        np.save(self._paths["scores"], scores.numpy())
        np.save(self._paths["weights"], weights.numpy())

    def run(self, temperature: float) -> dict[str, float]:
        assert self._process.stdin is not None
        request = {**self._paths, "temperature": temperature, "iterations": PUBLISHED_ITERATIONS}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._read()

    def output(self) -> tuple[Tensor, Tensor]:
        matrix, gradient = (torch.from_numpy(np.load(self._paths[name])) for name in ("matrix", "gradient"))
        return matrix, gradient


def run_ours(scores: Tensor, weights: Tensor, temperature: float) -> tuple[dict[str, float], Tensor, Tensor]:
    """Time one forward and backward pass."""
    leaf = scores.clone().requires_grad_()
    wall, begin = time.perf_counter(), time.process_time()
    result = sinkhorn(leaf, temperature, tolerance=TOLERANCES[temperature])
    middle = time.process_time()
    result.matrix.backward(weights)
    end, wall = time.process_time(), time.perf_counter() - wall
    assert leaf.grad is not None
    times = {
        "forward": middle - begin,
        "backward": end - middle,
        "wall": wall,
        "iterations": result.iterations,
    }
    return times, result.matrix.detach(), leaf.grad
