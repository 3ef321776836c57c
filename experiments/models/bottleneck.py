"""Networks whose stream is linear: what is added to it has no activation.

Source: Mark Sandler and others, "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (2018).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class BottleneckMLP(nn.Module):
    """Residual blocks of one hidden layer each around a narrow linear stream: vectors (N, …) -> (N, classes).

    Example:
        >>> import torch
        >>> BottleneckMLP(64)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
        True
    """

    def __init__(
        self, inputs: int, stream: int = 16, hidden: int = 64, depth: int = 3, classes: int = 10
    ) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(inputs, stream), nn.Linear(stream, classes)
        self.up = nn.ModuleList(nn.Linear(stream, hidden) for _ in range(depth))
        self.down = nn.ModuleList(nn.Linear(hidden, stream) for _ in range(depth))

    def forward(self, inputs: Tensor) -> Tensor:
        stream = self.stem(inputs.flatten(1))
        for up, down in zip(self.up, self.down, strict=True):
            stream = stream + down(F.relu(up(stream)))
        output: Tensor = self.head(stream)
        return output


class InvertedResidual(nn.Module):
    """Wider by 1 x 1, 3 x 3 on each channel, narrower by 1 x 1, ReLU after the first two; batch norm after each."""

    def __init__(self, stream: int, hidden: int, norms: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(*_layer(stream, hidden, 1, norms), nn.ReLU()),
            *(*_layer(hidden, hidden, 3, norms, padding=1, groups=hidden), nn.ReLU()),
            *_layer(hidden, stream, 1, norms),
        )

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = images + self.layers(images)
        return output


class InvertedResidualNet(nn.Module):
    """A small network like MobileNetV2: images (N, channels, size, size) -> (N, classes).

    Without `norms` it has biases in their place, as such networks have once batch norm is folded.

    Example:
        >>> import torch
        >>> InvertedResidualNet()(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
        True
    """

    def __init__(
        self,
        channels: int = 1,
        stream: int = 16,
        hidden: int = 48,
        depth: int = 3,
        features: int = 64,
        classes: int = 10,
        norms: bool = True,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_layer(channels, stream, 4, norms, stride=4))
        self.blocks = nn.Sequential(*(InvertedResidual(stream, hidden, norms) for _ in range(depth)))
        self.features = nn.Sequential(nn.Conv2d(stream, features, 1), nn.ReLU())
        self.head = nn.Linear(features, classes)

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.head(self.features(self.blocks(self.stem(images))).mean((2, 3)))
        return output


def _layer(
    inputs: int, outputs: int, kernel: int, norms: bool, stride: int = 1, padding: int = 0, groups: int = 1
) -> list[nn.Module]:
    """Return a convolution with batch norm or, without it, a bias."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=not norms)
    return [convolution, nn.BatchNorm2d(outputs)] if norms else [convolution]
