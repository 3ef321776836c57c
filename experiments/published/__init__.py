"""The published implementation of Sinkhorn re-basin, run as it is, in an environment and a process of its own.

Source: F. A. Guerrero Peña, H. R. Medeiros, T. Dubail, M. Aminbeidokhti, E. Granger and M. Pedersoli, "Re-basin via
implicit Sinkhorn differentiation" (CVPR 2023); PyPI `sinkhorn-rebasin` 0.0.2, imported as `rebasin`.

Make its environment once, in the root of the checkout:

    python -m venv .venv-published
    .venv-published/bin/pip install torch==2.13.0 numpy==2.4.6 scipy==1.17.1
    .venv-published/bin/pip install torchviz==0.0.3 safetensors==0.8.0
    .venv-published/bin/pip install --no-deps sinkhorn-rebasin==0.0.2
    export PUBLISHED_PYTHON=.venv-published/bin/python

(`--no-deps` leaves out torchvision, matplotlib and tqdm, which the package asks for and never imports.)

`client` runs in this project's environment: it starts `worker` with the other Python and talks to it in lines of
JSON, tensors passing through safetensors files in a temporary folder. `worker`, `midpoint`, `planted` and
`step_cost` run in the other environment and import nothing of this project but `experiments.models` and
`experiments.step_cost.memory`; that is why the names of `client` are loaded here only when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.published.client import (
        PublishedError,
        PublishedWorker,
        published_midpoint,
        published_planted,
        published_python,
        published_step_cost,
    )

__all__ = [
    "PublishedError",
    "PublishedWorker",
    "published_midpoint",
    "published_planted",
    "published_python",
    "published_step_cost",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("experiments.published.client"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
