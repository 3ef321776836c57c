"""The training batches of a task once more, after its fit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice

import lightning
from torch import Tensor

from sinkhorn_rebasin._typing import ExampleInputs
from sinkhorn_rebasin.networks.execution import split_batch


def training_batches(trainer: lightning.Trainer) -> Iterator[tuple[ExampleInputs, Tensor]]:
    """Yield one epoch of training batches, (inputs, labels) on the device and in the precision of the Trainer."""
    count = trainer.num_training_batches
    as_trained = trainer.precision_plugin.convert_input
    for batch in islice(trainer.train_dataloader or [], None if math.isinf(count) else int(count)):
        yield split_batch(trainer.strategy.batch_to_device(as_trained(batch)))
