"""Whether a network is in the form in which its continuous symmetries hold."""

from __future__ import annotations

from collections.abc import Sequence

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec

ROUNDING = 1e-5


def check_canonical(state: State, continuous: ContinuousSpec, whose: str) -> None:
    """Refuse gains and shifts that stand in the way.

    Args:
        state: its tensors.
        continuous: the symmetries to be used.
        whose: ``"reference"`` or ``"target"``, for the message.

    Raises:
        ArchitectureError: a gain is not one, or a shift not zero; it is named.
    """
    for symmetry in continuous.symmetries:
        _check_statistics(state, symmetry.gains, whose)
        wanted = [(name, "gain", 1.0) for name in symmetry.gains]
        wanted += [(name, "shift", 0.0) for name in symmetry.shifts]
        for name, role, value in wanted:
            away = float((state[name].double() - value).abs().max())
            if not away <= ROUNDING:
                raise ArchitectureError(
                    f"Expected the {role} {name!r} of the {whose} to be {value:g}, so that group "
                    f"{symmetry.group.name!r} can be turned, but got values {away:.3g} away from it: "
                    f"canonicalize(model, spec, continuous, inputs) moves it into what reads it."
                )


def _check_statistics(state: State, gains: Sequence[str], whose: str) -> None:
    """Refuse batch norms among the gains whose running statistics were not folded."""
    for gain in gains:
        layer = gain.removesuffix("weight")
        mean, variance = state.get(f"{layer}running_mean"), state.get(f"{layer}running_var")
        if mean is None or variance is None:
            continue
        away = max(float(mean.abs().max()), float(variance.max() - variance.min()))
        if not away <= ROUNDING:
            raise ArchitectureError(
                f"Expected the batch norm {layer.removesuffix('.')!r} of the {whose} to have neutral statistics but "
                f"got some {away:.3g} away from them: canonicalize(model, spec, continuous, inputs) folds them."
            )
