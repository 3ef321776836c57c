"""Squared gradients of single samples, summed over the samples of a batch."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.curvature.likelihood import Likelihood
from sinkhorn_rebasin.errors import DataError, RebasinWarning
from sinkhorn_rebasin.networks.execution import run_at
from sinkhorn_rebasin.networks.handover import gradients_of
from sinkhorn_rebasin.networks.structures import Rebuilt, flattened


class SquaredGradients:
    r"""Sum squared gradients of single samples.

    This is :math:`\sum_n w_n (\partial \ell_n / \partial \theta_i)^2` for some parameters. Gradients of single
    samples come from ``vmap(grad)``, ``chunk_size`` at a time. What vmap cannot run, such as branches on the data, is
    differentiated sample by sample, with a warning; ``chunk_size=1`` asks for that. The parts of complex numbers are
    squared one by one.

    Args:
        network: the architecture in eval mode, a copy.
        state: all of its tensors.
        names: the parameters.
        likelihood: what the loss of a sample is.
        chunk_size: how many samples at a time; None is all of a batch.
    """

    def __init__(
        self,
        network: nn.Module,
        state: State,
        names: list[str],
        likelihood: Likelihood,
        chunk_size: int | None,
    ) -> None:
        self.network, self.state, self.likelihood = network, state, likelihood
        self.chunk_size, self.vectorized = chunk_size, chunk_size != 1
        self.moving = {name: state[name] for name in names}
        self.sums = {name: torch.zeros_like(_wide(value)) for name, value in self.moving.items()}

    def update(self, inputs: Any, labels: Any, weights: Tensor) -> None:
        """Take in a batch.

        Inputs, labels and weights have the samples along axis 0.
        """
        if not self.moving:
            return
        count = len(weights)
        tensors, rebuilt = flattened((inputs, labels))
        for tensor in tensors:
            if tensor.ndim == 0 or len(tensor) != count:
                raise DataError(
                    f"Expected inputs and labels with the {count} samples of the outputs along axis 0 but got a "
                    f"tensor of shape {tuple(tensor.shape)}."
                )
        if self.vectorized:
            try:
                self._update_vectorized(tensors, rebuilt, weights)
                return
            except (RuntimeError, NotImplementedError, ValueError) as error:
                self.vectorized = False
                warnings.warn(
                    f"torch.func.vmap cannot run {type(self.network).__name__}, so that the gradients of its "
                    f"samples are computed one after the other, which is slower; chunk_size=1 does so unasked. "
                    f"Reason: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
                    RebasinWarning,
                    stacklevel=6,
                )
        for number in range(count):
            one = [tensor[number] for tensor in tensors]
            moving = {name: value.requires_grad_() for name, value in _detached(self.moving).items()}
            found = gradients_of(self._loss(moving, one, rebuilt), list(moving.values()))
            for name, gradient in zip(moving, found, strict=True):
                if gradient is not None:
                    self.sums[name] += _squared(gradient) * weights[number]

    def _update_vectorized(self, tensors: list[Tensor], rebuilt: Rebuilt, weights: Tensor) -> None:
        size = self.chunk_size or len(weights)
        loss = partial(self._loss, rebuilt=rebuilt)
        gradients = vmap(grad(loss), in_dims=(None, 0), randomness="different")
        total: State = {}  # of its own: a chunk that failed must leave no half of a batch behind
        for start in range(0, len(weights), size):
            part = slice(start, start + size)
            chunk = [tensor[part] for tensor in tensors]
            for name, found in gradients(self.moving, chunk).items():
                value = torch.einsum("n,n...->...", weights[part].to(found), _squared(found))
                total[name] = total[name] + value if name in total else value
        for name, value in total.items():
            self.sums[name] += value

    def _loss(self, moving: State, sample: list[Tensor], rebuilt: Rebuilt) -> Tensor:
        """Return the loss of one sample.

        Its tensors come without the axis of samples.
        """
        inputs, labels = rebuilt([tensor[None] for tensor in sample])
        outputs = run_at(self.network, {**self.state, **moving}, inputs)
        return self.likelihood.loss(outputs, labels).reshape(())


def _detached(state: State) -> State:
    return {name: value.detach() for name, value in state.items()}


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _squared(gradient: Tensor) -> Tensor:
    gradient = _wide(gradient.to_dense())
    if not gradient.is_complex():
        return gradient.square()
    return torch.complex(gradient.real.square(), gradient.imag.square())
