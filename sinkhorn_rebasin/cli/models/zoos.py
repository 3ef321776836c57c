"""Models of timm and torchvision, with weights from a file."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import nn

from sinkhorn_rebasin._typing import ExampleInputs, State
from sinkhorn_rebasin.cli.failures import UsageError
from sinkhorn_rebasin.cli.models.loaded import LoadedModel, put_state
from sinkhorn_rebasin.files.weights_file import read_weights, unwrapped
from sinkhorn_rebasin.networks.architecture import tensors_of


class ZooModel(LoadedModel):
    """A network of images that a library makes by its name."""

    def __init__(self, text: str, module: nn.Module, classes: int, size: tuple[int, ...]) -> None:
        super().__init__(text, module)
        self.classes = classes
        self.library, self.architecture = text.split(":")[:2]
        self.size = size

    def example_inputs(self) -> ExampleInputs:
        """Make two images of the network's size."""
        return torch.randn(2, *self.size, generator=torch.Generator().manual_seed(0))

    @property
    def how_to_load(self) -> str:
        """Return a line of Python that loads what was written."""
        made = "timm.create_model" if self.library == "timm" else "torchvision.models.get_model"
        return (
            f"net = {made}({self.architecture!r}, num_classes={self.classes}); "
            "safetensors.torch.load_model(net, 'model.safetensors')"
        )


def timm_model(text: str) -> ZooModel:
    """Make the network that ``timm:NAME:FILE`` names."""
    timm = library("timm", text)
    module, classes = _made(timm.create_model, text)
    size = tuple(getattr(module, "default_cfg", {}).get("input_size", (3, 224, 224)))
    return ZooModel(text, module, classes, size)


def torchvision_model(text: str) -> ZooModel:
    """Make the network that ``torchvision:NAME:FILE`` names."""
    torchvision = library("torchvision", text)
    return ZooModel(text, *_made(torchvision.models.get_model, text), (3, 224, 224))


def library(name: str, text: str) -> Any:
    """Import a library of the extra ``hub``.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(
            f"Expected {name} to be installed, for {text}, but it is not: pip install 'sinkhorn-rebasin-layer[hub]'."
        ) from error


def _named(text: str) -> tuple[str, State]:
    parts = text.split(":", 2)
    if len(parts) < 3:
        raise UsageError(f"Expected {parts[0]}:NAME:FILE, with a file of weights, but got {text!r}.")
    return parts[1], read_weights(parts[2])


def _made(create: Any, text: str) -> tuple[nn.Module, int]:
    """Make the network with as many classes as the weights have, and return their number too."""
    name, state = _named(text)
    try:
        module: nn.Module = create(name)
        # The last tensor of a classifier is the bias of its classes.
        last = next(reversed(tensors_of(module)))
        state = unwrapped(state, tensors_of(module))
        classes = len(state.get(last, tensors_of(module)[last]))
        if classes != len(tensors_of(module)[last]):
            module = create(name, num_classes=classes)
    except Exception as error:
        raise UsageError(f"Expected {text} to name a model but {type(error).__name__}: {error}") from error
    put_state(module, state, text)
    return module, classes
