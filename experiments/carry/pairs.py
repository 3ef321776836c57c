"""Two bases of different seeds, and a fine-tune of each, trained once and kept."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from experiments.carry.setting import Setting
from experiments.carry.tasks import Task
from experiments.models.endpoints import endpoint_key, load_or_train, read_tensors
from experiments.models.training import train_endpoint
from sinkhorn_rebasin.networks.copying import standalone_copy


@dataclass(frozen=True)
class Pair:
    """Hold an old and a new base with a fine-tune of each, in evaluation mode."""

    base: nn.Module
    tuned: nn.Module
    new_base: nn.Module
    new_tuned: nn.Module


def load_pair(
    folder: Path, setting: Setting, tasks: tuple[Task, Task], seeds: tuple[int, int], wide: bool = False
) -> Pair:
    """Return a pair from the folder, or train and keep it; `wide` is of the new base."""
    old = _network(folder, setting, tasks, seeds[0], False)
    return Pair(*old, *_network(folder, setting, tasks, seeds[1], wide))


def _network(
    folder: Path, setting: Setting, tasks: tuple[Task, Task], seed: int, wide: bool
) -> tuple[nn.Module, nn.Module]:
    config = setting.endpoint(seed, wide)
    base = load_or_train(folder, config, tasks[0].data)
    tuning = setting.tuning.facts()
    key = json.dumps([endpoint_key(config, tasks[0].data), setting.change, tuning])
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    path = folder / f"{tasks[1].data.name}-{setting.model}-tuned-seed{seed}-{digest}.safetensors"
    tuned = standalone_copy(base)
    if path.is_file():
        tuned.load_state_dict(read_tensors(path))
        return base, tuned.eval()
    tuned = train_endpoint(lambda: standalone_copy(base), tasks[1].data, seed=seed, **tuning)
    part = path.with_suffix(".part")
    save_file({name: tensor.contiguous() for name, tensor in tuned.state_dict().items()}, part)
    part.replace(path)
    return base, tuned
