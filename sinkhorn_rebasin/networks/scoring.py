"""A criterion on what a network returned, and the logits and labels that it compares."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sinkhorn_rebasin._typing import Criterion
from sinkhorn_rebasin.errors import LossError
from sinkhorn_rebasin.networks.counting import compares_classes
from sinkhorn_rebasin.networks.task_loss import has_classes_last, logits_of, loss_in, task_loss, wide_classes


def scored(criterion: Criterion, outputs: Any, labels: Any) -> Tensor:
    """Apply a criterion to what a network returned.

    Criteria of PyTorch take the logits of outputs that are no tensor, with the classes of tokens on their axis 1.
    Other functions take the outputs as they are.

    Raises:
        LossError: a criterion of PyTorch and outputs without logits, a class in place of a criterion, or a complex
            loss.

    Example:
        >>> returned = {"logits": torch.zeros(4, 2)}
        >>> round(scored(F.cross_entropy, returned, torch.zeros(4, dtype=torch.long)).item(), 4)
        0.6931
    """
    check_criterion(criterion)
    by_class = compares_classes(criterion)
    labels = wide_classes(labels) if by_class else labels
    if isinstance(outputs, Tensor) or criterion is task_loss or by_class is None:
        return real_loss(criterion(outputs, labels))
    scores = logits_of(outputs)
    if not isinstance(scores, Tensor):
        raise LossError(
            f"Expected outputs that are a tensor, or hold logits, for a criterion of PyTorch but got "
            f"{type(outputs).__name__}: pass criterion=, a function of (outputs, labels) that picks what it needs."
        )
    return real_loss(criterion(classes_second(scores, labels) if by_class else scores, labels))


def check_criterion(criterion: Criterion) -> None:
    """Raise :class:`LossError` for a class of criteria.

    >>> check_criterion(F.cross_entropy)
    """
    if isinstance(criterion, type):
        raise LossError(
            f"Expected a criterion, a function of (outputs, labels), but got the class {criterion.__name__}: pass "
            f"one of its objects, {criterion.__name__}()."
        )


def real_loss(loss: Tensor) -> Tensor:
    """Return a loss that is no complex number.

    Raises:
        LossError: it is.

    >>> real_loss(torch.tensor(1.0)).item()
    1.0
    """
    if isinstance(loss, Tensor) and loss.is_complex():
        raise LossError(
            f"Expected a real loss but got {loss.dtype}: take the .abs() or .real of what the criterion compares."
        )
    return loss


def classes_second(scores: Tensor, labels: Any) -> Tensor:
    """Move the classes of tokens to axis 1.

    That is where cross entropy has them.

    >>> classes_second(torch.zeros(2, 5, 9), torch.zeros(2, 5)).shape
    torch.Size([2, 9, 5])
    """
    return scores.movedim(-1, 1) if has_classes_last(scores, labels) else scores


def compared(outputs: Any, labels: Any) -> tuple[Any, Any]:
    """Return logits, classes on axis 1, and their labels.

    The labels of language models are those of the next token: logits and labels are shifted against each other where
    that gives the loss that the network reports. Logits of tokens whose loss is neither come back as they are, in
    the outputs.

    >>> logits, labels = torch.eye(5)[None, [1, 2, 3]], torch.tensor([[1, 2, 3]])
    >>> shifted = F.cross_entropy(logits[:, :-1].movedim(-1, 1), labels[:, 1:])
    >>> compared({"logits": logits, "loss": shifted}, labels)[1]
    tensor([[2, 3]])
    """
    scores, loss = logits_of(outputs), loss_in(outputs)
    if isinstance(outputs, Tensor) or not isinstance(scores, Tensor) or not has_classes_last(scores, labels):
        return scores, labels
    scores = classes_second(scores, labels)
    if loss is None:
        return scores, labels
    if not labels.is_floating_point():
        for pair in ((scores[:, :, :-1], labels[:, 1:]), (scores, labels)):
            if pair[1].numel() and _agree(loss, *pair):
                return pair
    return outputs, labels


@torch.no_grad()
def _agree(loss: Tensor, scores: Tensor, labels: Tensor) -> bool:
    """Tell whether a loss is the cross entropy of these logits."""
    other = F.cross_entropy(scores.float(), labels.long())
    tolerance = max(1e-4, 4 * torch.finfo(loss.dtype).eps)
    return torch.allclose(loss.mean().float(), other, rtol=tolerance, atol=tolerance, equal_nan=True)
