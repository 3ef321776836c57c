"""Where the scores of a re-basin start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.errors import SpecError
from sinkhorn_rebasin.matching.base import Alignment
from sinkhorn_rebasin.matching.weight_matching import weight_matching
from sinkhorn_rebasin.permutations import (
    PermutationSpec,
    check_permutations,
    identity_permutations,
    permutation_matrix,
)

Initialisation: TypeAlias = str | Alignment | Mapping[str, Tensor]
"""``"weight_matching"``, ``"identity"``, an alignment, or group name to indices or scores."""


def initial_scores(
    reference: State,
    target: State,
    spec: PermutationSpec,
    init: Initialisation,
    *,
    noise: float = 0.0,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Score matrices, one per group: the permutation matrices of a first guess, plus normal noise.

    Scores have the parameters' type and device (float32 when those are in half precision).

    Raises:
        SpecError: when ``init`` is no known name or does not fit the spec.
    """
    tensors = [target[name] for name in spec.shapes]
    # Complex weights are as precise as their parts; networks of integers alone have scores all the same.
    first = next((t for t in tensors if t.is_floating_point() or t.is_complex()), tensors[0])
    dtype = torch.float64 if first.dtype in (torch.float64, torch.complex128) else torch.float32
    guess = _first_guess(reference, target, spec, init, generator)
    check_permutations(spec, guess)
    scores = {}
    for group in spec.groups:
        value = guess[group.name]
        matrix = value if value.is_floating_point() else permutation_matrix(value, dtype)
        matrix = matrix.detach().to(device=first.device, dtype=dtype, copy=True)
        if noise:
            device = "cpu" if generator is None else generator.device
            drawn = torch.randn(matrix.shape, generator=generator, dtype=dtype, device=device)
            matrix = matrix + noise * drawn.to(first.device)
        scores[group.name] = matrix
    return scores


def _first_guess(
    reference: State,
    target: State,
    spec: PermutationSpec,
    init: Initialisation,
    generator: torch.Generator | None,
) -> Mapping[str, Tensor]:
    if isinstance(init, Alignment):
        return init.permutations
    if isinstance(init, Mapping):
        return init
    if init == "weight_matching":
        return weight_matching(reference, target, spec, generator=generator).permutations
    if init == "identity":
        return identity_permutations(spec)
    raise SpecError(
        f"Expected init to be 'weight_matching', 'identity', an Alignment or a mapping but got {init!r}."
    )
