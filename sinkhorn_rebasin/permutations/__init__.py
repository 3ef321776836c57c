"""Permutation specifications and their action on weights; no tracing, no learning."""

from sinkhorn_rebasin.permutations.action import permute_state, permute_tensor
from sinkhorn_rebasin.permutations.algebra import (
    check_permutations,
    compose,
    identity_permutations,
    inverse,
    permutation_matrix,
    random_permutations,
)
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec, ContinuousSymmetry, transform_state
from sinkhorn_rebasin.permutations.layout import Layout
from sinkhorn_rebasin.permutations.maps import identity_maps
from sinkhorn_rebasin.permutations.masks import masked_state, masks_of, permute_masks
from sinkhorn_rebasin.permutations.random_maps import random_maps
from sinkhorn_rebasin.permutations.rescaling import RescalingSpec, ScaleSymmetry, rescale_state
from sinkhorn_rebasin.permutations.scale_normalization import normalize_state_scales, unit_norms
from sinkhorn_rebasin.permutations.slots import Frozen, Group, Slot
from sinkhorn_rebasin.permutations.spec import PermutationSpec
from sinkhorn_rebasin.permutations.validity import Validity

__all__ = [
    "ContinuousSpec",
    "ContinuousSymmetry",
    "Frozen",
    "Group",
    "Layout",
    "PermutationSpec",
    "RescalingSpec",
    "ScaleSymmetry",
    "Slot",
    "Validity",
    "check_permutations",
    "compose",
    "identity_maps",
    "identity_permutations",
    "inverse",
    "masked_state",
    "masks_of",
    "normalize_state_scales",
    "permutation_matrix",
    "permute_masks",
    "permute_state",
    "permute_tensor",
    "random_maps",
    "random_permutations",
    "rescale_state",
    "transform_state",
    "unit_norms",
]
