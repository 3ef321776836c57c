"""Every classification model of torchvision, with random weights, on small images."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from experiments.zoo.entry import Entry

SIZE = 64
# The least these run on, or a multiple of their patches or windows.
LARGER = {"inception_v3": 299, "maxvit_t": 224, "vit_h_14": 56}


def entries() -> Iterator[Entry]:
    """The models that ``torchvision.models.list_models`` names for classification."""
    models = import_models()
    for name in models.list_models(module=models):
        size = LARGER.get(name, SIZE)
        yield Entry(name, partial(_make, models, name, size), partial(torch.randn, 2, 3, size, size))


def import_models() -> Any:
    """torchvision.models, also where the compiled operators of torchvision do not fit this torch.

    Two of its operators must be known by name before it is imported; no model here calls them.
    """
    library = torch.library.Library("torchvision", "FRAGMENT")
    _LIBRARIES.append(library)  # a library that is collected takes its operators along
    for schema in ("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor", _QNMS):
        try:
            library.define(schema)
        except RuntimeError:  # torchvision's own operators are there
            break
    import torchvision

    return torchvision.models


_LIBRARIES: list[torch.library.Library] = []
_QNMS = "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def _make(models: Any, name: str, size: int) -> nn.Module:
    options: dict[str, Any] = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    if name.startswith("vit_"):
        options = {"image_size": size}
    model: nn.Module = models.get_model(name, weights=None, **options)
    return model
