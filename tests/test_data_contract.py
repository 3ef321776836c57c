"""One contract for everything that takes data: the same batches, the same adapter, the same message."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import random
from collections.abc import Iterator
from functools import cache
from types import FunctionType
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import DataError
from tests.data_takers import RUN
from tests.taken_networks import Net

# Adapters for what is no user's: the one place that reads batches, and what it is built of.
INNER = {
    "sinkhorn_rebasin.networks.batches",
    "sinkhorn_rebasin.curvature.measured_network",
    "sinkhorn_rebasin.merging.partial.first_inputs",
    "sinkhorn_rebasin.merging.partial.joint_moments",
    "sinkhorn_rebasin.merging.repeatable",
    *(
        f"sinkhorn_rebasin.front.{name}"
        for name in (
            "criteria",
            "data",
            "fit",
            "folds",
            "fused_pair",
            "judge",
            "many_starts",
            "mean_loss",
            "preparation",
            "prepared_pair",
            "starts",
        )
    ),
    *(
        f"sinkhorn_rebasin.carrying.{name}"
        for name in (
            "layer_activations",
            "learned_update",
            "preparation",
            "scale",
            "teacher",
            "way",
        )
    ),
}
# Their adapters have tests beside them, for they take more than pairs.
TESTED_ELSEWHERE = {
    "AlignmentResult",
    "AlignmentResult.merge",
    "LossMonitor",
    "PathSteps",
    "align",
    "carry_adapter",
    "hessian_top_eigenvalue",
    "hessian_trace",
    "losses_on",
    "mean_loss",
}
NAMES = {"data", "dataloader", "repair"}
# What trains is given its batches by a Trainer, or one after the other.
GIVEN_BATCHES = {
    "EnsembleTargets",
    "AlternatingCurveModule",
    "BarrierMonitor",
    "BothOutputsLoss",
    "CarryModule",
    "ContinualLearner",
    "ContinualLoss",
    "CurveModule",
    "CurvePointLoss",
    "ElasticWeightConsolidation",
    "JointTraining",
    "MidpointLoss",
    "RandomPointLoss",
    "RebasinModule",
    "SimplexLoss",
    "SimplexModule",
}
GIVEN_DATA = sorted(set(RUN) - GIVEN_BATCHES)


class Drawing(list[Any]):
    """Batches that draw from every global random state when they are read, as those of a shuffling loader do."""

    def __iter__(self) -> Iterator[Any]:
        torch.rand(1), np.random.rand(), random.random()  # noqa: NPY002
        return super().__iter__()


def pairs() -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(1)
    return [(torch.randn(8, 3), torch.randint(2, (8,))) for _ in range(2)]


@cache
def of_pairs(name: str) -> Any:
    """What pairs give."""
    return RUN[name](pairs(), None)


@pytest.mark.parametrize("name", RUN)
def test_an_adapter_gives_what_pairs_give(name: str) -> None:
    odd = [{"note": "a text", "parts": [x, None, labels]} for x, labels in pairs()]
    found = RUN[name](odd, lambda one: (one["parts"][0], one["parts"][2]))
    torch.testing.assert_close(found, of_pairs(name))


@pytest.fixture
def writing(monkeypatch: pytest.MonkeyPatch) -> list[Net]:
    """All networks that are made, whose forward writes to their buffers."""
    made: list[Net] = []
    build, run = Net.__init__, Net.forward

    def with_buffers(net: Net) -> None:
        build(net)
        net.register_buffer("calls", torch.tensor(0))
        net.register_buffer("average", torch.zeros(3))
        made.append(net)

    def forward(net: Net, x: Tensor) -> Tensor:
        net.calls += 1
        net.average.mul_(0.5).add_(x.detach().mean(0))
        return run(net, x)

    monkeypatch.setattr(Net, "__init__", with_buffers)
    monkeypatch.setattr(Net, "forward", forward)
    return made


@pytest.mark.filterwarnings("ignore:torch.func.vmap cannot run")  # buffers that every sample writes to
@pytest.mark.parametrize("name", RUN)
def test_buffers_that_a_forward_writes_to_stay_in_the_networks_given(name: str, writing: list[Net]) -> None:
    RUN[name](pairs(), None)
    assert writing
    for net in writing:
        assert int(net.calls) == 0
        assert not net.average.any()


@pytest.mark.parametrize("name", RUN)
def test_batches_with_labels_by_name_give_what_pairs_give(name: str) -> None:
    found = RUN[name]([{"x": x, "labels": labels} for x, labels in pairs()], None)
    torch.testing.assert_close(found, of_pairs(name))


@pytest.mark.parametrize("name", RUN)
def test_what_is_not_known_is_refused_by_the_one_message(name: str) -> None:
    triples = [(x, x, labels) for x, labels in pairs()]
    with pytest.raises(DataError, match=r"pair \(inputs, labels\) but got a .* of 3: .*batch="):
        RUN[name](triples, None)


@pytest.mark.parametrize("name", RUN)
def test_an_adapter_that_returns_the_wrong_thing_is_named(name: str) -> None:
    with pytest.raises(DataError, match="batch= to return a pair"):
        RUN[name](pairs(), lambda one: one[0])


@pytest.mark.parametrize("name", GIVEN_DATA)
def test_reading_data_leaves_the_random_states_as_they_are(name: str) -> None:
    states = []
    for data in (pairs(), Drawing(pairs())):
        before = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
        RUN[name](data, None)
        assert before == (random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[index]  # noqa: NPY002
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


@pytest.mark.parametrize("name", GIVEN_DATA)
@pytest.mark.parametrize("given", [TensorDataset(torch.ones(4, 3), torch.ones(4)), torch.ones(4, 3), 3])
def test_what_yields_no_batches_is_refused(name: str, given: Any) -> None:
    with pytest.raises(
        DataError, match=f"to yield batches but got {type(given).__name__}; pass a DataLoader"
    ):
        RUN[name](given, None)


def callables() -> Iterator[tuple[str, str, FunctionType]]:
    """Module, name and function of everything public that the package defines."""
    for info in pkgutil.walk_packages(sr.__path__, "sinkhorn_rebasin."):
        module = importlib.import_module(info.name)
        for name, found in vars(module).items():
            if name.startswith("_") or getattr(found, "__module__", None) != info.name:
                continue
            if inspect.isfunction(found):
                yield info.name, name, found
            elif inspect.isclass(found):
                for method, function in vars(found).items():
                    if inspect.isfunction(function) and (
                        method in ("__init__", "__call__") or not method.startswith("_")
                    ):
                        yield info.name, f"{name}.{method}".removesuffix(".__init__"), function


def test_nothing_that_takes_data_is_without_an_adapter() -> None:
    """Whatever has an argument for data has ``batch=``, and is run above."""
    lacking, taking = [], set()
    for module, name, function in callables():
        parameters = inspect.signature(function).parameters
        takes = any(p in NAMES and "Iterable[Any]" in str(q.annotation) for p, q in parameters.items())
        adapter = "BatchAdapter" in str(parameters["batch"].annotation) if "batch" in parameters else False
        unused = any(said in (function.__doc__ or "") for said in ("generator: not needed", "not looked at"))
        if module in INNER or f"{module}.{name}" in INNER or (unused and not adapter):
            continue
        if takes and not adapter:
            lacking.append(f"{module}.{name}")
        if adapter:
            taking.add(name)
    assert not lacking
    assert taking - TESTED_ELSEWHERE == set(RUN) - {"ElasticWeightConsolidation", "JointTraining"}


def test_nothing_that_takes_a_batch_reads_it_in_its_own_way() -> None:
    """Classes that are called with a batch have an adapter, or say that they look at none."""
    for module, name, function in callables():
        owner = getattr(importlib.import_module(module), name.partition(".")[0])
        given = inspect.signature(function).parameters.get("batch")
        if module in INNER or not inspect.isclass(owner) or given is None or given.annotation != "Any":
            continue
        if getattr(owner, "_is_protocol", False) or issubclass(owner, lightning.Callback):
            continue
        has_adapter = "batch" in {
            p for kind in owner.__mro__ for p in inspect.signature(kind.__init__).parameters
        }
        looks_at_none = "batch is ignored" in (owner.__doc__ or "") or name.endswith("on_train_batch_start")
        assert has_adapter or looks_at_none, f"{module}.{name}"
