"""Every method of the table, by its name and in the order of the tables: the one place where the names stand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from experiments.compare_methods import heads_multiplied_out, matching, sinkhorn_losses, symmetries
from experiments.compare_methods.ours import align
from experiments.compare_methods.pair import Align, Outcome, Pair
from experiments.compare_methods.setting import Setting
from sinkhorn_rebasin import diagonal_fisher, kronecker_fisher


@dataclass(frozen=True)
class Method:
    """A method of the table.

    Attributes:
        align: a pair and its setting in, the target's new place out.
        kind: a peer, a Sinkhorn loss in this package without our recipe, or ours.
    """

    align: Align
    kind: Literal["peer", "loss", "ours"]


def ours(**options: bool) -> Method:
    """Sinkhorn re-basin by the recipe of :mod:`experiments.compare_methods.ours`."""

    def method(pair: Pair, setting: Setting) -> Outcome:
        return align(pair, setting.recipe, **options)

    return Method(method, "ours")


def fisher(curvature: sinkhorn_losses.Curvature) -> Method:
    """The distance of weights in the metric of the loss."""
    return Method(sinkhorn_losses.sinkhorn_in_the_metric_of_the_loss(curvature), "loss")


PUBLISHED = "published Sinkhorn"
METHODS: dict[str, Method] = {
    "naive": Method(matching.naive, "peer"),
    "weight matching": Method(matching.weights, "peer"),
    "weight matching, from the identity": Method(matching.weights_from_identity, "peer"),
    "activation matching": Method(matching.activations("correlation"), "peer"),
    "activation matching, uncentred": Method(matching.activations("uncentred"), "peer"),
    "straight-through": Method(matching.straight, "peer"),
    "OT fusion": Method(matching.transport, "peer"),
    "simulated annealing": Method(matching.annealing, "peer"),
    "greedy cosine": Method(matching.greedy, "peer"),
    "heads multiplied out": Method(heads_multiplied_out.weights, "peer"),
    "Sinkhorn l1": Method(sinkhorn_losses.sinkhorn("l1"), "loss"),
    "Sinkhorn l2": Method(sinkhorn_losses.sinkhorn("l2"), "loss"),
    "Sinkhorn Fisher": fisher(diagonal_fisher),
    "Sinkhorn K-FAC": fisher(kronecker_fisher),
    "Sinkhorn midpoint": Method(sinkhorn_losses.sinkhorn("midpoint"), "loss"),
    "Sinkhorn random point": Method(sinkhorn_losses.sinkhorn("random_point"), "loss"),
    PUBLISHED: Method(sinkhorn_losses.published, "peer"),
    "ours, for REPAIR": ours(repaired=True),
    "ours, permutations alone": ours(),
    "ours": ours(rescale=True),
    "ours, every symmetry, by weights": Method(symmetries.weights, "ours"),
    "ours, every symmetry, by activations": Method(symmetries.activations, "ours"),
    "ours, every symmetry, drawn images": Method(symmetries.drawn, "ours"),
    "ours, every symmetry": Method(symmetries.learned, "ours"),
}


def runnable(published_python: Path | None) -> list[str]:
    """Return the names of the methods that can run here: the published one where its environment is known."""
    return [name for name in METHODS if name != PUBLISHED or published_python is not None]


def names_of(kind: Literal["peer", "loss", "ours"]) -> list[str]:
    """Return the names of the methods of a kind."""
    return [name for name, method in METHODS.items() if method.kind == kind]
