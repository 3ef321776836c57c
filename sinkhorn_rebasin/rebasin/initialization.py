"""Where the scores of a re-basin start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.errors import SpecError
from sinkhorn_rebasin.matching.base import Alignment
from sinkhorn_rebasin.matching.weight_matching import weight_matching
from sinkhorn_rebasin.permutations import (
    PermutationSpec,
    RescalingSpec,
    check_permutations,
    identity_permutations,
    permutation_matrix,
)
from sinkhorn_rebasin.permutations.continuous import NO_CONTINUOUS, ContinuousSpec
from sinkhorn_rebasin.permutations.maps import identity_maps
from sinkhorn_rebasin.permutations.rescaling import NO_RESCALING
from sinkhorn_rebasin.rebasin.candidates import Candidates, first_candidates, sparse_groups

Start: TypeAlias = str | Alignment | Mapping[str, Tensor]
"""``"weight_matching"``, ``"identity"``, an alignment, or group name to indices or scores."""


class StartingScores(NamedTuple):
    """Hold the parameters that a re-basin begins with.

    Scores of permutations per group, of signs per sign generator, and logarithms of scales, which are zero.
    """

    scores: dict[str, Tensor]
    sign_scores: dict[str, Tensor]
    log_scales: dict[str, Tensor]
    maps: dict[str, Tensor]
    candidates: dict[str, Tensor]


def initial_scores(
    reference: State,
    target: State,
    spec: PermutationSpec,
    start: Start,
    rescaling: RescalingSpec = NO_RESCALING,
    continuous: ContinuousSpec = NO_CONTINUOUS,
    *,
    noise: float = 0.0,
    generator: torch.Generator | None = None,
    candidates: Candidates = None,
) -> StartingScores:
    """Turn a first guess into scores, plus normal noise.

    Scores are the guess's permutation matrices, and signs ±1 of the pairs it matches.

    Scores have the parameters' type and device (float32 when those are in half precision). There are signs for the
    sign generators of ``rescaling`` alone, (generators, ..., n, n): those of pairs that are not matched are zero, and
    all are one where the guess says nothing of them.

    Raises:
        SpecError: when ``start`` is no known name or does not fit the spec and the rescalings.
    """
    tensors = [target[name] for name in spec.shapes]
    # Complex weights are as precise as their parts; networks of integers alone have scores all the same.
    first = next((t for t in tensors if t.is_floating_point() or t.is_complex()), tensors[0])
    dtype = torch.float64 if first.dtype in (torch.float64, torch.complex128) else torch.float32
    guess = _first_guess(reference, target, spec, start, rescaling, continuous, generator)
    if not continuous:
        check_permutations(spec, guess.permutations)

    def score(value: Tensor) -> Tensor:
        value = value.detach().to(device=first.device, dtype=dtype, copy=True)
        if not noise:
            return value
        device = "cpu" if generator is None else generator.device
        drawn = torch.randn(value.shape, generator=generator, dtype=dtype, device=device)
        return value + noise * drawn.to(first.device)

    shapes = rescaling.shapes(spec, "sign")
    counts = sparse_groups(spec, candidates, {*shapes, *(name for name in spec.names if name in continuous)})
    matrices, indices = {}, {}
    for name in (name for name in spec.names if name not in continuous):
        value = guess.permutations[name]
        if name in counts:
            pairs, value = first_candidates(value, counts[name], dtype)
            indices[name] = pairs.to(first.device)
        matrices[name] = value if value.is_floating_point() else permutation_matrix(value, dtype)
    scores = {name: score(matrix) for name, matrix in matrices.items()}
    signs = {}
    for name, shape in shapes.items():
        own = guess.signs[name].to(matrices[name]) if name in guess.signs else matrices[name].new_ones(shape)
        signs[name] = score(own[..., None, :] * matrices[name])
    shapes = rescaling.shapes(spec)
    log_scales = {
        name: guess.log_scales[name].detach().to(scores[name], copy=True)
        if name in guess.log_scales
        else scores[name].new_zeros(shape)
        for name, shape in shapes.items()
    }
    maps = {**identity_maps(continuous, dtype), **guess.maps}
    maps = {name: matrix.to(first.device, dtype) for name, matrix in maps.items()}
    return StartingScores(scores, signs, log_scales, maps, indices)


def _first_guess(
    reference: State,
    target: State,
    spec: PermutationSpec,
    start: Start,
    rescaling: RescalingSpec,
    continuous: ContinuousSpec,
    generator: torch.Generator | None,
) -> Alignment:
    if isinstance(start, Alignment):
        _check_signs(start, spec, rescaling)
        _check_maps(start, continuous)
        return start
    if isinstance(start, Mapping):
        return Alignment(start, spec)
    if start == "weight_matching":
        symmetry = continuous or None
        return weight_matching(
            reference, target, spec, rescaling=rescaling, symmetry=symmetry, generator=generator
        )
    if start == "identity":
        return Alignment(identity_permutations(spec), spec)
    raise SpecError(
        f"Expected start to be 'weight_matching', 'identity', an Alignment or a mapping but got {start!r}."
    )


def _check_signs(alignment: Alignment, spec: PermutationSpec, rescaling: RescalingSpec) -> None:
    shapes = rescaling.shapes(spec, "sign")
    for name, signs in alignment.signs.items():
        own = alignment.rescaling
        if own is None or name not in shapes or own.of(name, "sign") != rescaling.of(name, "sign"):
            raise SpecError(
                f"Expected an alignment whose signs belong to the rescalings that are learned but those of group "
                f"{name!r}, {tuple(signs.shape)}, do not: pass rescale=alignment.rescaling."
            )
    for name in alignment.log_scales:
        theirs = () if alignment.rescaling is None else alignment.rescaling.of(name)
        if name not in rescaling.groups or theirs != rescaling.of(name):
            raise SpecError(
                f"Expected an alignment whose scales belong to the rescalings that are learned but those of group "
                f"{name!r} do not: pass rescale=alignment.rescaling."
            )


def _check_maps(alignment: Alignment, continuous: ContinuousSpec) -> None:
    theirs = () if alignment.continuous is None else alignment.continuous.symmetries
    if theirs != continuous.symmetries:
        raise SpecError(
            "Expected an alignment of the continuous symmetries that are learned but got one of others: pass "
            "symmetry=alignment.continuous, or symmetry='permutation' for one without maps."
        )
