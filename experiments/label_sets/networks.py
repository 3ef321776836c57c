"""Pairs of networks that know different classes of one data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from experiments.data import ImageData
from experiments.models.endpoints import EndpointConfig, load_or_train


def halves(classes: int, number: int) -> tuple[list[int], list[int]]:
    """Split the classes of a data set into two halves at random, one split a number.

    >>> halves(10, 0) == halves(10, 0), sorted(sum(halves(10, 1), []))
    (True, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    order = torch.randperm(classes, generator=torch.Generator().manual_seed(number)).tolist()
    return sorted(order[: classes // 2]), sorted(order[classes // 2 :])


def of_classes(data: ImageData, classes: Sequence[int]) -> ImageData:
    """Keep the images of some classes; their labels become 0, 1, … in the order of the classes."""
    train, test = (
        torch.isin(labels, torch.tensor(classes)) for labels in (data.train_labels, data.test_labels)
    )
    return replace(
        data,
        train_images=data.train_images[train],
        train_labels=renumbered(data.train_labels[train], classes),
        test_images=data.test_images[test],
        test_labels=renumbered(data.test_labels[test], classes),
        classes=len(classes),
        name=f"{data.name}-{''.join(map(str, classes))}",
    )


def renumbered(labels: Tensor, classes: Sequence[int]) -> Tensor:
    """Turn labels into their places in a list of classes.

    >>> renumbered(torch.tensor([7, 2, 7]), [2, 7]).tolist()
    [1, 0, 1]
    """
    places = torch.full((max(classes) + 1,), -1)
    places[torch.tensor(classes)] = torch.arange(len(classes))
    return places[labels]


def trained_pair(
    number: int, endpoint: EndpointConfig, data: ImageData, cache: Path
) -> tuple[list[nn.Module], tuple[list[int], list[int]]]:
    """Return two networks of other seeds and other classes, and the classes of both.

    The arguments of the endpoint say how many classes each network has.
    """
    parts = halves(data.classes, number)
    seeds = (2 * number, 2 * number + 1)
    networks = [
        load_or_train(cache, replace(endpoint, seed=seed), of_classes(data, part))
        for seed, part in zip(seeds, parts, strict=True)
    ]
    return networks, parts
