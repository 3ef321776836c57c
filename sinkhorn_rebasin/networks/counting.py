"""What counts in a batch: which labels a criterion looks at, and how much a batch weighs in a mean over batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.networks.structures import named_tensors_in, replaced, tensors_in
from sinkhorn_rebasin.networks.task_loss import task_loss

_BY_CLASS = (F.cross_entropy, F.nll_loss, task_loss)
_BY_ELEMENT = (
    *(F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss),
    *(F.binary_cross_entropy, F.binary_cross_entropy_with_logits),
)
_LAYERS_BY_CLASS = (nn.CrossEntropyLoss, nn.NLLLoss)
_LAYERS_BY_ELEMENT = (
    *(nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss),
    *(nn.BCELoss, nn.BCEWithLogitsLoss),
)


@dataclass(frozen=True)
class _Known:
    """Hold what is known of PyTorch's criteria."""

    by_class: bool
    reduction: str = "mean"
    ignore_index: int = -100
    weight: Tensor | None = None


def _known(criterion: Any) -> _Known | None:
    """Read a layer, a function or a partial.

    None stands for functions of others.
    """
    if isinstance(criterion, nn.Module):
        forward, options = type(criterion).forward, vars(criterion) | dict(criterion.named_buffers())
        by_class = any(forward is kind.forward for kind in _LAYERS_BY_CLASS)
        by_element = any(forward is kind.forward for kind in _LAYERS_BY_ELEMENT)
    else:
        bound = isinstance(criterion, partial) and not criterion.args
        function, options = (criterion.func, criterion.keywords) if bound else (criterion, {})
        by_class, by_element = function in _BY_CLASS, function in _BY_ELEMENT
    if not (by_class or by_element):
        return None
    names = ("reduction", "ignore_index", "weight") if by_class else ("reduction",)
    return _Known(by_class, **{name: options[name] for name in names if name in options})


def compares_classes(criterion: Callable[..., Any]) -> bool | None:
    """Tell whether a criterion compares classes or numbers.

    None stands for functions of others.

    >>> compares_classes(F.cross_entropy), compares_classes(nn.MSELoss()), compares_classes(print)
    (True, False, None)
    """
    known = _known(criterion)
    return None if known is None else known.by_class


def adds_up(criterion: Callable[..., Any]) -> bool:
    """Tell whether a criterion sums over a batch.

    What batches give then adds up. Of functions of others it is not known.

    >>> adds_up(nn.CrossEntropyLoss(reduction="sum")), adds_up(F.cross_entropy)
    (True, False)
    """
    known = _known(criterion)
    return known is not None and known.reduction == "sum"


def counted_labels(labels: Any, criterion: Callable[..., Any] | None = None) -> Any:
    """Mark labels that do not count by -1.

    They are integer labels: negative ones, and those that a criterion ignores.

    >>> counted_labels(torch.tensor([2, -100, 0]), nn.CrossEntropyLoss(ignore_index=0)).tolist()
    [2, -1, -1]
    """
    if (
        not isinstance(labels, Tensor)
        or labels.is_floating_point()
        or labels.is_complex()
        or labels.dtype == torch.bool
    ):
        return labels
    known = _known(criterion)
    counts = labels >= 0
    if known is not None and known.by_class:
        counts &= labels != known.ignore_index
    return labels.masked_fill(~counts, -1) if labels.dtype.is_signed else labels


def batch_weight(outputs: Any, labels: Any, criterion: Callable[..., Any], samples: int) -> float | Tensor:
    """Return the divisor of a batch's mean.

    The mean is a criterion's. By it, batches of any size equal one batch.

    With cross-entropy that is the number of labels that count, or the weights of their classes; with losses of single
    numbers their number. Of other criteria it is the number of labels that may be classes, where they are classes,
    and else that of samples.

    >>> labels = torch.tensor([1, -100, 0])
    >>> float(batch_weight(torch.zeros(3, 2), labels, F.cross_entropy, 3))
    2.0
    """
    known = _known(criterion)
    if not isinstance(outputs, Tensor) or not isinstance(labels, Tensor):
        return samples
    if known is not None and not known.by_class:
        return torch.broadcast_shapes(outputs.shape, labels.shape).numel()
    if known is not None and labels.is_floating_point():
        return labels.numel() / (outputs.shape[1] if outputs.ndim > 1 else labels.numel())
    if known is None and not classifies(outputs, labels):
        return samples
    counted = counted_labels(labels, criterion)
    if known is None or known.weight is None:
        return (counted >= 0).sum()
    return known.weight.to(labels.device)[counted[counted >= 0]].sum()


def classifies(outputs: Any, labels: Any) -> bool:
    """Tell whether the task is classification.

    Outputs are (samples, classes, ...) and labels integer classes (samples, ...) then.

    >>> classifies(torch.zeros(4, 3), torch.zeros(4, dtype=torch.long))
    True
    """
    return (
        isinstance(outputs, Tensor)
        and isinstance(labels, Tensor)
        and outputs.ndim >= 2
        and outputs.shape[1] > 1
        and labels.shape == outputs.shape[:1] + outputs.shape[2:]
        and not (labels.is_floating_point() or labels.is_complex())
    )


def check_distributions(labels: Any, criterion: Callable[..., Any]) -> None:
    """Raise DataError unless labels are class probabilities.

    Cross entropy, as a plain function, would read other numbers as such.

    >>> check_distributions(torch.tensor([[0.5, 0.5]]), F.cross_entropy)
    >>> check_distributions(torch.tensor([[1.0, 1.0]]), nn.CrossEntropyLoss())
    """
    if (
        criterion not in (F.cross_entropy, task_loss)
        or not isinstance(labels, Tensor)
        or not labels.is_floating_point()
    ):
        return
    if labels.ndim < 2 or labels.numel() == 0:
        return
    sums, lowest = labels.detach().float().sum(1), float(labels.min())
    wrong = sums.flatten()[(sums - 1).abs().argmax()]
    tolerance = max(1e-3, 4 * torch.finfo(labels.dtype).eps)
    if lowest < -tolerance or not float((wrong - 1).abs()) <= tolerance:
        found = (
            f"a row that adds up to {float(wrong):.4g}" if lowest >= -tolerance else f"an entry {lowest:.4g}"
        )
        raise DataError(
            f"Expected floating point labels that are probabilities of classes, in rows (axis 1) that add up to one, "
            f"as the criterion is cross entropy, but got {found} in labels of shape {tuple(labels.shape)}. Pass the "
            f"criterion that they are for, such as criterion=F.binary_cross_entropy_with_logits (or "
            f"F.binary_cross_entropy, for probabilities) for several labels a sample and criterion=F.mse_loss for "
            f"numbers, or criterion=nn.CrossEntropyLoss() for weights that are meant so."
        )


def samples_in(inputs: Any, labels: Any) -> int:
    """Count the samples of a batch.

    The first tensor of its labels tells, or else of its inputs.

    Raises:
        DataError: neither has a tensor with a batch dimension.

    Example:
        >>> samples_in(torch.zeros(3, 2), (torch.zeros(3), torch.ones(3)))
        3
    """
    for part in (labels, inputs):
        for tensor in tensors_in(part):
            if tensor.ndim > 0:
                return tensor.shape[0]
    raise DataError("Expected labels or inputs with a batch dimension but found neither to be a tensor.")


def check_rows(inputs: Any, labels: Tensor) -> None:
    """Raise DataError unless inputs and labels align.

    Every tensor of the inputs must have the samples of the labels along its first axis.

    >>> check_rows({"x": torch.zeros(3, 2), "name": "text"}, torch.zeros(3))
    """
    for path, tensor in named_tensors_in(inputs):
        if tensor.ndim == 0 or tensor.shape[0] != len(labels):
            where = f"inputs{path}"
            raise DataError(
                f"Expected the {len(labels)} samples of the labels along the first axis of every input, to pick "
                f"single samples, but {where} has shape {tuple(tensor.shape)}: put the axis of samples first, and "
                f"keep what belongs to a whole batch out of its inputs or repeat it for each sample."
            )


def with_counted_labels(inputs: Any, labels: Any, criterion: Callable[..., Any]) -> tuple[Any, Any]:
    """Drop samples without labels that count.

    The loss of such a sample alone is no number.

    >>> with_counted_labels(torch.tensor([[5.0], [6.0]]), torch.tensor([-100, 1]), F.cross_entropy)
    (tensor([[6.]]), tensor([1]))

    Raises:
        DataError: an input has not the samples along its first axis.
    """
    counted = counted_labels(labels, criterion)
    if counted is labels or counted.ndim == 0:
        return inputs, labels
    kept = (counted >= 0).reshape(len(counted), -1).any(1)
    if bool(kept.all()):
        return inputs, labels
    check_rows(inputs, labels)
    return replaced(inputs, lambda tensor: tensor[kept]), labels[kept]
