"""Owners who have most of some classes and little of the others."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from experiments.data import ImageData
from sinkhorn_rebasin.errors import DataError


def owner_of(classes: int, owners: int) -> Tensor:
    """Return who has most of each class.

    >>> owner_of(10, 2).tolist(), owner_of(10, 4).tolist()
    ([0, 0, 0, 0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 2, 2, 2, 3, 3])
    """
    return torch.arange(classes) * owners // classes


def shares_of_classes(labels: Tensor, owners: int, share: float, seed: int) -> list[Tensor]:
    """Share samples out: most of a class to one owner, the rest in equal parts to the others.

    Args:
        labels: one a sample.
        owners: how many.
        share: of a class, to the owner who has most of it; 1 for owners of different classes.
        seed: of the classes that go together, and of the samples.

    Returns:
        The samples' places, owner by owner.

    Raises:
        DataError: a share that is no majority, or too many owners.

    >>> parts = shares_of_classes(torch.arange(1000) % 10, owners=2, share=0.8, seed=0)
    >>> [len(part) for part in parts], sorted(torch.bincount(torch.arange(1000)[parts[0]] % 10).tolist())[:6]
    ([500, 500], [20, 20, 20, 20, 20, 80])
    """
    classes = int(labels.max()) + 1
    if not 1 / owners <= share <= 1 or not 2 <= owners <= classes:
        raise DataError(
            f"Expected 2 to {classes} owners, and a share from {1 / owners:.2g} to 1, but got {owners} and {share}."
        )
    draw = torch.Generator().manual_seed(seed)
    groups = owner_of(classes, owners)[torch.randperm(classes, generator=draw)]
    parts: list[list[Tensor]] = [[] for _ in range(owners)]
    for label in range(classes):
        places = (labels == label).nonzero().flatten()
        places = places[torch.randperm(len(places), generator=draw)]
        most = round(share * len(places))
        rest = places[most:].tensor_split(owners - 1)
        others = [owner for owner in range(owners) if owner != int(groups[label])]
        parts[int(groups[label])].append(places[:most])
        for owner, part in zip(others, rest, strict=True):
            parts[owner].append(part)
    return [torch.cat(part) for part in parts]


def of_owner(data: ImageData, places: Tensor, name: str) -> ImageData:
    """Return the data with one owner's training images alone, under a name of its own."""
    return replace(
        data, train_images=data.train_images[places], train_labels=data.train_labels[places], name=name
    )
