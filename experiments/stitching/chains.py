"""Networks cut into a lower and an upper part, after every activation or residual block."""

from __future__ import annotations

from torch import Tensor, nn

from experiments.models.cnn import CNN
from experiments.models.mlp import MLP
from experiments.models.resnet import Block, ResNet
from experiments.models.vgg import VGG


class MeanOfPixels(nn.Module):
    """Average each channel over the image."""

    def forward(self, images: Tensor) -> Tensor:
        """Return one number a channel."""
        return images.mean(dim=(2, 3))


def chain(network: nn.Module) -> list[nn.Module]:
    """Return the layers that a network runs one after the other.

    Raises:
        TypeError: a network of another kind.

    >>> import torch
    >>> network, image = CNN(channels=1, size=8, widths=[2], hidden=3), torch.randn(2, 1, 8, 8)
    >>> torch.equal(nn.Sequential(*chain(network))(image), network(image))
    True
    """
    if isinstance(network, MLP):
        return [nn.Flatten(), *network.layers]
    if isinstance(network, (CNN, VGG)):
        return [*network.features, nn.Flatten(), *network.classifier]
    if isinstance(network, ResNet):
        blocks = [block for name in network.stages for block in network.get_submodule(name).children()]
        stem = [network.conv1, network.bn1, network.relu, network.maxpool]
        return [*stem, *blocks, MeanOfPixels(), network.fc]
    raise TypeError(f"Expected an MLP, a CNN, a VGG or a ResNet but got {type(network).__name__}.")


def cuts(network: nn.Module) -> list[int]:
    """Return how many layers lie below each cut.

    Cuts come after activations and residual blocks, and after the pooling that follows.

    >>> cuts(CNN(channels=1, size=8, widths=[2, 2], hidden=3)), cuts(MLP(4, [3, 3]))
    ([3, 6, 9], [3, 5])
    """
    layers, found = chain(network), []
    for number, layer in enumerate(layers[:-1], 1):
        if isinstance(layer, (nn.ReLU, nn.Tanh, Block)):
            found.append(number + isinstance(layers[number], (nn.MaxPool2d, nn.Identity)))
    return found


def parts(network: nn.Module, cut: int) -> tuple[nn.Sequential, nn.Sequential]:
    """Return the layers below a cut and those above it."""
    layers = chain(network)
    return nn.Sequential(*layers[:cut]), nn.Sequential(*layers[cut:])
