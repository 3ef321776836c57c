"""The straight-through estimator: free weights learn the task, permutations follow them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import BatchAdapter, Criterion, NetworkLike, State
from sinkhorn_rebasin.matching.base import Alignment
from sinkhorn_rebasin.matching.midpoint import Midpoint
from sinkhorn_rebasin.matching.weight_matching import weight_matching
from sinkhorn_rebasin.networks.architecture import single_precision
from sinkhorn_rebasin.networks.handover import gradients_of
from sinkhorn_rebasin.networks.task_loss import task_loss
from sinkhorn_rebasin.permutations import PermutationSpec, permute_state

Progress = Callable[[int, float], None]
"""Called after every epoch with its number and the midpoint loss."""


@torch.inference_mode(False)
def straight_through(
    reference: NetworkLike,
    target: NetworkLike,
    spec: PermutationSpec,
    *,
    data: Iterable[Any] | None = None,
    generator: torch.Generator | None = None,
    criterion: Criterion = task_loss,
    epochs: int = 5,
    lr: float = 1e-3,
    progress: Progress | None = None,
    batch: BatchAdapter | None = None,
    ignore: Sequence[str] = (),
) -> Alignment:
    r"""Learn permutations that minimize the midpoint loss.

    Gradients pass the projection unchanged.

    .. math:: \min_{\tilde\theta} \mathcal C\bigl(\tfrac12 (\theta_R + \pi(\theta_T))\bigr), \qquad
        \pi = \arg\max_\pi \langle \tilde\theta, \pi(\theta_T) \rangle, \qquad
        \frac{\partial \pi(\theta_T)}{\partial \tilde\theta} := I

    Latent weights start at the reference. In each step the target is carried to the place closest to them, by
    weight matching that goes on from the last one; the gradient of the midpoint loss with respect to the weights
    found there moves the latent weights (Adam). The permutations with the lowest midpoint loss over all data are
    returned, those of weight matching, the start, among them; :attr:`Alignment.objective` is that loss before
    training and after every epoch.

    Args:
        reference, target: networks of one architecture, as modules, states or paths; one of them is a
            module. Neither is changed.
        spec: the symmetries, from :func:`discover_symmetry`.
        data: batches of (inputs, labels).
        generator: draws the order of the groups in weight matching.
        criterion: (outputs, labels) to a scalar.
        epochs: passes over the data.
        lr: learning rate of Adam on the latent weights.
        progress: called with the number of each epoch and its midpoint loss.
        batch: a function from a batch to (inputs, labels), for data that yield something else.
        ignore: layers that each network keeps for itself, by name or pattern: see :meth:`PermutationSpec.ignoring`.

    Complexity: per step one forward, one backward and one or a few passes of weight matching, O(n³) per group of
    n units. Use it when data and labels are at hand and weight matching alone leaves a barrier; the Sinkhorn
    methods follow the same loss with gradients that are exact.

    Raises:
        ArchitectureError, SpecError: when the networks differ or the spec is of another one.
        DataError: without data or without a batch.
        LossError: when the loss is no finite scalar.

    Example:
        >>> from torch import nn
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> a, b = (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(2))
        >>> x, labels = torch.randn(16, 4), torch.randint(3, (16,))
        >>> loss = nn.functional.cross_entropy
        >>> found = straight_through(a, b, discover_symmetry(a, x), data=[(x, labels)], criterion=loss)
        >>> min(found.objective) <= found.objective[0]
        True

    Sources: Ainsworth, Hayase, Srinivasa, "Git Re-Basin" (2023); the estimator: Bengio, Léonard, Courville (2013).
    """
    midpoint = Midpoint(reference, target, spec, data, criterion, batch, ignore)
    spec = midpoint.spec
    generator = generator or torch.Generator().manual_seed(0)
    found = weight_matching(midpoint.reference, midpoint.target, spec, generator=generator)
    current = best = dict(found.permutations)
    objective = [midpoint.loss(current)]
    latent = {
        name: single_precision(midpoint.reference[name]).clone().requires_grad_()
        for name in spec.compared
        if _learnable(midpoint.reference[name])
    }
    if not latent or not spec.groups:
        return Alignment(best, spec, tuple(objective), method="straight_through")
    optimizer = torch.optim.Adam(latent.values(), lr=lr)
    for epoch in range(epochs):
        for inputs, labels in midpoint.batches():
            _step(midpoint, latent, current, inputs, labels)
            optimizer.step()
            place = {**midpoint.reference, **{name: value.detach() for name, value in latent.items()}}
            nearest = weight_matching(place, midpoint.target, spec, generator=generator, start=current)
            current = dict(nearest.permutations)
        loss = midpoint.loss(current)
        if loss < min(objective):
            best = current
        objective.append(loss)
        if progress is not None:
            progress(epoch, loss)
    return Alignment(best, spec, tuple(objective), converged=False, method="straight_through")


def _learnable(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _step(midpoint: Midpoint, latent: State, current: dict[str, Tensor], inputs: Any, labels: Any) -> None:
    """Give the latent weights a straight-through gradient.

    It is that of the midpoint loss at the reordered target next to them.
    """
    rebased = permute_state(midpoint.target, midpoint.spec, current)
    with torch.enable_grad():
        leaves = {name: rebased[name].detach().requires_grad_() for name in latent}
        loss = midpoint.batch_loss({**rebased, **leaves}, inputs, labels)
        gradients = gradients_of(loss, list(leaves.values()))
    for tensor, gradient in zip(latent.values(), gradients, strict=True):
        tensor.grad = None if gradient is None else gradient.to(tensor.dtype)
