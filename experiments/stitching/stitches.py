"""Maps from the units of one network to those of another: permutations, scales, any matrix."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.models.family import Batches
from sinkhorn_rebasin import hard_assignment, sinkhorn
from sinkhorn_rebasin.assignment.temperature import geometric

S = TypeVar("S", bound=nn.Module)


class GroupStitch(nn.Module):
    r"""Order units anew and scale them, as the symmetries of ReLU do.

    .. math:: x \mapsto P\, \mathrm{diag}(s)\, x, \qquad P = \mathrm{Sinkhorn}(X / \tau),\; s = e^z

    Soft in training mode, where P is learned; a permutation in evaluation.

    Args:
        order: unit i of the result begins as unit ``order[i]``.
    """

    def __init__(self, order: Tensor) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.eye(len(order))[order])
        self.log_scales = nn.Parameter(torch.zeros(len(order)))
        self.temperature = 0.5

    def matrix(self) -> Tensor:
        """Return the soft or the hard matrix with its scales."""
        if self.training and self.scores.requires_grad:
            order = sinkhorn(self.scores, self.temperature, tolerance=1e-4).matrix
        else:
            order = torch.eye(len(self.scores))[hard_assignment(self.scores.detach())]
        return order * self.log_scales.exp()

    def forward(self, units: Tensor) -> Tensor:
        """Map (N, units, …)."""
        return torch.einsum("ij,nj...->ni...", self.matrix(), units)


class FullStitch(nn.Module):
    """Map units by any matrix and add a bias.

    Args:
        matrix: with which it begins.
    """

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(matrix.clone()), nn.Parameter(torch.zeros(len(matrix)))

    def forward(self, units: Tensor) -> Tensor:
        """Map (N, units, …)."""
        bias = self.bias.view(-1, *(1,) * (units.ndim - 2))
        return torch.einsum("ij,nj...->ni...", self.weight, units) + bias


def matched_order(sources: Tensor, receivers: Tensor) -> Tensor:
    """Match units by the correlation of their values on the same images.

    Args:
        sources, receivers: (N, units, …).

    Returns:
        For each of the receiver's units, the source's.

    >>> units = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    >>> matched_order(units[:, [1, 2, 0]], units).tolist()
    [2, 0, 1]
    """
    flat = [values.transpose(0, 1).flatten(1) for values in (receivers, sources)]
    flat = [F.normalize(values - values.mean(1, keepdim=True), dim=1) for values in flat]
    return hard_assignment(flat[0] @ flat[1].T)


def fitted(
    stitch: S, top: nn.Module, train: Batches, held: Batches, steps: int, rates: Mapping[str, float]
) -> S:
    """Return the stitch after steps of Adam on the loss of the upper part.

    The upper part stays. Of the beginning and what is met ten times on the way, the one with the least loss on
    held-out images is returned.

    Args:
        stitch: where it begins; it is not changed.
        top: the upper part of the receiver.
        train, held: values of the source at the cut, and labels.
        steps: of Adam.
        rates: by the names of the parameters that are learned; the others stay.
    """
    stitch = copy.deepcopy(stitch).train()
    for name, parameter in stitch.named_parameters():
        parameter.requires_grad_(name in rates)
    learned = [{"params": [stitch.get_parameter(name)], "lr": rate} for name, rate in rates.items()]
    adam, schedule = torch.optim.Adam(learned), geometric(0.5, 0.05)
    best, least = copy.deepcopy(stitch), held_loss(stitch, top, held)
    for step in range(steps):
        stitch.temperature = schedule(step / max(1, steps - 1))  # type: ignore[assignment]
        units, labels = train[step % len(train)]
        loss = F.cross_entropy(top(stitch(units)), labels)
        adam.zero_grad()
        loss.backward()
        adam.step()
        if (step + 1) % max(1, steps // 10) == 0:
            value = held_loss(stitch, top, held)
            if value < least:
                best, least = copy.deepcopy(stitch), value
    return best.eval()


@torch.no_grad()
def held_loss(stitch: nn.Module, top: nn.Module, held: Batches) -> float:
    """Return the loss of a stitch as it is evaluated."""
    was, _ = stitch.training, stitch.eval()
    losses = [F.cross_entropy(top(stitch(units)), labels, reduction="sum") for units, labels in held]
    stitch.train(was)
    return float(sum(losses)) / sum(len(labels) for _, labels in held)


@torch.no_grad()
def accuracy(network: nn.Module, batches: Batches) -> float:
    """Return the share of images that are classified correctly."""
    right = sum(int((network(images).argmax(1) == labels).sum()) for images, labels in batches)
    return right / sum(len(labels) for _, labels in batches)
