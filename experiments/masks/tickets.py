"""Networks that are pruned by magnitude, go back to early weights and train again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune

from experiments.data import ImageData
from experiments.masks.moving import MovingMask
from experiments.masks.setting import Setting
from experiments.models.family import Batches
from experiments.models.training import augmented

Masks = Mapping[str, Tensor]
WARM_UP = 0.1


@dataclass(frozen=True)
class Ticket:
    """Hold one network before and after it was trained, and the mask that its own pruning gave.

    Attributes:
        seed: of everything that was drawn.
        early: the weights to which pruned networks go back.
        dense: the trained network.
        mask: of its weights, True where one is left.
        accuracy: on test images after training from the early weights under that mask.
    """

    seed: int
    early: dict[str, Tensor]
    dense: nn.Module
    mask: dict[str, Tensor]
    accuracy: float = float("nan")

    def with_mask(self, mask: Masks) -> Ticket:
        """Return the same network with another mask."""
        return replace(self, mask=dict(mask))


def ticket(setting: Setting, data: ImageData, tests: Batches, seed: int) -> Ticket:
    """Train a network, prune it in rounds, and train it under its mask."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = setting.fresh()
    train(network, setting, data, seed, until=setting.rewind)
    early = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    train(network, setting, data, seed, since=setting.rewind)
    found = Ticket(seed, early, network.eval(), magnitude_mask(network, {}, 0.0))
    pruned = network
    for number in range(1, setting.rounds + 1):
        sparsity = 1 - (1 - setting.sparsity) ** (number / setting.rounds)
        found = found.with_mask(magnitude_mask(pruned, found.mask, sparsity))
        pruned = retrained(found, setting, data)
    return replace(found, accuracy=accuracy(pruned, tests))


def retrained(start: Ticket, setting: Setting, data: ImageData, moving: bool = False) -> nn.Module:
    """Return the network after training from its early weights under its mask.

    Args:
        start: whose mask, early weights and seed are taken.
        setting, data: of the training.
        moving: let the mask move on the way.
    """
    network = setting.fresh()
    network.load_state_dict(start.early)
    for name, module in prunable(network).items():
        prune.custom_from_mask(module, "weight", start.mask[f"{name}.weight"])
    schedule = setting.moves if moving else replace(setting.moves, every=0)
    with MovingMask(prunable(network), schedule) as masks:
        train(network, setting, data, start.seed, since=setting.rewind, masks=masks)
    for module in prunable(network).values():
        prune.remove(module, "weight")
    return network.eval()


def prunable(network: nn.Module) -> dict[str, nn.Module]:
    """Return the layers with a matrix or filters, by name.

    >>> list(prunable(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))))
    ['0', '2']
    """
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(getattr(module, "weight", None), Tensor) and module.weight.ndim > 1  # type: ignore[operator]
    }


def magnitude_mask(network: nn.Module, before: Masks, sparsity: float) -> dict[str, Tensor]:
    """Return the mask of the largest weights, over all layers together.

    Args:
        network: whose weights count.
        before: an earlier mask; what it leaves out stays out.
        sparsity: share that is left out.

    >>> network = nn.Linear(4, 1)
    >>> network.weight.data = torch.tensor([[1.0, -4.0, 2.0, -3.0]])
    >>> magnitude_mask(nn.Sequential(network), {}, 0.5)["0.weight"].int().tolist()
    [[0, 1, 0, 1]]
    """
    sizes = {f"{name}.weight": module.weight.detach().abs() for name, module in prunable(network).items()}  # type: ignore[operator]
    sizes = {name: size.where(before[name], -1.0) if name in before else size for name, size in sizes.items()}
    flat = torch.cat([size.flatten() for size in sizes.values()])
    kept = torch.zeros_like(flat, dtype=torch.bool)
    kept[flat.topk(round((1 - sparsity) * len(flat))).indices] = True
    parts = kept.split([size.numel() for size in sizes.values()])
    return {name: part.view_as(sizes[name]) for name, part in zip(sizes, parts, strict=True)}


def sparsity_of(mask: Masks) -> float:
    """Return the share that a mask leaves out.

    >>> sparsity_of({"weight": torch.tensor([True, False, False, False])})
    0.75
    """
    return 1 - sum(int(part.sum()) for part in mask.values()) / sum(part.numel() for part in mask.values())


def train(
    network: nn.Module,
    setting: Setting,
    data: ImageData,
    seed: int,
    since: int = 0,
    until: int | None = None,
    masks: MovingMask | None = None,
) -> None:
    """Train a network during some epochs of its schedule.

    The rate rises for a tenth of all steps and falls to zero linearly. The order of the images is that of the seed
    and the epoch, so that a network that goes back sees again what it saw. Masks that move do so in place of a step.
    """
    training = setting.training
    count, size = len(data.train_labels), min(training.batch_size, len(data.train_labels))
    steps = training.epochs * (count // size)
    options: dict[str, Any] = {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
    sgd = torch.optim.SGD(network.parameters(), training.learning_rate, **options)
    network.train()
    with torch.random.fork_rng(devices=[]):
        for epoch in range(since, training.epochs if until is None else until):
            torch.manual_seed(1000 * seed + epoch)
            for number, batch in enumerate(torch.randperm(count).split(size)[: count // size]):
                done = (epoch * (count // size) + number) / steps
                rate = training.learning_rate * min((done + 1 / steps) / WARM_UP, (1 - done) / (1 - WARM_UP))
                sgd.param_groups[0]["lr"] = rate
                images = data.train_images[batch]
                images = augmented(images) if training.augmentation else images
                with torch.autocast("cpu", torch.bfloat16, enabled=training.bfloat16):
                    loss = F.cross_entropy(network(images), data.train_labels[batch])
                sgd.zero_grad()
                loss.backward()
                if masks is None or not masks.moves(epoch * (count // size) + number, steps, sgd):
                    sgd.step()


@torch.no_grad()
def accuracy(network: nn.Module, batches: Batches) -> float:
    """Return the share of images that a network classifies correctly."""
    right = sum(int((network(images).argmax(1) == labels).sum()) for images, labels in batches)
    return right / sum(len(labels) for _, labels in batches)
