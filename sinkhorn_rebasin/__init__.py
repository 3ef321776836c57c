"""Differentiable weight-space alignment of neural networks: Sinkhorn re-basin for any PyTorch model.

Start with :func:`align`, or with :class:`SinkhornRebasin`. The imports below are the table of contents, a folder a
block. These folders are loaded when they are first used, because they need torchmetrics, matplotlib and Lightning:

- ``carrying``: ``carry``, ``carry_many``, ``carry_adapter``, ``CarriedUpdate`` and ``Adapter``;
- ``front``: ``align``, ``align_many``, ``compare``, ``Recipe``, ``EnsembleTargets``, ``AlignmentResult``
  and ``Comparison``;
- ``metrics``, ``plots`` and ``training``, such as ``sinkhorn_rebasin.training.RebasinModule``.
"""

import importlib
from typing import TYPE_CHECKING, Any

# Statistics of activations, put right after a merge.
from sinkhorn_rebasin.activations import BatchNormReset as BatchNormReset
from sinkhorn_rebasin.activations import RepairAlongPath as RepairAlongPath
from sinkhorn_rebasin.activations import repair as repair
from sinkhorn_rebasin.activations import reset_batch_norm as reset_batch_norm

# Scores to soft and hard permutations.
from sinkhorn_rebasin.assignment import SinkhornResult as SinkhornResult
from sinkhorn_rebasin.assignment import hard_assignment as hard_assignment
from sinkhorn_rebasin.assignment import sinkhorn as sinkhorn
from sinkhorn_rebasin.assignment import temperature as temperature

# Paths between networks and the loss along them.
from sinkhorn_rebasin.connectivity import LinearPath as LinearPath
from sinkhorn_rebasin.connectivity import PathEvaluation as PathEvaluation
from sinkhorn_rebasin.connectivity import evaluate_path as evaluate_path

# Fisher information, and Gram matrices of what goes into layers.
from sinkhorn_rebasin.curvature import DiagonalFisher as DiagonalFisher
from sinkhorn_rebasin.curvature import GramMatrices as GramMatrices
from sinkhorn_rebasin.curvature import KroneckerFisher as KroneckerFisher
from sinkhorn_rebasin.curvature import diagonal_fisher as diagonal_fisher
from sinkhorn_rebasin.curvature import gram_matrices as gram_matrices
from sinkhorn_rebasin.curvature import kronecker_fisher as kronecker_fisher

# What trains a re-basin.
from sinkhorn_rebasin.losses import ContinualLoss as ContinualLoss
from sinkhorn_rebasin.losses import FisherDistance as FisherDistance
from sinkhorn_rebasin.losses import MidpointLoss as MidpointLoss
from sinkhorn_rebasin.losses import RandomPointLoss as RandomPointLoss
from sinkhorn_rebasin.losses import RepairLoss as RepairLoss
from sinkhorn_rebasin.losses import RepairSimplexLoss as RepairSimplexLoss
from sinkhorn_rebasin.losses import SimplexLoss as SimplexLoss
from sinkhorn_rebasin.losses import WeightDistance as WeightDistance
from sinkhorn_rebasin.losses import task_loss as task_loss

# Methods that align without a re-basin.
from sinkhorn_rebasin.matching import Alignment as Alignment
from sinkhorn_rebasin.matching import activation_matching as activation_matching
from sinkhorn_rebasin.matching import greedy_cosine as greedy_cosine
from sinkhorn_rebasin.matching import ot_fusion as ot_fusion
from sinkhorn_rebasin.matching import ot_fusion_across_widths as ot_fusion_across_widths
from sinkhorn_rebasin.matching import simulated_annealing as simulated_annealing
from sinkhorn_rebasin.matching import straight_through as straight_through
from sinkhorn_rebasin.matching import weight_matching as weight_matching
from sinkhorn_rebasin.matching import widen_into as widen_into

# Several networks, aligned together and merged.
from sinkhorn_rebasin.merging import Ensemble as Ensemble
from sinkhorn_rebasin.merging import FusedState as FusedState
from sinkhorn_rebasin.merging import JointRebasin as JointRebasin
from sinkhorn_rebasin.merging import ManyAlignment as ManyAlignment
from sinkhorn_rebasin.merging import PartialMerge as PartialMerge
from sinkhorn_rebasin.merging import UnitPrior as UnitPrior
from sinkhorn_rebasin.merging import fedma as fedma
from sinkhorn_rebasin.merging import fisher as fisher
from sinkhorn_rebasin.merging import known_classes as known_classes
from sinkhorn_rebasin.merging import match_many as match_many
from sinkhorn_rebasin.merging import match_outputs as match_outputs
from sinkhorn_rebasin.merging import merge_many as merge_many
from sinkhorn_rebasin.merging import merge_trunks as merge_trunks
from sinkhorn_rebasin.merging import pfnm as pfnm
from sinkhorn_rebasin.merging import pleas as pleas
from sinkhorn_rebasin.merging import regmean as regmean
from sinkhorn_rebasin.merging import regmean_plus_plus as regmean_plus_plus
from sinkhorn_rebasin.merging import weigh_classes as weigh_classes
from sinkhorn_rebasin.merging import zipit as zipit

# Networks with parameters more, so that they have more symmetries, or with several heads.
from sinkhorn_rebasin.networks.expanding import expand as expand
from sinkhorn_rebasin.networks.separate_heads import SeparateHeads as SeparateHeads
from sinkhorn_rebasin.networks.untying import untie as untie

# The symmetries of an architecture, and how they act on its tensors.
from sinkhorn_rebasin.permutations import ContinuousSpec as ContinuousSpec
from sinkhorn_rebasin.permutations import Group as Group
from sinkhorn_rebasin.permutations import PermutationSpec as PermutationSpec
from sinkhorn_rebasin.permutations import RescalingSpec as RescalingSpec
from sinkhorn_rebasin.permutations import Slot as Slot
from sinkhorn_rebasin.permutations import Validity as Validity
from sinkhorn_rebasin.permutations import identity_maps as identity_maps
from sinkhorn_rebasin.permutations import identity_permutations as identity_permutations
from sinkhorn_rebasin.permutations import normalize_state_scales as normalize_state_scales
from sinkhorn_rebasin.permutations import permute_state as permute_state
from sinkhorn_rebasin.permutations import random_maps as random_maps
from sinkhorn_rebasin.permutations import random_permutations as random_permutations
from sinkhorn_rebasin.permutations import rescale_state as rescale_state

# The learned alignment.
from sinkhorn_rebasin.rebasin import SinkhornRebasin as SinkhornRebasin
from sinkhorn_rebasin.rebasin import sinkhorn_matching as sinkhorn_matching

# A network and example inputs to its symmetries.
from sinkhorn_rebasin.symmetry import canonicalize as canonicalize
from sinkhorn_rebasin.symmetry import discover_continuous as discover_continuous
from sinkhorn_rebasin.symmetry import discover_rescaling as discover_rescaling
from sinkhorn_rebasin.symmetry import discover_symmetry as discover_symmetry
from sinkhorn_rebasin.symmetry import normalize_scales as normalize_scales
from sinkhorn_rebasin.symmetry import register_rule as register_rule
from sinkhorn_rebasin.symmetry import verify_continuous as verify_continuous
from sinkhorn_rebasin.symmetry import verify_symmetry as verify_symmetry

if TYPE_CHECKING:
    from sinkhorn_rebasin import carrying as carrying
    from sinkhorn_rebasin import front as front
    from sinkhorn_rebasin import metrics as metrics
    from sinkhorn_rebasin import plots as plots
    from sinkhorn_rebasin import training as training
    from sinkhorn_rebasin.carrying import Adapter as Adapter
    from sinkhorn_rebasin.carrying import CarriedUpdate as CarriedUpdate
    from sinkhorn_rebasin.carrying import carry as carry
    from sinkhorn_rebasin.carrying import carry_adapter as carry_adapter
    from sinkhorn_rebasin.carrying import carry_many as carry_many
    from sinkhorn_rebasin.front import AlignmentResult as AlignmentResult
    from sinkhorn_rebasin.front import Comparison as Comparison
    from sinkhorn_rebasin.front import EnsembleTargets as EnsembleTargets
    from sinkhorn_rebasin.front import Recipe as Recipe
    from sinkhorn_rebasin.front import align as align
    from sinkhorn_rebasin.front import align_many as align_many
    from sinkhorn_rebasin.front import compare as compare

__version__ = "0.1.0"

_LAZY = ("carrying", "front", "metrics", "plots", "training")
_FRONT = ("AlignmentResult", "Comparison", "EnsembleTargets", "Recipe", "align", "align_many", "compare")
_CARRYING = ("Adapter", "CarriedUpdate", "carry", "carry_adapter", "carry_many")


def __getattr__(name: str) -> Any:
    if name in _FRONT:
        return getattr(importlib.import_module(f"{__name__}.front"), name)
    if name in _CARRYING:
        return getattr(importlib.import_module(f"{__name__}.carrying"), name)
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY, *_FRONT, *_CARRYING])
