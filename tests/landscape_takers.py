"""Curves, simplexes and planes that take data, run on some."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning
import torch.nn.functional as F
from torch import Tensor

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.connectivity import LearnedComplex, LearnedCurve
from sinkhorn_rebasin.landscape import Plane, evaluate_plane, local_energy
from sinkhorn_rebasin.losses import CurvePointLoss
from sinkhorn_rebasin.metrics import output_cka, unit_similarity
from tests.fitted_module import fitted
from tests.taken_networks import Net, networks


def learned_by(module: lightning.LightningModule, data: Any, part: str) -> list[Tensor]:
    found = fitted(module, list(data)).items()
    return [tensor for name, tensor in found if part in name and "running" not in name]


def bent(data: Any, batch: Any) -> Any:
    a, b, _ = networks()
    return learned_by(sr.training.CurveModule(LearnedCurve(a, b), batch=batch), data, "bends")


def grown(data: Any, batch: Any) -> Any:
    a, b, _ = networks()
    return learned_by(sr.training.SimplexModule(LearnedComplex([a, b]), batch=batch), data, "vertices")


def alternated(data: Any, batch: Any) -> Any:
    a, b, spec = networks()
    module = sr.training.AlternatingCurveModule(sr.SinkhornRebasin(a, b, spec=spec), batch=batch)
    return learned_by(module, data, "rebasin.scores")


def on_curve(data: Any, batch: Any) -> Tensor:
    a, b, spec = networks()
    rebasin = sr.SinkhornRebasin(a, b, spec=spec)
    loss = CurvePointLoss(LearnedCurve(b, a), F.cross_entropy, batch=batch)
    loss.position = lambda: 0.3  # type: ignore[method-assign]
    return loss(rebasin, data[0]).detach()


def on_plane(data: Any, batch: Any) -> Tensor:
    a, b, _ = networks()
    plane = Plane.through({"a": a, "b": b, "c": Net().eval()})
    return evaluate_plane(plane, data, points=2, batch=batch).losses


LANDSCAPE: dict[str, Callable[[Any, Any], Any]] = {
    "AlternatingCurveModule": alternated,
    "CurveModule": bent,
    "CurvePointLoss": on_curve,
    "SimplexModule": grown,
    "evaluate_plane": on_plane,
    "local_energy": lambda d, b: local_energy(networks()[0], d, scales=(0.5,), draws=2, batch=b),
    "output_cka": lambda d, b: output_cka(*networks()[:2], d, batch=b),
    "unit_similarity": lambda d, b: list(unit_similarity(*networks(), d, batch=b).values()),
}
