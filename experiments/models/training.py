"""Trains a network from scratch on images and labels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.data.image_data import ImageData


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
            inputs = augmented(images[batch]) if augmentation else images[batch]
            inputs = F.avg_pool2d(inputs, 2) if epoch < small_epochs else inputs
            with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                loss = F.cross_entropy(model(inputs), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if scheduler is not None:
                scheduler.step()


def augmented(images: Tensor, reach: int = 4, mirrored: bool = True) -> Tensor:
    """Shift each image by up to so many pixels and flip half of them left to right, or none."""
    count, _, height, width = images.shape
    device = images.device
    shift = torch.randint(2 * reach + 1, (2, count, 1), device=device)
    rows = shift[0] + torch.arange(height, device=device)
    columns = shift[1] + torch.arange(width, device=device)
    flipped = torch.rand(count, 1, device=device) < 0.5 * mirrored
    columns = torch.where(flipped, columns.flip(1), columns)
    padded = F.pad(images, (reach,) * 4).permute(0, 2, 3, 1)
    chosen = padded[torch.arange(count, device=device)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return chosen.permute(0, 3, 1, 2)
