"""Whether an adapter was made for a base, as its config tells, and which of its tensors are heads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import StateLike
from sinkhorn_rebasin.errors import ArchitectureError, CheckpointError
from sinkhorn_rebasin.files.shards import Shards
from sinkhorn_rebasin.networks.architecture import named_tensors


def check_made_for(config: Mapping[str, Any], base: nn.Module) -> None:
    """Raise ArchitectureError where an adapter's config names another base.

    Names are compared by their last part, as folders lie in other places on other machines; two folders that are
    both here by their weights. Networks without a name are taken as they are.
    """
    made_for, name = config.get("base_model_name_or_path"), name_of(base)
    if not made_for or not name or _same(str(made_for), name):
        return
    raise ArchitectureError(
        f"Expected the base that the adapter was made for, which its config says is {str(made_for)!r}, but got "
        f"{name!r}: pass that base; or, where both are one network, write {name!r} into 'base_model_name_or_path' of "
        f"its adapter_config.json."
    )


def name_of(network: nn.Module) -> str:
    """Return the name or folder that a network of Hugging Face was loaded from; empty where there is none.

    >>> name_of(nn.Linear(1, 1))
    ''
    """
    name = getattr(network, "name_or_path", "")
    return name if isinstance(name, str) else ""


def heads_among(replaced: StateLike, base: nn.Module, new_base: nn.Module) -> tuple[str, ...]:
    """Name saved tensors that have another number of labels than a base.

    Raises:
        ArchitectureError: one differs in more than the length of its first axis.
    """
    first, second = named_tensors(base), named_tensors(new_base)
    heads = []
    for name, tensor in replaced.items():
        for other in (first[name], second.get(name)):
            if other is None or tensor.shape == other.shape or name in heads:
                continue
            if not tensor.ndim or tensor.shape[1:] != other.shape[1:]:
                raise ArchitectureError(
                    f"Expected the adapter's {name!r} in the base's shape {tuple(other.shape)} but got "
                    f"{tuple(tensor.shape)}: it was made for another base."
                )
            heads.append(name)
    return tuple(heads)


def _same(made_for: str, name: str) -> bool:
    first, second = Path(made_for), Path(name)
    if first.is_dir() and second.is_dir():
        return first.samefile(second) or _same_weights(first, second)
    return first.name.casefold() == second.name.casefold()


def _same_weights(first: Path, second: Path) -> bool:
    try:
        ours, theirs = Shards(first), Shards(second)
    except CheckpointError:
        return False
    return ours.keys() == theirs.keys() and all(_equal(ours[name], theirs[name]) for name in ours)


def _equal(first: Tensor, second: Tensor) -> bool:
    return first.dtype == second.dtype and first.shape == second.shape and torch.equal(first, second)
