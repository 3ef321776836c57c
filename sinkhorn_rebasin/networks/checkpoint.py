"""Whether a checkpoint belongs to a module, asked before anything of it is loaded."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.errors import CheckpointError, prefix_hint
from sinkhorn_rebasin.networks.architecture import tied_names
from sinkhorn_rebasin.networks.frozen import former_ties


def check_checkpoint(
    module: nn.Module, state: State, prefix: str, *_unused: Any, **_also_unused: Any
) -> None:
    """Raise CheckpointError unless a state fits the module.

    It must have the module's names and shapes. This is a load-state-dict pre-hook. Of names that share one tensor,
    one is enough, as in files of safetensors.
    """
    own = module.state_dict()
    found = [key.removeprefix(prefix) for key in state if key.startswith(prefix)]
    spared = _stand_ins(module, state, prefix)
    for name in [*own, *found]:
        if name in spared:
            continue
        if prefix + name not in state or name not in own:
            have, lack = ("has", "does not") if name not in own else ("has no", "does")
            hint = prefix_hint(found, own)
            raise CheckpointError(
                f"Expected a checkpoint of this re-basin but it {have} {name!r}, which this one {lack} have"
                f"{'.' + hint if hint else ': it was written for another network.'}"
            )
        expected, given = own[name], state[prefix + name]
        if isinstance(expected, Tensor) and getattr(given, "shape", None) != expected.shape:
            raise CheckpointError(
                f"Expected {name!r} of shape {tuple(expected.shape)} but the checkpoint holds "
                f"{tuple(getattr(given, 'shape', ()))}: it was written for another network."
            )


def _stand_ins(module: nn.Module, state: State, prefix: str) -> set[str]:
    """Name tensors that another name stands in for.

    That is another name of the same tensor. Where the two have come apart, as buffers do when a module is converted,
    the state is given both.
    """
    spared = set()
    own = {name: tensor for name, tensor in module.state_dict().items() if isinstance(tensor, Tensor)}
    for names in [*tied_names(module), *former_ties(module)]:
        saved = [name for name in names if name in own]
        given = next((name for name in saved if prefix + name in state), None)
        for name in saved:
            if given is None or prefix + name in state:
                continue
            if own[name].data_ptr() == own[given].data_ptr():
                spared.add(name)
            else:
                state[prefix + name] = state[prefix + given]
    return spared
