"""How much of a carried update is added: a number, one for each group or pattern, or what held-out data say."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sinkhorn_rebasin._typing import BatchAdapter, Criterion
from sinkhorn_rebasin.carrying.carried_update import CarriedUpdate
from sinkhorn_rebasin.carrying.drawn_text import class_axis
from sinkhorn_rebasin.errors import LossError, SpecError
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.networks.batches import move_to, read_batch
from sinkhorn_rebasin.networks.copying import evaluation_copy
from sinkhorn_rebasin.networks.execution import device_of, run_at
from sinkhorn_rebasin.networks.randomness import untouched_randomness
from sinkhorn_rebasin.networks.scoring import scored
from sinkhorn_rebasin.networks.task_loss import logits_of
from sinkhorn_rebasin.permutations import PermutationSpec

Scale: TypeAlias = Literal["auto"] | float | Mapping[str, float]

WITHOUT_DATA = 0.75
"""Chosen on three pairs of MNIST networks: more gains little on the new task and costs the base task much."""

TRIED = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)


def scales_of(scale: Scale, names: Iterable[str], spec: PermutationSpec) -> dict[str, float]:
    """Return the scale of every parameter.

    Args:
        scale: a number; or numbers by the name of a group of units or by a pattern of parameters' names, such as
            ``"blocks.*"``, of which the last that fits counts. What none fits is carried at one.
        names: of the parameters.
        spec: whose groups may be named: then all tensors that hold the group's units.

    Raises:
        SpecError: a scale is no finite number, or its name fits nothing.

    Example:
        >>> scales_of({"a*": 0.5}, ["a.weight", "b.weight"], PermutationSpec((), (), {}))
        {'a.weight': 0.5, 'b.weight': 1.0}
    """
    names = list(names)
    if not isinstance(scale, Mapping):
        return dict.fromkeys(names, WITHOUT_DATA if scale == "auto" else _finite("scale", scale))
    scales = dict.fromkeys(names, 1.0)
    for key, value in scale.items():
        held = {slot.tensor for slot in spec.slots_of(key)} if key in spec else set()
        fitting = [name for name in names if name in held or fnmatchcase(name, key)]
        if not fitting:
            raise SpecError(
                f"Expected scales by a group of units or a pattern of parameters' names but {key!r} fits none of "
                f"them. Groups: {spec.names}."
            )
        scales |= dict.fromkeys(fitting, _finite(f"scale of {key!r}", value))
    return scales


def judged_scales(
    update: CarriedUpdate,
    new_base: nn.Module,
    tuned: nn.Module | None,
    batches: Sequence[Any],
    criterion: Criterion | None,
    batch: BatchAdapter | None,
    tried: Sequence[float] = TRIED,
) -> dict[float, float]:
    """Measure the loss at several scales on held-out data.

    Args:
        update: at scale one.
        new_base: the network that it is for.
        tuned: whose outputs are followed where there is no criterion.
        batches: held-out data.
        criterion: (outputs, labels) to a loss.
        batch: a function from a batch to (inputs, labels).
        tried: scales.

    Raises:
        LossError: there is neither a criterion nor a tuned network with such outputs.
    """
    return {
        scale: loss_of(update.apply(new_base, scale), tuned, batches, criterion, batch) for scale in tried
    }


@torch.no_grad()
def loss_of(
    network: nn.Module,
    tuned: nn.Module | None,
    batches: Sequence[Any],
    criterion: Criterion | None,
    batch: BatchAdapter | None,
) -> float:
    """Return the mean loss of a network, infinite where it is not finite."""
    total, count, axis = 0.0, 0, None
    running = evaluation_copy(network)
    teacher = None if tuned is None else evaluation_copy(tuned)
    state = tensors_of(network)
    for found in batches:
        inputs, labels = read_batch(found, batch, network=network, labelled=criterion is not None)
        inputs, labels = (move_to(part, device_of(state)) for part in (inputs, labels))
        with untouched_randomness():
            outputs = run_at(running, {}, inputs)
            if criterion is not None:
                value = scored(criterion, outputs, labels)
            else:
                wanted = None if teacher is None else logits_of(run_at(teacher, {}, inputs))
                axis = class_axis(running, inputs, logits_of(outputs)) if axis is None else axis
                value = followed(outputs, wanted, axis)
        total, count = total + float(value), count + 1
    mean = total / max(count, 1)
    return mean if math.isfinite(mean) else math.inf


def followed(outputs: Any, wanted: Any, axis: int = -1) -> Tensor:
    r"""Return how far outputs are from those of the tuned network.

    .. math:: \mathrm{KL}\bigl(\mathrm{softmax}(y_{\mathrm{tuned}}) \,\|\, \mathrm{softmax}(y)\bigr)

    over the axis of classes, of which there is more than one entry; and the mean square otherwise. It is a mean over
    everything else.

    Args:
        outputs, wanted: of a network and of the tuned one.
        axis: of the classes, see :func:`class_axis`.

    Raises:
        LossError: the outputs are no tensors of one shape: labels and a criterion are needed then.

    Example:
        >>> followed(torch.zeros(1, 2), torch.zeros(1, 2)).item()
        0.0
    """
    first, second = logits_of(outputs), logits_of(wanted)
    if not (isinstance(first, Tensor) and isinstance(second, Tensor)) or first.shape != second.shape:
        raise LossError(
            "Expected outputs of the shape that the tuned network has, to follow them without labels, but they "
            "differ: pass criterion=, a function of (outputs, labels), and labelled data."
        )
    if first.shape[axis] == 1:
        return F.mse_loss(first, second)
    logs = [each.movedim(axis, -1).flatten(0, -2).log_softmax(-1) for each in (first, second)]
    return F.kl_div(logs[0], logs[1], reduction="batchmean", log_target=True)


def _finite(what: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SpecError(f"Expected {what} to be a finite number or 'auto' but got {value!r}.")
    return float(value)
