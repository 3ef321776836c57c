"""Targets without labels: what several networks say of a batch together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import BatchAdapter, State
from sinkhorn_rebasin.errors import ArchitectureError, DataError
from sinkhorn_rebasin.merging.states import check_modules
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.networks.arguments import takes
from sinkhorn_rebasin.networks.batches import LABELS, read_batch
from sinkhorn_rebasin.networks.copying import evaluation_copy
from sinkhorn_rebasin.networks.execution import run_at
from sinkhorn_rebasin.networks.randomness import untouched_randomness
from sinkhorn_rebasin.networks.structures import tensors_in
from sinkhorn_rebasin.networks.task_loss import scores_of

SHOWN_LABELS = LABELS[:2]
"""Names of labels that a network may be shown; others may be an input like any."""


class EnsembleTargets:
    r"""Label batches by what networks say together.

    .. math:: y(x) = \frac1M \sum_{m=1}^{M} \mathrm{softmax} f(x;\, \theta_m)

    It is a ``batch=`` of :func:`align`, :func:`align_many`, losses and figures. Labels are neither needed nor looked
    at. What is between networks then learns to answer as they do on average.

    - What networks say together need not be right, and losses are those to their answers, not to labels.
    - All networks answer every batch, so that a step takes longer.
    - It helps where networks know labels by heart, and not where labels still teach: held-out data tell.

    Args:
        networks: at least one, whose outputs have one shape; each is run in eval mode. Outputs may hold ``logits``.
        probabilities: outputs are scores of classes, (N, classes); targets are then probabilities, as cross entropy
            takes them. Without it targets are the mean of outputs of any shape, for a criterion of one's own, such
            as the mean squared error.
        batch: a function from a batch to (inputs, labels), for data that yield something else.

    Raises:
        ArchitectureError: no list of networks, or networks whose outputs differ in shape.
        DataError: outputs that are no tensor, or no scores of classes; networks that need labels to answer.

    Example:
        >>> nets = [nn.Linear(4, 3) for _ in range(2)]
        >>> inputs, targets = EnsembleTargets(nets)(torch.randn(5, 4))
        >>> targets.shape, targets.sum(1).allclose(torch.ones(5))
        (torch.Size([5, 3]), True)

    Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015).
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        *,
        probabilities: bool = True,
        batch: BatchAdapter | None = None,
    ) -> None:
        if (
            not isinstance(networks, (Sequence, nn.ModuleList))
            or isinstance(networks, (str, bytes))
            or not networks
        ):
            told = "none" if isinstance(networks, Sequence) else type(networks).__name__
            raise ArchitectureError(
                f"Expected a list of networks that answer but got {told}: pass [first, second]."
            )
        check_modules({f"network {number}": network for number, network in enumerate(networks)})
        self._twins = [evaluation_copy(network) for network in networks]
        self._states = [tensors_of(network) for network in networks]
        self._probabilities, self._batch = probabilities, batch

    def __call__(self, batch: Any) -> tuple[Any, Tensor]:
        """Return the inputs of a batch, and what the networks say of them together."""
        inputs, _ = read_batch(batch, self._batch, network=self._twins[0], labelled=False)
        inputs = self._without_labels(inputs) if isinstance(inputs, Mapping) else inputs
        return inputs, self.targets(inputs)

    def _without_labels(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Drop the labels that a network would report a loss of its own for."""
        kept = {name: part for name, part in inputs.items() if name not in SHOWN_LABELS}
        if not takes(self._twins[0], (), kept):
            raise DataError(
                f"Expected networks that answer without labels but {type(self._twins[0]).__name__} needs them among "
                f"its inputs: give that argument a default, or pass batch=, from a batch to (inputs, None)."
            )
        return kept

    @torch.no_grad()
    def targets(self, inputs: Any) -> Tensor:
        """Return what the networks say together of inputs.

        Args:
            inputs: what the networks take; they answer on the device of its tensors.
        """
        device = next((tensor.device for tensor in tensors_in(inputs)), None)
        with untouched_randomness():
            answers = [
                self._answer(number, run_at(twin, _on(state, device), inputs))
                for number, (twin, state) in enumerate(zip(self._twins, self._states, strict=True))
            ]
        for number, answer in enumerate(answers):
            if answer.shape != answers[0].shape:
                raise ArchitectureError(
                    f"Expected networks whose outputs have one shape, to average them, but network 0 gives "
                    f"{tuple(answers[0].shape)} and network {number} {tuple(answer.shape)}."
                )
        return torch.stack(answers).mean(0)

    def _answer(self, number: int, output: Any) -> Tensor:
        """Read the answer of one network."""
        if not self._probabilities:
            return scores_of(output)
        advice = "pass probabilities=False, and a criterion for the mean of outputs"
        return class_probabilities(output, f"network {number}", advice)


def class_probabilities(output: Any, name: str, advice: str) -> Tensor:
    """Return the probabilities of classes, (N, classes).

    Args:
        output: of a network.
        name: of the network, for the message.
        advice: what to do where there are no scores of classes.

    Raises:
        DataError: there are none.

    >>> class_probabilities(torch.zeros(1, 2), "the network", "pass another")
    tensor([[0.5000, 0.5000]])
    """
    scores = scores_of(output)
    if scores.ndim != 2 or not scores.is_floating_point():
        raise DataError(
            f"Expected {name} to answer with scores of classes, (N, classes), but got {scores.dtype} of shape "
            f"{tuple(scores.shape)}: {advice}."
        )
    return scores.float().softmax(1).to(scores.dtype)


def _on(state: State, device: torch.device | None) -> State:
    """Return a state on a device; tensors that are there already are not copied."""
    return state if device is None else {name: tensor.to(device) for name, tensor in state.items()}
