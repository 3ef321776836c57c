"""Witnesses: gradients of single samples in plain loops in float64, and matrices put together from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map


def scores(
    network: nn.Module,
    inputs: Any,
    number: int,
    label: Any,
    criterion: Callable[..., Tensor] = F.cross_entropy,
) -> dict[str, Tensor]:
    """Gradient of the loss of sample ``number`` with this label, (no batch) per parameter."""
    one = tree_map(lambda t: t[number : number + 1], inputs)
    outputs = (
        network(**one) if isinstance(one, dict) else network(*one) if isinstance(one, tuple) else network(one)
    )
    named = dict(network.named_parameters())
    label = torch.as_tensor(label)[None]
    found = torch.autograd.grad(criterion(outputs, label), list(named.values()), allow_unused=True)
    return {
        name: torch.zeros_like(p) if g is None else g
        for (name, p), g in zip(named.items(), found, strict=True)
    }


def weighted_scores(
    network: nn.Module, inputs: Any, samples: int, labels: Tensor | None
) -> list[dict[str, Tensor]]:
    r"""Gradients times :math:`\sqrt{p(y \mid x) / N}`, over all labels or at those given."""
    found = []
    for number in range(samples):
        if labels is not None:
            chosen = [(labels[number], 1.0)]
        else:
            one = tree_map(lambda t, n=number: t[n : n + 1], inputs)
            outputs = (
                network(**one)
                if isinstance(one, dict)
                else network(*one)
                if isinstance(one, tuple)
                else network(one)
            )
            chosen = list(enumerate(outputs.detach().softmax(1)[0].tolist()))
        for label, weight in chosen:
            score = scores(network, inputs, number, label)
            found.append({name: g * (weight / samples) ** 0.5 for name, g in score.items()})
    return found


def fisher_matrix(network: nn.Module, inputs: Any, samples: int, labels: Tensor | None = None) -> Tensor:
    """The whole Fisher information, parameters one after the other as they are registered."""
    rows = torch.stack(
        [
            torch.cat([g.flatten() for g in one.values()])
            for one in weighted_scores(network, inputs, samples, labels)
        ]
    )
    return rows.T @ rows


def flat(state: dict[str, Tensor], network: nn.Module) -> Tensor:
    """A state's parameters as one vector, in the order of the matrix."""
    return torch.cat([state[name].flatten() for name, _ in network.named_parameters()])


def random_difference(network: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """A random tensor for every parameter."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(p.shape, generator=generator, dtype=p.dtype)
        for name, p in network.named_parameters()
    }
