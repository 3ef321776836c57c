"""Whatever trains or measures a network that runs layers again gives what it gives for one that does not."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from sinkhorn_rebasin import (
    MidpointLoss,
    SinkhornRebasin,
    diagonal_fisher,
    discover_rescaling,
    discover_symmetry,
    evaluate_path,
    kronecker_fisher,
    sinkhorn_matching,
    straight_through,
)
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.training import RebasinModule
from sinkhorn_rebasin.training.continual import (
    AveragedGEM,
    DistillingRebasinLearner,
    ModeConnectivitySGD,
    RebasinLearner,
)
from tests.run_again import Net, data, networks
from tests.training.fitting import trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad"),
    pytest.mark.filterwarnings("ignore:torch.func.vmap cannot run"),
]

Measure = Callable[[Net, Net, Path], Any]


def _rebasin(first: Net, second: Net, folder: Path) -> list[Tensor]:
    x, y = data()
    rebasin = SinkhornRebasin(first, second, x, start="identity", noise=0.5, generator=_generator())
    module = RebasinModule(rebasin, MidpointLoss(F.cross_entropy))
    trainer(folder).fit(module, DataLoader(TensorDataset(x, y), 6))
    return list(rebasin.parameters())


def _learner(kind: type) -> Measure:
    def learned(first: Net, second: Net, folder: Path) -> list[Tensor]:
        x, y = data()
        more = {"example_inputs": x} if issubclass(kind, RebasinLearner) else {}
        learner = kind(first, tasks=2, **more)
        for task in range(2):
            torch.manual_seed(task)
            trainer(folder).fit(learner, DataLoader(TensorDataset(x + task, y), 6))
        return [*learner.network.parameters()]

    return learned


def _sinkhorn_matching(first: Net, second: Net, folder: Path) -> Any:
    spec, options = discover_symmetry(first, data()[0]), {"steps": 5, "generator": _generator()}
    found = sinkhorn_matching(first, second, spec, data=[data()], criterion=F.cross_entropy, **options)
    return torch.tensor(found.objective)


def _straight_through(first: Net, second: Net, folder: Path) -> Any:
    spec, options = discover_symmetry(first, data()[0]), {"lr": 0.1, "epochs": 3}
    found = straight_through(first, second, spec, data=[data()], criterion=F.cross_entropy, **options)
    return torch.tensor(found.objective)


def _kronecker(first: Net, second: Net, folder: Path) -> Any:
    fisher = kronecker_fisher(first, [data()], labels="expected")
    layers = {name: (layer.inputs, layer.outputs) for name, layer in fisher.layers.items()}
    return layers, dict(fisher.diagonal)


def _rescaling(first: Net, second: Net, folder: Path) -> Any:
    spec = discover_symmetry(first, data()[0])
    return torch.tensor(len(discover_rescaling(first, spec, data()[0]).generators))


def _path(first: Net, second: Net, folder: Path) -> Any:
    return evaluate_path((first, second), [data()], points=3).losses


MEASURES: dict[str, Measure] = {
    "SinkhornRebasin": _rebasin,
    "RebasinLearner": _learner(RebasinLearner),
    "DistillingRebasinLearner": _learner(DistillingRebasinLearner),
    "ModeConnectivitySGD": _learner(ModeConnectivitySGD),
    "AveragedGEM": _learner(AveragedGEM),
    "sinkhorn_matching": _sinkhorn_matching,
    "straight_through": _straight_through,
    "diagonal_fisher": lambda first, *_: dict(diagonal_fisher(first, [data()], labels="expected").diagonal),
    "kronecker_fisher": _kronecker,
    "discover_rescaling": _rescaling,
    "evaluate_path": _path,
}

CHOOSE_TENSORS = {
    "AveragedGEM",
    "straight_through",
    "diagonal_fisher",
    "kronecker_fisher",
    "discover_rescaling",
}
"""Those that want gradients in chosen tensors, which reentrant checkpoints do not give."""


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@cache
def of_layers_that_run_once(name: str) -> Any:
    """What networks give whose layers run once."""
    with TemporaryDirectory() as folder:
        return MEASURES[name](*networks(None), Path(folder))


@pytest.mark.parametrize("way", ["each", "whole, reentrant"])
@pytest.mark.parametrize("name", MEASURES)
def test_results_are_those_of_layers_that_run_once(name: str, way: str, tmp_path: Path) -> None:
    if name in CHOOSE_TENSORS and "reentrant" in way:
        with pytest.raises(ArchitectureError, match="use_reentrant=False"):
            MEASURES[name](*networks(way), tmp_path)
    else:
        torch.testing.assert_close(MEASURES[name](*networks(way), tmp_path), of_layers_that_run_once(name))
