"""The training batches of a task once more, after its fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import lightning
from torch import Tensor

from sinkhorn_rebasin._typing import ExampleInputs


def training_batches(
    trainer: lightning.Trainer, read: Callable[[Any], tuple[ExampleInputs, Tensor]]
) -> Iterator[tuple[ExampleInputs, Tensor]]:
    """Yield one epoch of training batches.

    They are (inputs, labels) on the device and in the precision of the Trainer.

    Args:
        trainer: the Trainer of the fit.
        read: from a batch to (inputs, labels).
    """
    count = trainer.num_training_batches
    as_trained = trainer.precision_plugin.convert_input
    for batch in islice(trainer.train_dataloader or [], None if math.isinf(count) else int(count)):
        yield read(trainer.strategy.batch_to_device(as_trained(batch)))
