"""Networks of packages that install from PyPI without compiling, from small configurations with random weights.

Every factory imports its package itself, so that the list can be read without any of them.
"""

from __future__ import annotations

from experiments.zoo.packages_models import (
    adapters,
    attention,
    detection,
    diffusion,
    experts,
    flows,
    graphs,
    multimodal,
    operators,
    retrieval,
    segmentation,
    speech,
    state_space,
    tabular,
)
from experiments.zoo.packages_models.network import Network

FIELDS = (
    adapters.ADAPTERS,
    attention.ATTENTION,
    detection.DETECTION,
    diffusion.DIFFUSION,
    experts.EXPERTS,
    flows.FLOWS,
    graphs.GRAPHS,
    multimodal.MULTIMODAL,
    operators.OPERATORS,
    retrieval.RETRIEVAL,
    segmentation.SEGMENTATION,
    speech.SPEECH,
    state_space.STATE_SPACE,
    tabular.TABULAR,
)
NETWORKS: dict[str, Network] = {network.name: network for field in FIELDS for network in field}
