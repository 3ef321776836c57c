"""Run the published Sinkhorn operator in its own environment, one request after another.

Started by `experiments.sinkhorn_speed` with the interpreter of an environment that holds `sinkhorn-rebasin`.
Reads one JSON request per line and answers with one JSON line; tensors travel as .npy files. Only the file of
the operator is loaded, because importing the package around it needs torchvision.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch


def load_operator() -> ModuleType:
    """Load `rebasin/rebasinnet/sinkhorn.py` without its package."""
    package = importlib.util.find_spec("rebasin")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("Expected the package sinkhorn-rebasin but found none in this environment.")
    path = Path(package.submodule_search_locations[0]) / "rebasinnet" / "sinkhorn.py"
    spec = importlib.util.spec_from_file_location("published_sinkhorn", path)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError("Expected the operator of sinkhorn-rebasin but it could not be loaded.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answer(operator: ModuleType, request: dict[str, Any]) -> dict[str, float]:
    """Time one forward and backward pass and leave the matrix and the gradient in files."""
    scores = torch.from_numpy(np.load(request["scores"])).requires_grad_()
    weights = torch.from_numpy(np.load(request["weights"]))
    ones = torch.ones(scores.shape[-1])
    wall, begin = time.perf_counter(), time.process_time()
    matrix = operator.Sinkhorn.apply(-scores, ones, ones, request["iterations"], request["temperature"])
    middle = time.process_time()
    matrix.backward(weights)
    end, wall = time.process_time(), time.perf_counter() - wall
    if request.get("matrix"):
        np.save(request["matrix"], matrix.detach().numpy())
        np.save(request["gradient"], scores.grad.numpy())
    return {"forward": middle - begin, "backward": end - middle, "wall": wall}


def main() -> None:
    torch.set_num_threads(1)
    operator = load_operator()
    versions = {"sinkhorn-rebasin": metadata.version("sinkhorn-rebasin"), "torch": torch.__version__}
    print(json.dumps(versions), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(operator, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
