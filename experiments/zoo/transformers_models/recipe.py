"""What it takes to build one model of the transformers library: its class, settings of its configuration, inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Settings = dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """A model class by name, settings of its configuration, and a maker of inputs.

    The configuration's class is ``configuration``, or what stands before "For" in the model's with "Config".
    """

    name: str
    model: str
    settings: Settings
    inputs: Callable[[], dict[str, Tensor]]
    configuration: str | None = None

    @property
    def config(self) -> str:
        """Name of the configuration's class."""
        return self.configuration or self.model.rpartition("For")[0] + "Config"


SMALL: Settings = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 99,
}
EMBEDDED = {**SMALL, "embedding_size": 16}
GROUPED = {**SMALL, "num_key_value_heads": 2}
WIDE_HEADS = {**GROUPED, "head_dim": 16}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 99}
SEQ2SEQ: Settings = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "pad_token_id": 1,
    "decoder_start_token_id": 2,
    "vocab_size": 99,
}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "vocab_size": 99}
VISION: Settings = {
    **{k: v for k, v in SMALL.items() if k != "vocab_size"},
    "image_size": 32,
    "patch_size": 8,
}
STAGES: Settings = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]}
WIDE_STAGES: Settings = {"embedding_size": 16, "hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 2, 1]}
WINDOWS: Settings = {
    "image_size": 32,
    "patch_size": 2,
    "embed_dim": 16,
    "depths": [1, 2],
    "num_heads": [2, 4],
    "window_size": 4,
}
SPEECH: Settings = {
    **SMALL,
    "conv_dim": (32, 32),
    "conv_kernel": (8, 4),
    "conv_stride": (4, 2),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
}


def words(length: int = 9) -> Tensor:
    return torch.randint(5, 90, (2, length))


def tokens() -> dict[str, Tensor]:
    return {"input_ids": words()}


def pairs() -> dict[str, Tensor]:
    return {"input_ids": words(), "decoder_input_ids": words(7)}


def images() -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(2, 3, 32, 32)}


def large_images() -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(2, 3, 64, 64)}


def images_and_tokens() -> dict[str, Tensor]:
    return {**tokens(), **images()}


def frames() -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(2, 4, 3, 32, 32)}


def sound() -> dict[str, Tensor]:
    return {"input_values": torch.randn(2, 1200)}


def spectrum(channels: int, length: int) -> dict[str, Tensor]:
    return {"input_features": torch.randn(2, channels, length), "decoder_input_ids": words(7)}
