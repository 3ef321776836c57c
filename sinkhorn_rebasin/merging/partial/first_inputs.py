"""The inputs of the first batch of data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sinkhorn_rebasin._typing import BatchAdapter
from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.merging.partial.two_networks import TwoNetworks
from sinkhorn_rebasin.networks.batches import move_to, read_batch
from sinkhorn_rebasin.networks.execution import device_of
from sinkhorn_rebasin.networks.randomness import untouched_randomness


def inputs_of(networks: TwoNetworks, one: Any, batch: BatchAdapter | None = None) -> Any:
    """Return the inputs on the reference's device."""
    example = networks.spec.validity.arguments if networks.spec.validity else ()
    inputs, _ = read_batch(one, batch, network=networks.reference, labelled=False, example=example)
    return move_to(inputs, device_of(networks.states[0]))


def first_inputs(networks: TwoNetworks, data: Iterable[Any], batch: BatchAdapter | None = None) -> Any:
    """Return the inputs of the first batch.

    Raises:
        DataError: there is none.
    """
    with untouched_randomness():
        for one in data:
            return inputs_of(networks, one, batch)
    raise DataError("Expected at least one batch but got none.")
