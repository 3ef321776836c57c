"""Accuracy of networks that answer for two sets of classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


@torch.no_grad()
def joint_accuracy(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    parts: tuple[Sequence[int], Sequence[int]],
    batch: int = 250,
    bfloat16: bool = False,
) -> dict[str, float]:
    """Return the accuracy over all classes, and the mean accuracy of each set on its own images.

    Args:
        network: images to scores, of the first set of classes and then of the second.
        images, labels: of all classes.
        parts: both sets.
        batch: how many images run at once.
        bfloat16: run in mixed precision.

    >>> scores = torch.tensor([[0.0, 2.0, 1.0, 0.0], [3.0, 0.0, 0.0, 4.0]])
    >>> joint_accuracy(lambda images: scores, torch.zeros(2, 1), torch.tensor([3, 0]), ([0, 3], [1, 2]))
    {'joint': 0.5, 'apart': 1.0}
    """
    classes = torch.tensor([*parts[0], *parts[1]])
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        scores = torch.cat([network(part) for part in images.split(batch)])
    joint = (classes[scores.argmax(1)] == labels).double().mean()
    sizes, right = [len(part) for part in parts], []
    for part, own in zip(parts, scores.split(sizes, 1), strict=True):
        among = torch.isin(labels, torch.tensor(part))
        if among.any():
            right.append((torch.tensor(part)[own[among].argmax(1)] == labels[among]).double().mean())
    return {"joint": float(joint), "apart": float(torch.stack(right).mean())}
