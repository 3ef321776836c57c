"""Clients that train on data of their own: what leaves them is weights."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence

import lightning
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from experiments.data.data_module import BatchIndexed, as_it_is
from experiments.data.image_data import ImageData

FEWEST_SAMPLES = 64
Asked = Sequence[tuple[Tensor, Tensor]]
"""Some of each client's own images and labels."""


class LocalTraining(lightning.LightningModule):
    """Train one client's network on its own samples."""

    def __init__(self, network: nn.Module, learning_rate: float, momentum: float | None = None) -> None:
        super().__init__()
        self.network, self.learning_rate, self.momentum = network, learning_rate, momentum

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        """Return the cross-entropy of a batch."""
        images, labels = batch
        return F.cross_entropy(self.network(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make Adam, or SGD where there is a momentum."""
        parameters = self.network.parameters()
        if self.momentum is None:
            return torch.optim.Adam(parameters, lr=self.learning_rate)
        return torch.optim.SGD(parameters, lr=self.learning_rate, momentum=self.momentum)


def dirichlet_split(labels: Tensor, clients: int, concentration: float, seed: int) -> list[Tensor]:
    r"""Share samples out so that every client has classes of its own.

    The samples of each class go to clients in shares :math:`p \sim \mathrm{Dirichlet}(\alpha, \dots, \alpha)`. The
    split is drawn anew until every client has at least 64 samples.

    Args:
        labels: one a sample.
        clients: how many.
        concentration: α; the smaller, the fewer classes a client has.
        seed: of all that is drawn.

    Returns:
        The samples' places, client by client.

    Example:
        >>> split = dirichlet_split(torch.arange(4000) % 10, clients=3, concentration=0.5, seed=0)
        >>> torch.equal(torch.cat(split).sort().values, torch.arange(4000))
        True

    Source: Yurochkin et al., "Bayesian Nonparametric Federated Learning of Neural Networks" (2019).
    """
    random = np.random.default_rng(seed)
    classes = [np.flatnonzero(labels.numpy() == label) for label in range(int(labels.max()) + 1)]
    while True:
        parts: list[list[np.ndarray]] = [[] for _ in range(clients)]
        for places in classes:
            shares = random.dirichlet(np.full(clients, concentration))
            ends = (np.cumsum(shares)[:-1] * len(places)).astype(int)
            for part, own in zip(parts, np.split(random.permutation(places), ends), strict=True):
                part.append(own)
        split = [torch.from_numpy(np.concatenate(part)) for part in parts]
        if min(map(len, split)) >= FEWEST_SAMPLES:
            return split


def asked_on(data: ImageData, split: Sequence[Tensor], part: float, seed: int) -> Asked:
    """Draw a part of each client's own images, on which it will tell its loss.

    Example:
        >>> images, labels = torch.randn(20, 1, 2, 2), torch.arange(20) % 2
        >>> data = ImageData(images, labels, images, labels, 2, "noise")
        >>> drawn = asked_on(data, [torch.arange(10), torch.arange(10, 20)], 0.2, seed=0)
        >>> [len(labels) for _, labels in drawn]
        [2, 2]
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = [
        places[torch.randperm(len(places), generator=generator)[: max(1, round(part * len(places)))]]
        for places in split
    ]
    return [(data.train_images[places], data.train_labels[places]) for places in drawn]


@torch.no_grad()
def told_loss(network: nn.Module, asked: Asked) -> float:
    """Return the mean loss over all clients' drawn images: each tells the server its own, and no more."""
    told = [(float(F.cross_entropy(network(images), labels)), len(labels)) for images, labels in asked]
    return sum(loss * count for loss, count in told) / sum(count for _, count in told)


def trained(
    network: nn.Module,
    data: ImageData,
    places: Tensor,
    *,
    epochs: int,
    seed: int,
    learning_rate: float = 1e-3,
    momentum: float | None = None,
    batch_size: int = 64,
) -> nn.Module:
    """Return a copy of a network after training on one client's samples."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    images, labels = data.train_images[places], data.train_labels[places]
    loader: DataLoader[Tensor] = DataLoader(
        BatchIndexed(images, labels),
        batch_size=batch_size,
        shuffle=True,
        collate_fn=as_it_is,
        generator=torch.Generator().manual_seed(seed),
    )
    local = LocalTraining(copy.deepcopy(network).train(), learning_rate, momentum)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        barebones=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trainer.fit(local, loader)
    return local.network.eval()
