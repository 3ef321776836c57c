"""Fully connected networks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}


class MLP(nn.Module):
    """Linear layers of the given hidden widths, an activation after each but the last.

    Takes images or vectors (N, …) with `inputs` values each and returns (N, classes).

    Example:
        >>> import torch
        >>> MLP(784, [32, 16]).layers
        Sequential(
          (0): Linear(in_features=784, out_features=32, bias=True)
          (1): ReLU()
          (2): Linear(in_features=32, out_features=16, bias=True)
          (3): ReLU()
          (4): Linear(in_features=16, out_features=10, bias=True)
        )
        >>> MLP(784, [32, 16])(torch.zeros(5, 1, 28, 28)).shape == (5, 10)
        True
    """

    def __init__(
        self, inputs: int, widths: Sequence[int], classes: int = 10, activation: str = "relu"
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"Expected activation out of {', '.join(ACTIVATIONS)} but got {activation!r}.")
        layers: list[nn.Module] = []
        for before, after in zip([inputs, *widths], widths, strict=False):
            layers += [nn.Linear(before, after), ACTIVATIONS[activation]()]
        self.layers = nn.Sequential(*layers, nn.Linear([inputs, *widths][-1], classes))

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = self.layers(inputs.flatten(1))
        return output
