"""Partial merges of everything that takes data, run on some."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import sinkhorn_rebasin as sr
from sinkhorn_rebasin import merging
from sinkhorn_rebasin.activations.statistics import paired_units
from tests.taken_networks import networks


def in_part(way: Callable[..., Any], **options: Any) -> Callable[[Any, Any], Any]:
    """Merge two networks in part by a function of both, their symmetries and data."""

    def run(data: Any, batch: Any) -> Any:
        merged = way(*networks(), data=data, batch=batch, **options)
        return [tensor.float() for tensor in merged.network.state_dict().values()]

    return run


def trunk(data: Any, batch: Any) -> Any:
    spec = networks()[2]
    stays = sr.Alignment(sr.identity_permutations(spec), spec)
    return in_part(merging.merge_trunks, alignment=stays)(data, batch)


def fitted_layers(data: Any, batch: Any) -> Any:
    start = merging.zipit(*networks(), data=[torch.linspace(-1, 1, 24).reshape(8, 3).square()])
    return [
        tensor.float()
        for tensor in merging.fit_layers(start, data, batch=batch).network.state_dict().values()
    ]


def outputs_matched(data: Any, batch: Any) -> Any:
    return list(merging.match_outputs(*networks(), data=data, batch=batch, steps=2).objective)


def both_outputs(data: Any, batch: Any) -> Tensor:
    a, b, spec = networks()
    loss = merging.BothOutputsLoss(a, b, spec, batch=batch)
    value: Tensor = loss(sr.SinkhornRebasin(a, b, spec=spec.ignoring("b")), data[0])
    return value.detach()


PARTIAL: dict[str, Callable[[Any, Any], Any]] = {
    "BothOutputsLoss": both_outputs,
    "fit_layers": fitted_layers,
    "match_outputs": outputs_matched,
    "merge_trunks": trunk,
    "paired_units": lambda d, b: [
        values
        for _, pairs in paired_units(
            networks()[0], networks()[0].state_dict(), networks()[1].state_dict(), networks()[2], d, batch=b
        )
        for values in pairs["a"]
    ],
    "pleas": in_part(merging.pleas, budget=1.5),
    "zipit": in_part(merging.zipit),
}
