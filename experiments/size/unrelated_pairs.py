"""Folders of two networks of one class with random weights of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

NETWORKS = {
    "resnet50": ("ResNetForImageClassification", {"image_size": 224}),
    "vit_base": ("ViTForImageClassification", {}),
    "gpt2_small": ("GPT2LMHeadModel", {}),
}
"""Name to class and settings; the defaults of these classes are the published sizes."""


def write(folder: Path, name: str, seed: int) -> None:
    """Write a network with weights as its class draws them."""
    import transformers

    kind, settings = NETWORKS[name]
    network: Any = getattr(transformers, kind)
    torch.manual_seed(seed)
    network(network.config_class(**settings)).save_pretrained(folder)
