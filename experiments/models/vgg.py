"""VGG networks for images of 32 x 32 pixels.

Source: Karen Simonyan and Andrew Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition"
(2015), configurations A, B, D and E.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

STAGES = (64, 128, 256, 512, 512)
CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


class VGG(nn.Module):
    """Five stages of 3 x 3 convolutions, each ended by 2 x 2 max pooling, and a classifier on the last channels.

    Takes (N, channels, 32, 32) and returns (N, classes). `width` scales the 64 … 512 channels; `head` lists
    hidden linear layers before the output, none by default. Names of parameters are torchvision's.

    Example:
        >>> sum(p.numel() for p in VGG(11, batch_norm=True, head=[512, 512]).parameters()) == 9756426
        True
    """

    def __init__(
        self,
        depth: int = 11,
        batch_norm: bool = False,
        width: float = 1.0,
        classes: int = 10,
        channels: int = 3,
        head: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if depth not in CONVOLUTIONS:
            raise ValueError(f"Expected depth out of {', '.join(map(str, CONVOLUTIONS))} but got {depth}.")
        layers: list[nn.Module] = []
        for stage, count in zip(STAGES, CONVOLUTIONS[depth], strict=True):
            for _ in range(count):
                after = max(1, round(width * stage))
                layers.append(nn.Conv2d(channels, after, 3, padding=1))
                layers += [nn.BatchNorm2d(after)] if batch_norm else []
                layers.append(nn.ReLU())
                channels = after
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = _classifier(channels, head, classes)
        for module in self.features:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.classifier(self.features(images).flatten(1))
        return output


def _classifier(inputs: int, head: Sequence[int], classes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in head:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, classes))
