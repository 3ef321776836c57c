"""Endpoints: networks trained from scratch, the pairs that experiments align, kept on disk once trained."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.data.image_data import ImageData
from experiments.models import build_model
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


def train_endpoint(
    make_model: Callable[[], nn.Module],
    data: ImageData,
    *,
    seed: int,
    epochs: int,
    learning_rate: float = 1e-3,
    batch_size: int = 128,
    augmentation: bool = False,
    one_cycle: bool = False,
    bfloat16: bool = False,
    small_epochs: int = 0,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """Train a network on cross-entropy and return it in evaluation mode on the CPU.

    `seed` decides the initial weights, the order of the images and the augmentation; the global random state is
    left as it was. Every epoch visits the images in a new order and drops an incomplete last batch.
    `augmentation` shifts each image by up to 4 pixels and flips half of them left to right. The optimiser is Adam,
    or, with `one_cycle`, SGD with Nesterov momentum 0.9 and weight decay 5e-4 whose learning rate rises to
    `learning_rate` and falls to zero. `bfloat16` runs matrix products and convolutions in that type, with the
    channels of images last in memory, which is fastest on processors. The first `small_epochs` of the epochs see
    images of half the height and width, which a convolution network learns from in a third of the time.

    Source of the schedule: Leslie N. Smith and Nicholay Topin, "Super-Convergence" (2018).
    """
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        layout = torch.channels_last if bfloat16 else torch.contiguous_format
        model = make_model().to(device, memory_format=layout).train()
        batch_size = min(batch_size, len(data.train_labels))
        steps = epochs * (len(data.train_labels) // batch_size)
        optimizer, scheduler = _optimizer(model, learning_rate, steps if one_cycle else None)
        _train(model, data, epochs, optimizer, scheduler, batch_size, augmentation, bfloat16, small_epochs)
    return model.to("cpu", memory_format=torch.contiguous_format).eval()


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


def _optimizer(
    model: nn.Module, learning_rate: float, cycle: int | None
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.OneCycleLR | None]:
    if not cycle:
        return torch.optim.Adam(model.parameters(), lr=learning_rate), None
    sgd = torch.optim.SGD(model.parameters(), learning_rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
    return sgd, torch.optim.lr_scheduler.OneCycleLR(sgd, learning_rate, cycle, cycle_momentum=False)


def _train(
    model: nn.Module,
    data: ImageData,
    epochs: int,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.OneCycleLR | None,
    batch_size: int,
    augmentation: bool,
    bfloat16: bool,
    small_epochs: int,
) -> None:
    device = next(model.parameters()).device
    images, labels = data.train_images.to(device), data.train_labels.to(device)
    console = Console(stderr=True)
    passes = track(
        range(epochs),
        f"{type(model).__name__} on {data.name}",
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    for epoch in passes:
        for batch in torch.randperm(len(labels), device=device).split(batch_size):
            if len(batch) < batch_size:
                break
            inputs = _augmented(images[batch]) if augmentation else images[batch]
            inputs = F.avg_pool2d(inputs, 2) if epoch < small_epochs else inputs
            with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                loss = F.cross_entropy(model(inputs), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if scheduler is not None:
                scheduler.step()


def _augmented(images: Tensor, reach: int = 4) -> Tensor:
    count, _, height, width = images.shape
    device = images.device
    shift = torch.randint(2 * reach + 1, (2, count, 1), device=device)
    rows = shift[0] + torch.arange(height, device=device)
    columns = shift[1] + torch.arange(width, device=device)
    flipped = torch.rand(count, 1, device=device) < 0.5
    columns = torch.where(flipped, columns.flip(1), columns)
    padded = F.pad(images, (reach,) * 4).permute(0, 2, 3, 1)
    chosen = padded[torch.arange(count, device=device)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return chosen.permute(0, 3, 1, 2)


def _fingerprint(data: ImageData) -> dict[str, Any]:
    return {
        "name": data.name,
        "images": list(data.train_images.shape),
        "labels": zlib.crc32(data.train_labels.numpy().tobytes()),
        "first_image": zlib.crc32(data.train_images[0].numpy().tobytes()),
    }
