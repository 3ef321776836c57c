"""One way from a batch, as people have it, to the inputs of a network and their labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from sinkhorn_rebasin._typing import BatchAdapter, Criterion
from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.networks.arguments import parameter_names, takes_several
from sinkhorn_rebasin.networks.counting import check_distributions
from sinkhorn_rebasin.networks.structures import holds_nothing, named_tensors_in, replaced, tensors_in
from sinkhorn_rebasin.networks.task_loss import task_loss

LABELS = ("labels", "label", "targets", "target", "y")
"""Names of keys, fields and attributes that hold labels."""


def batches_in(data: Any, name: str = "data") -> Iterable[Any]:
    """Return data that yield batches as they are.

    Args:
        data: a DataLoader, a list of batches, or anything else to go through.
        name: of the argument, for the message.

    Raises:
        DataError: they yield no batches: nothing, one tensor, a dict, or a dataset, whose parts are single samples.

    >>> batches_in([torch.zeros(1, 2)])
    [tensor([[0., 0.]])]
    """
    if isinstance(data, (str, bytes, Mapping, Tensor)) or not isinstance(data, Iterable):
        raise DataError(
            f"Expected {name} to yield batches but got {type(data).__name__}; pass a DataLoader or a list of batches."
        )
    return data


def endless_batches(data: Iterable[Any]) -> Iterator[Any]:
    """Go through data again and again.

    What an iterator yields is kept, for it comes once.

    Raises:
        DataError: they yield no batches, or none is left.

    >>> batches = endless_batches(iter([1, 2]))
    >>> [next(batches) for _ in range(5)]
    [1, 2, 1, 2, 1]
    """
    kept: list[Any] = []
    while True:
        read = False
        for batch in batches_in(data):
            read = True
            if isinstance(data, Iterator):
                kept.append(batch)
            yield batch
        if not read:
            raise DataError("Expected at least one batch but got none.")
        data = kept or data


def read_batch(
    batch: Any,
    adapter: BatchAdapter | None = None,
    *,
    network: nn.Module | None = None,
    labelled: bool = True,
    criterion: Criterion | None = None,
    example: Sequence[str] | None = None,
) -> tuple[Any, Any]:
    """Return the inputs and labels of a batch.

    Without an adapter, a batch is one of these:

    - a pair (inputs, labels), where inputs are what the network takes: a tensor, a tuple of positional or a dict of
      keyword arguments, or an object as the one argument;
    - a dict with ``labels``, or a named tuple with a field called so: the rest are the inputs. A network with an
      argument of that name is given the labels too;
    - an object with an attribute called so: the object is the input;
    - where labels are not needed, inputs alone; and a dict of inputs to which the network answers with its own loss.

    Args:
        batch: what the data yield.
        adapter: a function from a batch to (inputs, labels), instead of these rules.
        network: the network that runs on the inputs, whose signature tells arguments from labels.
        labelled: whether labels are needed.
        criterion: what the labels are for; ``task_loss`` may do without, as where the network reports a loss.
        example: the arguments of the network that symmetries were found with, as ``spec.validity`` has them.

    Raises:
        DataError: the batch is none of these, or may be several of them.

    Example:
        >>> inputs, labels = read_batch({"x": torch.zeros(4, 2), "labels": torch.ones(4)})
        >>> list(inputs), len(labels)
        (['x'], 4)
        >>> read_batch([1, 2], lambda batch: (torch.tensor(batch), None), labelled=False)
        (tensor([1, 2]), None)
    """
    if adapter is not None:
        inputs, labels = _adapted(batch, adapter)
    else:
        inputs, labels = _Parts(batch, network, labelled, example).split()
    if holds_nothing(inputs):
        raise _unknown(batch, f"no inputs were found in it, only {_described(inputs)}.")
    if labelled and labels is None and not (criterion is task_loss and isinstance(inputs, Mapping)):
        raise _unknown(batch, "it has no labels.")
    if criterion is not None and not (criterion is task_loss and _shows_labels(inputs)):
        check_distributions(labels, criterion)
    return inputs, _out_of_inference_mode(labels)


def name_of_labels(parts: Mapping[str, Any]) -> str | None:
    """Return the first key that names labels.

    >>> name_of_labels({"x": 1, "labels": 2}), name_of_labels({"x": 1, "labels": None})
    ('labels', None)
    """
    return next((name for name in LABELS if parts.get(name) is not None), None)


def _out_of_inference_mode(labels: Any) -> Any:
    """Copy labels that were made in inference mode, which a loss could not be differentiated with."""
    if torch.is_inference_mode_enabled() or not any(tensor.is_inference() for tensor in tensors_in(labels)):
        return labels
    return replaced(labels, torch.clone)


def _shows_labels(inputs: Any) -> bool:
    """Tell whether a network is shown the labels, and what they are is its own affair."""
    return isinstance(inputs, Mapping) and name_of_labels(inputs) is not None


class _Parts:
    """Hold the rules for batches without an adapter."""

    def __init__(
        self, batch: Any, network: nn.Module | None, labelled: bool, example: Sequence[str] | None
    ) -> None:
        self.batch, self.network, self.labelled = batch, network, labelled
        self.names = parameter_names(network) if network is not None else ()
        self.several = len(example) > 1 if example else network is not None and takes_several(network)

    def split(self) -> tuple[Any, Any]:
        """Split the batch into inputs and labels."""
        batch = self.batch
        if isinstance(batch, Mapping):
            return self._named(dict(batch))
        if isinstance(batch, tuple) and hasattr(batch, "_fields"):
            fields = dict(zip(batch._fields, batch, strict=False))
            is_known = any(name in fields for name in LABELS) or set(fields) <= set(self.names)
            if is_known:
                return self._named({name: part for name, part in fields.items() if part is not None})
        if isinstance(batch, (tuple, list)) and not isinstance(batch, PackedSequence):
            return self._positional(batch)
        if isinstance(batch, (Tensor, PackedSequence)):
            return self._alone()
        name = next((name for name in LABELS if getattr(batch, name, None) is not None), None)
        return self._alone() if name is None else (batch, getattr(batch, name))

    def _named(self, parts: dict[str, Any]) -> tuple[Any, Any]:
        """Split what has names."""
        name = name_of_labels(parts)
        if name is None:
            return (parts, None) if isinstance(self.batch, Mapping) else self._alone(parts)
        labels = parts[name]
        if name not in LABELS[:2] and name in self.names:
            raise _unknown(
                self.batch,
                f"{name!r} may be its labels, and is an argument of {type(self.network).__name__} as well: write "
                f"`({{...}}, labels)`.",
            )
        inputs = parts if name in self.names else {key: part for key, part in parts.items() if key != name}
        if isinstance(self.batch, Mapping) or (inputs and set(inputs) <= set(self.names)):
            return inputs, labels
        if len(inputs) == 1:
            return next(iter(inputs.values())), labels
        raise _unknown(
            self.batch,
            f"its fields {', '.join(map(repr, inputs))} are no arguments of the network by their names: write "
            f"`(({', '.join(inputs)}), {name})`.",
        )

    def _positional(self, batch: Sequence[Any]) -> tuple[Any, Any]:
        """Split a tuple or list."""
        if len(batch) == 2:
            inputs, labels = batch
            is_whole = isinstance(inputs, (tuple, list, Mapping)) and not hasattr(batch, "_fields")
            several = self.several or hasattr(batch, "_fields")
            if self.labelled or is_whole or not several or not tensors_in(labels):
                return inputs, labels
            raise _unknown(
                batch,
                f"its second part may be labels, or an input of {type(self.network).__name__}, and is never "
                f"dropped: write `((x, mask), labels)` or `((x, mask), None)` if it is an "
                f"argument, `((x,), labels)` if it is labels, and `((a, b),)` if both are one argument.",
            )
        if len(batch) == 1 and not self.labelled:
            return batch, None
        if len(batch) < 2:
            return self._alone()
        raise _unknown(
            batch,
            f"which of its {len(batch)} parts are labels is not known: write `((x, mask), labels)` if the last is.",
        )

    def _alone(self, inputs: Any = None) -> tuple[Any, Any]:
        """Take the batch as inputs alone."""
        if self.labelled:
            raise _unknown(
                self.batch,
                "it has no labels: write `(inputs, labels)`, or `(x, x)` for a criterion that needs none.",
            )
        return (self.batch if inputs is None else inputs), None


def _adapted(batch: Any, adapter: BatchAdapter) -> tuple[Any, Any]:
    if not callable(adapter):
        raise DataError(
            f"Expected batch= to be a function from a batch to (inputs, labels) but got {type(adapter).__name__}."
        )
    found = adapter(batch)
    if not isinstance(found, (tuple, list)) or len(found) != 2:
        raise DataError(
            f"Expected batch= to return a pair (inputs, labels), with None for labels where there are none, but it "
            f"returned {_described(found)}."
        )
    return found[0], found[1]


def _described(found: Any) -> str:
    if found is None:
        return "None"
    kind = type(found).__name__
    if isinstance(found, Mapping):
        return f"a {kind} of {', '.join(map(repr, found)) or 'nothing'}"
    return f"a {kind} of {len(found)}" if isinstance(found, (tuple, list)) else f"a {kind}"


def _unknown(batch: Any, reason: str) -> DataError:
    """Return the error for a batch not understood."""
    return DataError(
        f"Expected every batch to be a pair (inputs, labels) but got {_described(batch)}: {reason} Or pass "
        f"batch=, a function from a batch to (inputs, labels), such as `batch=lambda b: ((b[0], b[1]), b[2])`."
    )


def move_to(data: Any, device: torch.device) -> Any:
    """Copy data with every tensor on a device.

    Tensors are found wherever they lie.

    Raises:
        DataError: a tensor cannot be moved there; it is named, with the devices of all.

    Example:
        >>> move_to({"x": [torch.zeros(1)]}, torch.device("meta"))["x"][0].device.type
        'meta'
    """

    def moved(tensor: Tensor) -> Tensor:
        """Return the tensor there, of which gradients can be taken."""
        there = tensor.to(device, non_blocking=True)
        return there.clone() if there.is_inference() and not torch.is_inference_mode_enabled() else there

    try:
        return replaced(data, moved)
    except NotImplementedError as error:
        places = ", ".join(f"{name or 'it'} on {tensor.device}" for name, tensor in named_tensors_in(data))
        raise DataError(
            f"Expected data whose tensors can be moved to {device} but got {type(data).__name__} with {places}: put "
            f"all of its tensors on one device first."
        ) from error
