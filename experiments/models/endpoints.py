"""Keeps the trained networks that experiments align on disk: endpoints, each of one configuration and data."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from experiments.data.image_data import ImageData
from experiments.models import build_model
from experiments.models.training import train_endpoint
from sinkhorn_rebasin.errors import CheckpointError


@dataclass(frozen=True)
class EndpointConfig:
    """Everything but the data that decides which weights training ends at."""

    model: str
    seed: int
    epochs: int
    arguments: Mapping[str, Any] = field(default_factory=dict)
    learning_rate: float = 1e-3
    batch_size: int = 128
    augmentation: bool = False
    one_cycle: bool = False
    bfloat16: bool = False
    small_epochs: int = 0


def load_or_train(
    folder: Path, config: EndpointConfig, data: ImageData, device: torch.device | str = "cpu"
) -> nn.Module:
    """Return the endpoint of this configuration and data: from `folder` when it is there, else trained and saved.

    Raises:
        CheckpointError: the file that belongs to this configuration was written for another one, or is damaged.
    """
    key = endpoint_key(config, data)
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    path = folder / f"{data.name}-{config.model}-seed{config.seed}-{digest}.safetensors"
    if path.is_file():
        return _load(path, key, config)
    model = train_endpoint(
        lambda: build_model(config.model, **config.arguments),
        data,
        seed=config.seed,
        epochs=config.epochs,
        learning_rate=config.learning_rate,
        batch_size=config.batch_size,
        augmentation=config.augmentation,
        one_cycle=config.one_cycle,
        bfloat16=config.bfloat16,
        small_epochs=config.small_epochs,
        device=device,
    )
    _save(model, path, key)
    return model


def endpoint_key(config: EndpointConfig, data: ImageData) -> str:
    """What decides an endpoint: its configuration and a fingerprint of the data."""
    return json.dumps({**asdict(config), "data": _fingerprint(data)}, sort_keys=True)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        CheckpointError: the file is cut short or damaged.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"Expected tensors in {path} but got {error}. Delete the file.") from error


def checksum(state: Mapping[str, Tensor]) -> str:
    """A hash of the names, types, shapes and values of tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _save(model: nn.Module, path: Path, key: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    state = model.state_dict()
    save_file(state, part, metadata={"config": key, "checksum": checksum(state)})
    part.replace(path)  # an interrupted run leaves no half-written endpoint


def _load(path: Path, key: str, config: EndpointConfig) -> nn.Module:
    state = read_tensors(path)
    with safe_open(path, framework="pt") as file:
        found = file.metadata() or {}
    if found.get("config") != key:
        raise CheckpointError(
            f"Expected {path.name} to hold the endpoint of {key} but got that of {found.get('config')}. Delete the "
            f"file."
        )
    # Those that were written before there was a checksum have none.
    if found.get("checksum", checksum(state)) != checksum(state):
        raise CheckpointError(
            f"Expected {path} to hold the weights that were written to it but their checksum differs: the file was "
            f"damaged or changed. Delete it, and the network is trained again."
        )
    model = build_model(config.model, **config.arguments)
    model.load_state_dict(state)
    return model.eval()


def _fingerprint(data: ImageData) -> dict[str, Any]:
    return {
        "name": data.name,
        "images": list(data.train_images.shape),
        "labels": zlib.crc32(data.train_labels.numpy().tobytes()),
        "first_image": zlib.crc32(data.train_images[0].numpy().tobytes()),
    }
