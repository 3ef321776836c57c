"""The networks of the experiments. These modules import torch alone, so any environment can build them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from experiments.models.bottleneck import BottleneckMLP, InvertedResidualNet
from experiments.models.cnn import CNN
from experiments.models.lstm import LSTM
from experiments.models.mixture import MixtureLM
from experiments.models.mlp import MLP
from experiments.models.resnet import ResNet, resnet8, resnet18, resnet20, resnet50, resnext
from experiments.models.transformer import GPT, ViT
from experiments.models.vgg import VGG

__all__ = [
    "CNN",
    "COST_NETWORKS",
    "GPT",
    "LSTM",
    "MLP",
    "VGG",
    "Architecture",
    "BottleneckMLP",
    "InvertedResidualNet",
    "MixtureLM",
    "ResNet",
    "ViT",
    "build_model",
    "resnet8",
    "resnet18",
    "resnet20",
    "resnet50",
    "resnext",
]

MODELS: dict[str, Callable[..., nn.Module]] = {
    "bottleneck_mlp": BottleneckMLP,
    "cnn": CNN,
    "gpt": GPT,
    "inverted_residual": InvertedResidualNet,
    "lstm": LSTM,
    "mixture": MixtureLM,
    "mlp": MLP,
    "resnet8": resnet8,
    "resnet18": resnet18,
    "resnet20": resnet20,
    "resnet50": resnet50,
    "resnext": resnext,
    "vgg": VGG,
    "vit": ViT,
}


def build_model(name: str, **arguments: Any) -> nn.Module:
    """Return a freshly initialised network: `MODELS[name](**arguments)`.

    Raises:
        ValueError: no network has this name.

    Example:
        >>> sum(p.numel() for p in build_model("mlp", inputs=784, widths=[512] * 3).parameters()) == 932362
        True
    """
    if name not in MODELS:
        raise ValueError(f"Expected a network out of {', '.join(MODELS)} but got {name!r}.")
    return MODELS[name](**arguments)


@dataclass(frozen=True)
class Architecture:
    """A network as plain values: its name in `MODELS`, its arguments, and the shape of an input batch.

    Inputs are tokens where the arguments name a vocabulary, numbers elsewhere.
    """

    name: str
    input_shape: tuple[int, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> nn.Module:
        """Return a freshly initialised network."""
        return build_model(self.name, **self.arguments)

    def example(self) -> Tensor:
        """Return a random input batch."""
        if "vocabulary" in self.arguments:
            return torch.randint(self.arguments["vocabulary"], self.input_shape)
        return torch.randn(self.input_shape)


COST_NETWORKS = {
    "MLP 784-512x3-10": Architecture("mlp", (1, 784), {"inputs": 784, "widths": [512, 512, 512]}),
    "ResNet20 1x": Architecture("resnet20", (1, 3, 32, 32)),
    "ResNet20 4x": Architecture("resnet20", (1, 3, 32, 32), {"width": 4}),
    "VGG11-BN": Architecture("vgg", (1, 3, 32, 32), {"depth": 11, "batch_norm": True, "head": [512, 512]}),
    "ResNet18": Architecture("resnet18", (1, 3, 32, 32)),
    "ResNet50": Architecture("resnet50", (1, 3, 32, 32)),
}
"""The six networks on which the cost of one alignment step is compared."""
