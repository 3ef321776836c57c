"""Models of the transformers library from small configurations, with random weights.

People train these models with a head on top and use its logits, so each is taken as the function from its inputs
to its logits: attention caches and hidden states, which the library returns beside them, are not part of it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import Tensor, nn

from experiments.zoo.entry import Entry
from experiments.zoo.torchvision_models import import_models
from experiments.zoo.transformers_models import decoders, encoder_decoders, encoders, speech, vision
from experiments.zoo.transformers_models.recipe import Recipe

FAMILIES = (encoders, decoders, encoder_decoders, vision, speech)


class Logits(nn.Module):
    """A model of the library as the function from its inputs to its logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Tensor) -> Tensor:
        outputs = self.model(**inputs)
        logits: Tensor = outputs.logits if hasattr(outputs, "logits") else outputs.logits_per_image
        return logits


def entries() -> Iterator[Entry]:
    """The models that the installed transformers has."""
    if importlib.util.find_spec("torchvision"):
        import_models()  # transformers imports torchvision where it is installed
    import transformers

    transformers.logging.set_verbosity_error()
    for family in FAMILIES:
        for recipe in family.RECIPES:
            if hasattr(transformers, recipe.model):
                yield Entry(recipe.name, partial(_make, transformers, recipe), recipe.inputs)


def _make(transformers: Any, recipe: Recipe) -> nn.Module:
    config = getattr(transformers, recipe.config)(**recipe.settings)
    return Logits(getattr(transformers, recipe.model)(config))
