"""Ways to bring an update to the new base without labels: ours, peers, and what costs more than one network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import sinkhorn_rebasin as sr
from experiments.carry.bench import Bench, Tried
from experiments.carry.gradfix import gradfix_update
from experiments.carry.logits import distilled, sum_of_logits
from experiments.carry.transfusion import transfusion_update
from sinkhorn_rebasin.carrying import (
    ByActivations,
    ByWeights,
    CarriedUpdate,
    Distilled,
    Functional,
    FunctionalSymmetry,
    LayerByLayer,
    Learned,
    Way,
)
from sinkhorn_rebasin.networks.copying import standalone_copy

SCALES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)


@dataclass(frozen=True)
class Method:
    """Hold one row.

    Attributes:
        data: what it looks at.
        ours: whether it is this package's.
        tried: gives networks for a bench, of which held-out samples choose one.
        transformers: whether it says something about transformers alone.
        text: whether it says something about language models alone.
        cost: networks that run at every call.
    """

    data: str
    ours: bool
    tried: Callable[[Bench], Iterable[Tried]]
    transformers: bool = False
    text: bool = False
    cost: int = 1


def plus(bench: Bench, update: Mapping[str, Tensor], scale: float) -> torch.nn.Module:
    """Return the new base with an update added."""
    twin = standalone_copy(bench.pair.new_base)
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            parameter.add_((scale * update[name]).to(parameter.dtype))
    return twin


def difference(bench: Bench) -> dict[str, Tensor]:
    """Return the tuned network minus its base."""
    before = dict(bench.pair.base.named_parameters())
    return {name: (after - before[name]).detach() for name, after in bench.pair.tuned.named_parameters()}


def carried(bench: Bench, way: Way | None = None, data: Any = None, **options: Any) -> CarriedUpdate:
    """Carry the update of a bench."""
    pair = bench.pair
    options = {"scale": 1.0, "seed": bench.seed, "example_inputs": bench.examples, **options}
    return sr.carry(pair.tuned, pair.base, pair.new_base, way=way, data=data, **options)


def _scaled(update: CarriedUpdate, bench: Bench, note: Mapping[str, Any]) -> Iterator[Tried]:
    for scale in SCALES:
        yield {**note, "scale": scale}, update.apply(bench.pair.new_base, scale)


def _way(way: Way | None, data: str | None = None) -> Callable[[Bench], Iterable[Tried]]:
    def tried(bench: Bench) -> Iterator[Tried]:
        found = {None: lambda: None, "base": bench.base_batches, "new": bench.unlabelled}[data]()
        yield from _scaled(carried(bench, way, found), bench, {})

    return tried


def _ways(ways: Mapping[str, Way | None], data: str) -> Callable[[Bench], Iterable[Tried]]:
    def tried(bench: Bench) -> Iterator[Tried]:
        batches = {"none": lambda: None, "base": bench.base_batches, "new": bench.unlabelled}[data]()
        digits = bench.setting.data == "mnist"
        several = digits or (data == "none" and bench.setting.data != "source_text")
        for name, way in list(ways.items())[: None if several else 1]:
            if data == "none" and isinstance(way, Learned) and bench.setting.model in ("vit", "resnet20"):
                continue  # no inputs are drawn for separate patches or batch norms; text is drawn by the default
            yield from _scaled(carried(bench, way, batches), bench, {"way": name})

    return tried


def _updates(make: Callable[[Bench], Mapping[str, Tensor]]) -> Callable[[Bench], Iterable[Tried]]:
    def tried(bench: Bench) -> Iterator[Tried]:
        update = make(bench)
        for scale in SCALES:
            yield {"scale": scale}, plus(bench, update, scale)

    return tried


NO_DATA = {"default": None, "learned": Learned(), "by weights": ByWeights()}
BASE_TASK = {
    "default": None,
    "learned": Learned(synthetic=1.0),
    "layer by layer, synthetic": LayerByLayer(synthetic=1.0),
}
RIDGES = {f"ridge {ridge:g}": Functional(ridge=ridge) for ridge in (0.1, 0.03, 0.3)}

METHODS: dict[str, Method] = {
    "as it is": Method("none", False, _updates(difference)),
    "weight matching": Method("none", False, _way(ByWeights(symmetry="permutation"))),
    "TransFusion": Method("none", False, _updates(transfusion_update), transformers=True),
    "activation matching": Method("base task", False, _way(ByActivations(symmetry="permutation"), "base")),
    "GradFix": Method("20 labels", False, _updates(gradfix_update)),
    "functional": Method("base task", False, _ways(RIDGES, "base")),
    "functional, unlabelled": Method("unlabelled", False, _ways(RIDGES, "new")),
    "functional in the group": Method("unlabelled", True, _way(FunctionalSymmetry(), "new")),
    "ours, no data": Method("none", True, _ways(NO_DATA, "none")),
    "ours, base task": Method("base task", True, _ways(BASE_TASK, "base")),
    "ours, by activations": Method("base task", True, _way(ByActivations(), "base")),
    "ours, layer by layer": Method(
        "unlabelled", True, _ways({"layer by layer": LayerByLayer(), "default": None}, "new")
    ),
    "ours, learned": Method("unlabelled", True, _way(Learned(), "new")),
    "ours, distilled": Method("unlabelled", True, _way(Distilled(), "new"), text=True),
    "ours, distilled without a start": Method("none", True, _way(Distilled(start=None)), text=True),
    "sum of logits": Method("none", False, sum_of_logits, cost=3),
    "sum distilled": Method("unlabelled", False, distilled),
}
