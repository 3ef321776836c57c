"""The loss of a task where no criterion is given: the network's own, or else cross entropy of its logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sinkhorn_rebasin.errors import DataError, LossError


def task_loss(outputs: Any, labels: Any) -> Tensor:
    """Return the loss that a network reports, or cross entropy.

    Networks of Hugging Face report one, ``outputs.loss``, when labels are among their inputs. Without one it is the
    cross entropy of the outputs, or of their ``logits``.

    Raises:
        DataError: there are no labels, and the network reports no loss; or labels are no classes of the network.
        LossError: the outputs are no tensor and hold no logits; or logits of tokens without a loss, of which it is
            not known whether labels are those of the same or of the next token.

    Example:
        >>> import torch
        >>> task_loss({"loss": torch.tensor(2.0), "logits": torch.zeros(4, 2)}, None).item()
        2.0
        >>> round(task_loss({"logits": torch.zeros(4, 2)}, torch.zeros(4, dtype=torch.long)).item(), 4)
        0.6931
    """
    reported = loss_in(outputs)
    if reported is not None:
        return reported.mean()
    if labels is None:
        raise DataError(
            f"Expected labels in every batch, or a network that returns its own loss, but got no labels and "
            f"{type(outputs).__name__} without a loss."
        )
    if isinstance(outputs, Tensor):
        return _cross_entropy(outputs, labels)
    scores = logits_of(outputs)
    if not isinstance(scores, Tensor):
        raise LossError(
            f"Expected a criterion, a function of (outputs, labels), as the network returns "
            f"{type(outputs).__name__}, for which there is no default: pass criterion=, or labels among its inputs "
            f"if it computes its own loss then."
        )
    if has_classes_last(scores, labels):
        raise LossError(
            f"Expected a network that returns its own loss beside logits of shape {tuple(scores.shape)} but got "
            f"none, and labels of shape {tuple(labels.shape)} may be those of the next token: put 'labels' into the "
            f"dict of its inputs, or pass criterion=."
        )
    return _cross_entropy(scores, labels)


def wide_classes(labels: Any) -> Any:
    """Widen narrow integers, which PyTorch takes for no classes.

    >>> import torch
    >>> wide_classes(torch.ones(2, dtype=torch.int32)).dtype, wide_classes(torch.ones(2)).dtype
    (torch.int64, torch.float32)
    """
    narrow = isinstance(labels, Tensor) and labels.dtype in (torch.int8, torch.int16, torch.int32)
    return labels.long() if narrow else labels


def _cross_entropy(scores: Tensor, labels: Any) -> Tensor:
    """Compute the cross entropy of labels that are classes of these scores.

    Raises:
        DataError: they are not.
    """
    if isinstance(labels, Tensor) and labels.is_floating_point() and labels.shape != scores.shape:
        raise DataError(
            f"Expected labels to be classes, whole numbers, or one probability a class of shape "
            f"{tuple(scores.shape)}, but got {labels.dtype} of shape {tuple(labels.shape)}: convert classes with "
            f".long(), or pass criterion= for other targets."
        )
    expected = (*scores.shape[:1], *scores.shape[2:])
    classes = isinstance(labels, Tensor) and not labels.is_floating_point()
    if classes and scores.ndim > 1 and tuple(labels.shape) != expected:
        raise DataError(
            f"Expected labels of shape {expected}, one class a place of outputs of shape {tuple(scores.shape)}, but "
            f"got shape {tuple(labels.shape)}: reshape them, as with .squeeze(1), or pass criterion= for other "
            f"targets."
        )
    try:
        return F.cross_entropy(scores, wide_classes(labels))
    except IndexError as error:
        raise DataError(
            f"Expected labels from 0 to {scores.shape[1] - 1}, as the network has {scores.shape[1]} classes, but got "
            f"labels from {int(labels.min())} to {int(labels.max())}."
        ) from error


def loss_in(outputs: Any) -> Tensor | None:
    """Return the entry or attribute ``loss`` of outputs.

    It is None where that is no tensor.

    >>> import torch
    >>> loss_in(torch.ones(2)) is None
    True
    """
    found = outputs.get("loss") if isinstance(outputs, Mapping) else getattr(outputs, "loss", None)
    return found if isinstance(found, Tensor) else None


def logits_of(outputs: Any) -> Any:
    """Return the logits among outputs.

    Outputs without any come back as they are.

    >>> import torch
    >>> logits_of({"logits": torch.ones(2)}), logits_of([1])
    (tensor([1., 1.]), [1])
    """
    if isinstance(outputs, Tensor):
        return outputs
    found = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    return found if isinstance(found, Tensor) else outputs


def scores_of(outputs: Any) -> Tensor:
    """Return the tensor that a network returned, or the logits among its outputs.

    Raises:
        DataError: there is neither.

    >>> import torch
    >>> scores_of({"logits": torch.ones(1), "features": torch.zeros(3)})
    tensor([1.])
    """
    scores = logits_of(outputs)
    if not isinstance(scores, Tensor):
        raise DataError(
            f"Expected a network that returns a tensor, or logits among other outputs, but got "
            f"{type(outputs).__name__}: wrap it so that it returns its logits."
        )
    return scores


def has_classes_last(scores: Tensor, labels: Any) -> bool:
    """Tell whether logits are those of tokens.

    Their classes are on the last axis then, and labels have the shape of the others.

    >>> import torch
    >>> has_classes_last(torch.zeros(2, 5, 9), torch.zeros(2, 5)), has_classes_last(torch.zeros(2, 9), torch.zeros(2))
    (True, False)
    """
    return scores.ndim > 2 and isinstance(labels, Tensor) and labels.shape == scores.shape[:-1]
