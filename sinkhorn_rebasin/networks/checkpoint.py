"""Whether a checkpoint belongs to a module, asked before anything of it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from sinkhorn_rebasin.errors import CheckpointError


def check_checkpoint(
    module: nn.Module, state: Mapping[str, Any], prefix: str, *_unused: Any, **_also_unused: Any
) -> None:
    """Raise CheckpointError unless the state has the module's names and shapes; a load-state-dict pre-hook."""
    own = module.state_dict()
    for name in [*own, *(key.removeprefix(prefix) for key in state if key.startswith(prefix))]:
        if prefix + name not in state or name not in own:
            have, lack = ("has", "does not") if name not in own else ("has no", "does")
            raise CheckpointError(
                f"Expected a checkpoint of this re-basin but it {have} {name!r}, which this one {lack} have: it "
                f"was written for another network."
            )
        expected, found = own[name], state[prefix + name]
        if isinstance(expected, Tensor) and getattr(found, "shape", None) != expected.shape:
            raise CheckpointError(
                f"Expected {name!r} of shape {tuple(expected.shape)} but the checkpoint holds "
                f"{tuple(getattr(found, 'shape', ()))}: it was written for another network."
            )
