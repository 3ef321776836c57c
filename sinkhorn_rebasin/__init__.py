"""Differentiable weight-space alignment of neural networks: Sinkhorn re-basin for any PyTorch model.

Start with :class:`SinkhornRebasin`. Names are loaded when they are first used, so that importing the package
pulls in neither Lightning nor matplotlib.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sinkhorn_rebasin.activations import BatchNormReset, Repair, repair, reset_batch_norm
    from sinkhorn_rebasin.assignment import (
        SinkhornResult,
        constant,
        cosine,
        geometric,
        hard_assignment,
        linear,
        sinkhorn,
    )
    from sinkhorn_rebasin.connectivity import LinearPath, PathEvaluation, evaluate_path
    from sinkhorn_rebasin.curvature import DiagonalFisher, KroneckerFisher, diagonal_fisher, kronecker_fisher
    from sinkhorn_rebasin.losses import (
        ContinualLoss,
        FisherDistance,
        MidpointLoss,
        RandomPointLoss,
        RepairedPointLoss,
        WeightDistance,
    )
    from sinkhorn_rebasin.matching import (
        Alignment,
        activation_matching,
        greedy_cosine,
        ot_fusion,
        ot_transport,
        simulated_annealing,
        straight_through,
        weight_matching,
    )
    from sinkhorn_rebasin.permutations import (
        Group,
        PermutationSpec,
        RescalingSpec,
        Slot,
        Validity,
        identity_permutations,
        normalize_state,
        permute_state,
        random_permutations,
        rescale_state,
    )
    from sinkhorn_rebasin.rebasin import sinkhorn_matching
    from sinkhorn_rebasin.rebasin.module import SinkhornRebasin
    from sinkhorn_rebasin.symmetry import (
        discover_rescaling,
        discover_symmetry,
        normalize_scale,
        register_rule,
        verify_symmetry,
    )
    from sinkhorn_rebasin.training import (
        BarrierMonitor,
        RebasinModule,
        TemperatureAnnealing,
        WarmRestarts,
        data_free_steps,
    )
    from sinkhorn_rebasin.training.continual import (
        AveragedGEM,
        ContinualLearner,
        DarkExperienceReplay,
        DistillingRebasinLearner,
        ElasticWeightConsolidation,
        ExperienceReplay,
        FineTuning,
        JointTraining,
        LearningWithoutForgetting,
        ModeConnectivitySGD,
        RebasinLearner,
        StableSGD,
        learn_tasks,
    )

__version__ = "0.1.0"

_HOME = {
    "activations": ("BatchNormReset", "Repair", "repair", "reset_batch_norm"),
    "assignment": (
        "SinkhornResult",
        "constant",
        "cosine",
        "geometric",
        "hard_assignment",
        "linear",
        "sinkhorn",
    ),
    "connectivity": ("LinearPath", "PathEvaluation", "evaluate_path"),
    "curvature": ("DiagonalFisher", "KroneckerFisher", "diagonal_fisher", "kronecker_fisher"),
    "losses": (
        "ContinualLoss",
        "FisherDistance",
        "MidpointLoss",
        "RandomPointLoss",
        "RepairedPointLoss",
        "WeightDistance",
    ),
    "matching": (
        "Alignment",
        "activation_matching",
        "greedy_cosine",
        "ot_fusion",
        "ot_transport",
        "simulated_annealing",
        "straight_through",
        "weight_matching",
    ),
    "permutations": (
        "Group",
        "PermutationSpec",
        "RescalingSpec",
        "Slot",
        "Validity",
        "identity_permutations",
        "normalize_state",
        "permute_state",
        "random_permutations",
        "rescale_state",
    ),
    "rebasin": ("SinkhornRebasin", "sinkhorn_matching"),
    "symmetry": (
        "discover_rescaling",
        "discover_symmetry",
        "normalize_scale",
        "register_rule",
        "verify_symmetry",
    ),
    "training": (
        "BarrierMonitor",
        "RebasinModule",
        "TemperatureAnnealing",
        "WarmRestarts",
        "data_free_steps",
    ),
    "training.continual": (
        "AveragedGEM",
        "ContinualLearner",
        "DarkExperienceReplay",
        "DistillingRebasinLearner",
        "ElasticWeightConsolidation",
        "ExperienceReplay",
        "FineTuning",
        "JointTraining",
        "LearningWithoutForgetting",
        "ModeConnectivitySGD",
        "RebasinLearner",
        "StableSGD",
        "learn_tasks",
    ),
}
_FOLDER = {name: folder for folder, names in _HOME.items() for name in names}

__all__ = [
    "Alignment",
    "AveragedGEM",
    "BarrierMonitor",
    "BatchNormReset",
    "ContinualLearner",
    "ContinualLoss",
    "DarkExperienceReplay",
    "DiagonalFisher",
    "DistillingRebasinLearner",
    "ElasticWeightConsolidation",
    "ExperienceReplay",
    "FineTuning",
    "FisherDistance",
    "Group",
    "JointTraining",
    "KroneckerFisher",
    "LearningWithoutForgetting",
    "LinearPath",
    "MidpointLoss",
    "ModeConnectivitySGD",
    "PathEvaluation",
    "PermutationSpec",
    "RandomPointLoss",
    "RebasinLearner",
    "RebasinModule",
    "Repair",
    "RepairedPointLoss",
    "RescalingSpec",
    "SinkhornRebasin",
    "SinkhornResult",
    "Slot",
    "StableSGD",
    "TemperatureAnnealing",
    "Validity",
    "WarmRestarts",
    "WeightDistance",
    "activation_matching",
    "constant",
    "cosine",
    "data_free_steps",
    "diagonal_fisher",
    "discover_rescaling",
    "discover_symmetry",
    "evaluate_path",
    "geometric",
    "greedy_cosine",
    "hard_assignment",
    "identity_permutations",
    "kronecker_fisher",
    "learn_tasks",
    "linear",
    "normalize_scale",
    "normalize_state",
    "ot_fusion",
    "ot_transport",
    "permute_state",
    "random_permutations",
    "register_rule",
    "repair",
    "rescale_state",
    "reset_batch_norm",
    "simulated_annealing",
    "sinkhorn",
    "sinkhorn_matching",
    "straight_through",
    "verify_symmetry",
    "weight_matching",
]


def __getattr__(name: str) -> Any:
    if name not in _FOLDER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FOLDER[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
