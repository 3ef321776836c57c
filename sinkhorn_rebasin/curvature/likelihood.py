"""Which labels the score of a sample, the gradient of log p(y|x), is taken at, and how much each of them counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import vmap

from sinkhorn_rebasin._typing import Criterion
from sinkhorn_rebasin.errors import ArchitectureError, DataError, LossError
from sinkhorn_rebasin.networks.counting import compares_classes
from sinkhorn_rebasin.networks.scoring import check_criterion, classes_second, compared, real_loss, scored
from sinkhorn_rebasin.networks.structures import flattened
from sinkhorn_rebasin.networks.task_loss import logits_of, task_loss

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
        class_axis: axis of the outputs that holds the classes; None is 1, and the last of ``logits`` of tokens.
        generator: draws the labels.

    Raises:
        LossError: for another kind of labels, or less than one draw.
    """

    criterion: Criterion
    labels: LabelKind
    draws: int
    class_axis: int | None
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
        outputs, axis = self.scores(outputs), self._axis_of(outputs)
        if self.labels == "observed":
            if observed is None:
                raise DataError(
                    "Expected batches of (inputs, labels) for labels='observed' but got no labels."
                )
            yield observed, outputs.new_ones(len(outputs))
            return
        probabilities = _probabilities(outputs, axis)
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

    def scores(self, outputs: Any) -> Tensor:
        """Return the outputs, or the logits among them.

        Raises:
            ArchitectureError: they are no tensor with samples along axis 0.
        """
        scores = logits_of(outputs)
        if not isinstance(scores, Tensor) or scores.ndim == 0:
            raise ArchitectureError(
                f"Expected a network that returns one tensor with the samples along axis 0, or such logits, but got "
                f"{type(scores).__name__}: wrap it so that it returns its logits."
            )
        return scores

    def _axis_of(self, outputs: Any) -> int:
        """Return the axis of the classes."""
        if self.class_axis is not None:
            return self.class_axis
        return 2 if not isinstance(outputs, Tensor) and self.scores(outputs).ndim == 3 else 1

    def loss(self, outputs: Any, labels: Any) -> Tensor:
        """Return the criterion on outputs.

        A loss that the network reports is that of observed labels.
        """
        if self.criterion is task_loss and self.labels != "observed" and not isinstance(outputs, Tensor):
            return F.cross_entropy(classes_second(self.scores(outputs), labels), labels)
        return scored(self.criterion, outputs, labels)

    def losses(self, outputs: Any, labels: Any) -> Tensor:
        """Return the criterion on each sample, (samples,).

        Each sample is a batch of its own. A criterion of the caller's is given the outputs of one sample, in the
        structure that the network returned: of every tensor with the samples along axis 0 one row. What else is in
        there, such as the mean loss of the batch, belongs to no sample.

        Raises:
            LossError: the outputs are no tensor, and their loss is neither the cross entropy of their logits nor
                computed from what belongs to single samples.
        """
        if not isinstance(outputs, Tensor) and compares_classes(self.criterion) is None:
            return self._losses_of_parts(outputs, labels)
        if not isinstance(outputs, Tensor):
            pair = compared(outputs, labels)
            if self.labels != "observed":
                pair = classes_second(self.scores(outputs), labels), labels
            if not isinstance(pair[0], Tensor):
                raise self._not_by_sample(outputs)
            outputs, labels = pair

        def alone(output: Tensor, label: Tensor) -> Tensor:
            """Return the loss of a single sample."""
            return real_loss(self.criterion(output[None], label[None])).reshape(())

        try:
            return vmap(alone, randomness="different")(outputs, labels)
        except RuntimeError:  # a criterion that branches on values: the same, one by one
            return torch.stack([alone(*pair) for pair in zip(outputs, labels, strict=True)])

    def _losses_of_parts(self, outputs: Any, labels: Any) -> Tensor:
        """Return a criterion of structures on each sample."""
        samples = len(self.scores(outputs))
        leaves, rebuilt = flattened(outputs)
        if self.criterion is task_loss or not (isinstance(labels, Tensor) and len(labels) == samples):
            raise self._not_by_sample(outputs)
        # What belongs to no sample must not be read: it makes NaN of whatever it enters.
        spoiled = [torch.full_like(leaf, torch.nan) if leaf.is_floating_point() else leaf for leaf in leaves]
        found = []
        for row in range(samples):
            parts = [
                leaf[row, None] if leaf.ndim > 0 and len(leaf) == samples else other
                for leaf, other in zip(leaves, spoiled, strict=True)
            ]
            value = self.criterion(rebuilt(parts), labels[row, None])
            if not isinstance(value, Tensor) or value.numel() != 1 or not bool(value.isfinite()):
                raise self._not_by_sample(outputs)
            found.append(value.reshape(()))
        return torch.stack(found)

    def _not_by_sample(self, outputs: Any) -> LossError:
        return LossError(
            f"Expected a loss that can be computed sample by sample but got {type(outputs).__name__} and "
            f"{getattr(self.criterion, '__name__', self.criterion)}: pass criterion=F.cross_entropy, or a function "
            f"of (outputs, labels) that reads logits or other parts with the samples along axis 0 and returns one "
            f"finite number, wrap the network so that it returns its logits, or use diagonal_fisher."
        )


def likelihood_of(
    criterion: Criterion,
    labels: LabelKind,
    draws: int,
    class_axis: int | None,
    generator: torch.Generator | None,
) -> Likelihood:
    """Make the likelihood, with its generator.

    Where no generator is given, it has one of its own.
    """
    check_criterion(criterion)
    return Likelihood(criterion, labels, draws, class_axis, generator or torch.Generator().manual_seed(0))


def _probabilities(outputs: Tensor, axis: int) -> Tensor:
    """Return the outputs' softmax with the classes last."""
    if not -outputs.ndim <= axis < outputs.ndim or axis % outputs.ndim == 0:
        raise LossError(
            f"Expected outputs (samples, ...) with the classes on axis {axis} but got shape "
            f"{tuple(outputs.shape)}: give class_axis, or use labels='observed'."
        )
    if outputs.is_complex():
        raise LossError(
            f"Expected real logits to draw labels from but got {outputs.dtype}: use labels='observed'."
        )
    probabilities = outputs.detach().movedim(axis, -1).softmax(-1)
    if not bool(probabilities.isfinite().all()):
        raise DataError("Expected finite outputs to draw labels from but some are infinite or NaN.")
    return probabilities
