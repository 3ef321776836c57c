"""A small convolutional network."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class CNN(nn.Module):
    """Blocks of a 3 x 3 convolution, ReLU and 2 x 2 max pooling, then one hidden linear layer and the output.

    Takes (N, channels, size, size) and returns (N, classes). The feature maps are flattened, not averaged, so
    each of the last convolution's channels meets the hidden layer in several inputs.

    Example:
        >>> import torch
        >>> CNN(channels=1, size=28)(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
        True
    """

    def __init__(
        self,
        channels: int = 3,
        size: int = 32,
        widths: Sequence[int] = (32, 64),
        hidden: int = 128,
        classes: int = 10,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip([channels, *widths], widths, strict=False):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        flat = [channels, *widths][-1] * (size // 2 ** len(widths)) ** 2
        self.classifier = nn.Sequential(nn.Linear(flat, hidden), nn.ReLU(), nn.Linear(hidden, classes))

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.classifier(self.features(images).flatten(1))
        return output
