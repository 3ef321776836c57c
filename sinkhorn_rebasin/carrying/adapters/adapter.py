"""A LoRA of PEFT in memory: read it, put it on a network, write it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.carrying.adapters.kinds import check_kind
from sinkhorn_rebasin.carrying.adapters.parts import parts_of
from sinkhorn_rebasin.carrying.update import check_real, wide
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.files.adapter_folder import read_adapter, write_adapter
from sinkhorn_rebasin.files.atomic import whole_folder
from sinkhorn_rebasin.networks.architecture import named_tensors
from sinkhorn_rebasin.networks.copying import Module, standalone_copy


@dataclass(frozen=True, eq=False, repr=False)
class Adapter:
    """Hold a LoRA with what is known of how it was carried.

    Attributes:
        config: what ``adapter_config.json`` holds.
        tensors: its tensors by name, without PEFT's prefix.
        scales: what each weight's update was multiplied by; empty for one that was not carried.
        judged: loss on held-out data by scale; empty without data.
        notes: anything else worth knowing, a sentence each.

    Example:
        >>> factors = {"lora_A.weight": torch.ones(1, 2), "lora_B.weight": torch.ones(1, 1)}
        >>> adapter = Adapter({"peft_type": "LORA", "lora_alpha": 1}, factors)
        >>> base = nn.Linear(2, 1)
        >>> torch.allclose(adapter.apply(base).weight, base.weight + 1)
        True
    """

    config: Mapping[str, Any]
    tensors: State
    scales: Mapping[str, float] = field(default_factory=dict)
    judged: Mapping[float, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def load(cls, folder: str | PathLike[str]) -> Adapter:
        """Read a folder that PEFT or :meth:`save` wrote; PEFT is not needed.

        Raises:
            CheckpointError: a file is missing or damaged.
            ArchitectureError: it is an adapter of another kind than LoRA, which is named.
        """
        config, tensors = read_adapter(folder)
        check_kind(config)
        return cls(config, tensors)

    def save(self, folder: str | PathLike[str]) -> None:
        """Write a folder that ``PeftModel.from_pretrained`` loads, whole or not at all.

        Raises:
            CheckpointError: the folder cannot be written; what was there before stays.
        """
        with whole_folder(folder) as part:
            write_adapter(part, self.config, self.tensors)

    def apply(self, network: Module) -> Module:
        r"""Copy a network with the adapter merged into its weights.

        .. math:: W' = \frac{m}{\lVert W + c\,BA \rVert} \,(W + c\,BA)

        where it is a DoRA, and :math:`W + c\,BA` where it is none. A weight that is tied to another is untied, as
        PEFT adapts each module by itself.

        Args:
            network: the base that the adapter is for; it is not changed.

        Raises:
            ArchitectureError: a target has no counterpart in the network; it is named.
        """
        return merged(self, network, untie=True)

    def __repr__(self) -> str:
        ranks = sorted(
            {len(t) for key, t in self.tensors.items() if key.endswith(("lora_A.weight", "embedding_A"))}
        )
        rank = " to ".join(str(each) for each in dict.fromkeys([ranks[0], ranks[-1]])) if ranks else "0"
        values = sorted(set(self.scales.values()))
        scale = (
            f"; scale {' to '.join(f'{v:g}' for v in dict.fromkeys([values[0], values[-1]]))}"
            if values
            else ""
        )
        return f"Adapter(rank {rank}; {len(self.tensors)} tensors{scale})"

    def __str__(self) -> str:
        losses = [f"scale {scale:g}: loss {loss:.4g} on held-out data" for scale, loss in self.judged.items()]
        return "\n".join([repr(self), *losses, *(f"note: {note}" for note in self.notes)])


def merged(adapter: Adapter, network: Module, *, untie: bool) -> Module:
    """Copy a network with an adapter merged into its weights: see :meth:`Adapter.apply`.

    Args:
        adapter: to merge.
        network: the base that it is for.
        untie: whether an adapted weight that is tied gets a tensor of its own.
    """
    twin = standalone_copy(network)
    factors, replaced = parts_of(adapter.config, adapter.tensors, network)
    tensors = named_tensors(twin)
    values: dict[str, Tensor] = dict(replaced)
    for pair in factors:
        check_real(pair.weight, tensors[pair.weight], "base")
        values[pair.weight] = pair.added(values.get(pair.weight, tensors[pair.weight]))
        if pair.bias is not None:
            name = pair.bias_name
            if name not in tensors:
                raise ArchitectureError(
                    f"Expected a bias {name!r} that the adapter's {pair.keys['bias']!r} adds to but there is none."
                )
            values[name] = wide(values.get(name, tensors[name])) + pair.scaling * wide(pair.bias)
    weights = {pair.weight for pair in factors} if untie else set()
    with torch.no_grad():
        for name, value in values.items():
            _put(twin, name, value.detach().to(tensors[name]), own=name in weights)
    return twin


def _put(network: nn.Module, name: str, value: Tensor, *, own: bool) -> None:
    """Write a tensor; into one of its own where it is tied, or has another shape."""
    path, _, attribute = name.rpartition(".")
    module = network.get_submodule(path)
    held: Tensor = getattr(module, attribute)
    names = [other for other, each in named_tensors(network).items() if each is held]
    if (own and len(names) > 1) or held.shape != value.shape:
        value = nn.Parameter(value, held.requires_grad) if isinstance(held, nn.Parameter) else value
        setattr(module, attribute, value)
    else:
        held.copy_(value)
