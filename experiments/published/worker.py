"""The published implementation's process: one JSON request a line in, one JSON answer a line out.

PYTHON_OF_THE_PUBLISHED_ENVIRONMENT -m experiments.published.worker THREADS
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

import torch

# What its code is known to raise: linear algebra, shapes, unknown graph nodes, failed assertions.
RAISED = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Do the job a request names and return its answer, or what it raised."""
    jobs = importlib.import_module(f"experiments.published.{request.pop('job')}")
    try:
        result: dict[str, Any] = jobs.run(**request)
    except RAISED as error:
        return {"raised": f"{type(error).__name__}: {error}"}
    return result


def main() -> None:
    """Answer until the input ends."""
    torch.set_num_threads(int(sys.argv[1]))
    # The answers get the real standard output; whatever the package prints goes to the errors.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
