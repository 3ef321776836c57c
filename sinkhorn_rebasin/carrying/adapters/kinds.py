"""Which adapters can be carried: those whose tensors are all understood."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sinkhorn_rebasin.errors import ArchitectureError

PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
"""How factors may have been started; other starts change the base's weights too."""
OTHER_FORMS = (
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
    "megatron_config",
)
"""Settings under which the factors of a LoRA mean something else."""


def check_kind(config: Mapping[str, Any]) -> None:
    """Raise ArchitectureError, naming it, for a kind of adapter that cannot be carried.

    >>> check_kind({"peft_type": "LORA"})
    """
    kind = config.get("peft_type")
    if kind != "LORA":
        raise ArchitectureError(
            f"Expected an adapter of the kind 'LORA' but its config says {kind!r}, which is not carried: its "
            f"tensors do not add to weights as LoRA's do. Merge it into its base, then carry the "
            f"merged network as a fine-tune."
        )
    start = config.get("init_lora_weights", True)
    if start not in PLAIN_STARTS:
        raise ArchitectureError(
            f"Expected a LoRA that leaves its base's weights as they are but its config says 'init_lora_weights': "
            f"{start!r}, which changes them: save it as a plain LoRA, with path_initial_model_for_weight_conversion."
        )
    for setting in OTHER_FORMS:
        if config.get(setting):
            raise ArchitectureError(
                f"Expected a LoRA of plain factors but its config sets {setting!r}, which is not carried: merge it "
                f"into its base, and carry the merged network as a fine-tune."
            )
