"""Residual networks, with torchvision's names of parameters.

Source: Kaiming He, Xiangyu Zhang, Shaoqing Ren and Jian Sun, "Deep Residual Learning for Image Recognition" (2016).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

NORMS = ("batch", "layer")
STEMS = ("cifar", "imagenet")
SHORTCUTS = ("A", "B")


class ResNet(nn.Module):
    """Stages of residual blocks, average pooling and one linear layer: (N, channels, H, W) -> (N, classes).

    Args:
        depths: number of blocks of each stage; every stage but the first halves the image.
        widths: channels of each stage (of the inner convolutions in bottleneck blocks).
        bottleneck: blocks of three convolutions that put out four times their width, instead of two.
        stem: "cifar", one 3 x 3 convolution, or "imagenet", 7 x 7 with stride 2 and max pooling.
        shortcut: where shapes change, "A" takes every second pixel and adds zero channels, "B" is a 1 x 1
            convolution with norm.
        norm: "batch", or "layer", which normalises each image over channels and pixels.
        groups: of the 3 x 3 convolutions in bottleneck blocks; each group sees its own channels alone.
    """

    def __init__(
        self,
        depths: Sequence[int],
        widths: Sequence[int],
        *,
        bottleneck: bool = False,
        classes: int = 10,
        channels: int = 3,
        stem: str = "cifar",
        shortcut: str = "B",
        norm: str = "batch",
        groups: int = 1,
    ) -> None:
        super().__init__()
        if groups > 1 and not bottleneck:
            raise ValueError(f"Expected bottleneck blocks for {groups} groups but got bottleneck=False.")
        for name, value, known in (
            ("stem", stem, STEMS),
            ("shortcut", shortcut, SHORTCUTS),
            ("norm", norm, NORMS),
        ):
            if value not in known:
                raise ValueError(f"Expected {name} out of {', '.join(known)} but got {value!r}.")
        large = stem == "imagenet"
        kernel, stride = (7, 2) if large else (3, 1)
        self.conv1 = nn.Conv2d(channels, widths[0], kernel, stride, kernel // 2, bias=False)
        self.bn1 = _norm(norm, widths[0])
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1) if large else nn.Identity()
        before, self.stages = widths[0], [f"layer{i + 1}" for i in range(len(depths))]
        for name, depth, width in zip(self.stages, depths, widths, strict=True):
            blocks = []
            for position in range(depth):
                stride = 2 if position == 0 and name != "layer1" else 1
                blocks.append(Block(before, width, stride, bottleneck, shortcut, norm, groups))
                before = width * (Block.expansion if bottleneck else 1)
            self.add_module(name, nn.Sequential(*blocks))
        self.fc = nn.Linear(before, classes)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for name in self.stages:
            x = self.get_submodule(name)(x)
        output: Tensor = self.fc(x.mean(dim=(2, 3)))
        return output


class Block(nn.Module):
    """Two 3 x 3 convolutions, or 1 x 1, 3 x 3 and 1 x 1 in a bottleneck, around a shortcut."""

    expansion = 4

    def __init__(
        self,
        before: int,
        width: int,
        stride: int,
        bottleneck: bool,
        shortcut: str,
        norm: str,
        groups: int = 1,
    ) -> None:
        super().__init__()
        # (channels, kernel size, stride, groups) of each convolution
        plan = [(width, 3, stride, 1), (width, 3, 1, 1)]
        if bottleneck:
            plan = [(width, 1, 1, 1), (width, 3, stride, groups), (width * self.expansion, 1, 1, 1)]
        self.relu, self.depth, channels = nn.ReLU(), len(plan), before
        for i, (after, kernel, step, parts) in enumerate(plan, 1):
            convolution = nn.Conv2d(channels, after, kernel, step, kernel // 2, groups=parts, bias=False)
            self.add_module(f"conv{i}", convolution)
            self.add_module(f"bn{i}", _norm(norm, after))
            channels = after
        self.downsample: nn.Module | None = None
        if stride != 1 or before != channels:
            self.downsample = _shortcut(shortcut, before, channels, stride, norm)

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for i in range(1, self.depth + 1):
            x = self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(x))
            x = self.relu(x) if i < self.depth else x
        skipped = images if self.downsample is None else self.downsample(images)
        output: Tensor = self.relu(x + skipped)
        return output


class PadShortcut(nn.Module):
    """Every `stride`-th pixel, with zero channels added in equal parts before and after."""

    def __init__(self, added: int, stride: int) -> None:
        super().__init__()
        self.added, self.stride = added, stride

    def forward(self, images: Tensor) -> Tensor:
        thinned = images[:, :, :: self.stride, :: self.stride]
        return F.pad(thinned, (0, 0, 0, 0, self.added // 2, self.added - self.added // 2))


def resnet20(
    classes: int = 10, width: float = 1, shortcut: str = "B", norm: str = "batch", channels: int = 3
) -> ResNet:
    """Return the CIFAR ResNet of 20 layers; `width` scales its 16, 32 and 64 channels.

    Example:
        >>> sum(p.numel() for p in resnet20(shortcut="A").parameters()) == 269722
        True
    """
    widths = [max(1, round(width * base)) for base in (16, 32, 64)]
    return ResNet([3, 3, 3], widths, classes=classes, channels=channels, shortcut=shortcut, norm=norm)


def resnet8(classes: int = 10, width: float = 1, norm: str = "batch") -> ResNet:
    """Return the CIFAR ResNet of 8 layers, one block a stage; `width` scales its 16, 32 and 64 channels.

    Example:
        >>> [name for name, _ in resnet8().layer3.named_children()]
        ['0']
    """
    return ResNet(
        [1, 1, 1], [max(1, round(width * base)) for base in (16, 32, 64)], classes=classes, norm=norm
    )


def resnet18(classes: int = 10, stem: str = "cifar", width: float = 1, norm: str = "batch") -> ResNet:
    """Return ResNet18; with `stem="imagenet"` and 1000 classes it has torchvision's parameters."""
    widths = [max(1, round(width * base)) for base in (64, 128, 256, 512)]
    return ResNet([2, 2, 2, 2], widths, classes=classes, stem=stem, norm=norm)


def resnet50(classes: int = 10, stem: str = "imagenet", norm: str = "batch") -> ResNet:
    """Return ResNet50; with 1000 classes it has torchvision's parameters."""
    return ResNet([3, 4, 6, 3], [64, 128, 256, 512], bottleneck=True, classes=classes, stem=stem, norm=norm)


def resnext(
    groups: int = 4, width: int = 8, depths: Sequence[int] = (1, 1), classes: int = 10, norm: str = "batch"
) -> ResNet:
    """Return a small CIFAR ResNeXt: bottleneck blocks, `groups` groups of `width` channels, doubled by stage.

    Example:
        >>> resnext(groups=4, width=8).layer1[0].conv2.weight.shape == (32, 8, 3, 3)
        True

    Source: Saining Xie and others, "Aggregated Residual Transformations for Deep Neural Networks" (2017).
    """
    widths = [groups * width * 2**stage for stage in range(len(depths))]
    return ResNet(depths, widths, bottleneck=True, classes=classes, norm=norm, groups=groups)


def _norm(kind: str, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.GroupNorm(1, channels)


def _shortcut(kind: str, before: int, after: int, stride: int, norm: str) -> nn.Module:
    if kind == "A":
        return PadShortcut(after - before, stride)
    return nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), _norm(norm, after))
