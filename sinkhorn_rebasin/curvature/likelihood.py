"""Which labels the score of a sample, the gradient of log p(y|x), is taken at, and how much each of them counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.func import vmap

from sinkhorn_rebasin._typing import Criterion
from sinkhorn_rebasin.errors import ArchitectureError, DataError, LossError

LabelKind: TypeAlias = Literal["sampled", "expected", "observed"]


@dataclass(frozen=True)
class Likelihood:
    r"""Read the criterion as a negative log-likelihood.

    It is :math:`-\log p(y \mid x)` of a sample. The labels y say where its gradient is taken.

    Attributes:
        criterion: (outputs, labels) to a scalar.
        labels: ``"sampled"`` draws y from the network's own softmax, ``"expected"`` sums over all classes with
            their probabilities, ``"observed"`` takes the labels of the data.
        draws: how many labels are drawn per sample.
        class_axis: axis of the outputs that holds the classes.
        generator: draws the labels.

    Raises:
        LossError: for another kind of labels, or less than one draw.
    """

    criterion: Criterion
    labels: LabelKind
    draws: int
    class_axis: int
    generator: torch.Generator

    def __post_init__(self) -> None:
        if self.labels not in ("sampled", "expected", "observed"):
            raise LossError(
                f"Expected labels to be 'sampled', 'expected' or 'observed' but got {self.labels!r}."
            )
        if self.draws < 1:
            raise LossError(f"Expected at least one draw per sample but got draws={self.draws}.")

    def weighted_labels(self, outputs: Any, observed: Any) -> Iterator[tuple[Any, Tensor]]:
        """Yield a batch's labels with each sample's weight.

        The weights are (samples,). Over all labels a sample weighs 1.
        """
        outputs = _checked(outputs)
        if self.labels == "observed":
            if observed is None:
                raise DataError(
                    "Expected batches of (inputs, labels) for labels='observed' but got no labels."
                )
            yield observed, outputs.new_ones(len(outputs))
            return
        probabilities = self._probabilities(outputs)
        if self.labels == "sampled":
            flat = probabilities.reshape(-1, probabilities.shape[-1]).to(self.generator.device)
            for _ in range(self.draws):
                drawn = torch.multinomial(flat, 1, generator=self.generator).to(outputs.device)
                yield (
                    drawn.reshape(probabilities.shape[:-1]),
                    outputs.new_full((len(outputs),), 1 / self.draws),
                )
            return
        if outputs.ndim != 2:
            raise LossError(
                f"Expected outputs (samples, classes) for labels='expected', one label a sample, but got shape "
                f"{tuple(outputs.shape)}: use labels='sampled'."
            )
        for label, weights in enumerate(probabilities.unbind(1)):
            yield torch.full((len(outputs),), label, device=outputs.device), weights

    def _probabilities(self, outputs: Tensor) -> Tensor:
        """Return the outputs' softmax with the classes last."""
        if not -outputs.ndim <= self.class_axis < outputs.ndim or self.class_axis % outputs.ndim == 0:
            raise LossError(
                f"Expected outputs (samples, ...) with the classes on axis {self.class_axis} but got shape "
                f"{tuple(outputs.shape)}: give class_axis, or use labels='observed'."
            )
        probabilities = outputs.detach().movedim(self.class_axis, -1).softmax(-1)
        if not bool(probabilities.isfinite().all()):
            raise DataError("Expected finite outputs to draw labels from but some are infinite or NaN.")
        return probabilities

    def losses(self, outputs: Tensor, labels: Any) -> Tensor:
        """Return the criterion on each sample, (samples,).

        Each sample is a batch of its own.
        """

        def alone(output: Tensor, label: Tensor) -> Tensor:
            """Return the loss of a single sample."""
            return self.criterion(output[None], label[None]).reshape(())

        try:
            return vmap(alone, randomness="different")(outputs, labels)
        except RuntimeError:  # a criterion that branches on values: the same, one by one
            return torch.stack([alone(*pair) for pair in zip(outputs, labels, strict=True)])


def likelihood_of(
    criterion: Criterion, labels: LabelKind, draws: int, class_axis: int, generator: torch.Generator | None
) -> Likelihood:
    """Make the likelihood, with its generator.

    Where no generator is given, it has one of its own.
    """
    return Likelihood(criterion, labels, draws, class_axis, generator or torch.Generator().manual_seed(0))


def _checked(outputs: Any) -> Tensor:
    if not isinstance(outputs, Tensor) or outputs.ndim == 0:
        raise ArchitectureError(
            f"Expected a network that returns one tensor with the samples along axis 0 but got "
            f"{type(outputs).__name__}: wrap it so that it returns its logits."
        )
    return outputs
