"""Tiny networks of the transformers library, made of configurations with random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

VOCABULARY = 20
ENCODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": 8,
    "intermediate_size": 6,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
}
DECODER = {**ENCODER, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 16}
TOKENS = {"bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0}


@dataclass(frozen=True)
class Family:
    """A class of the library, its configuration, its groups and its inputs."""

    network: str
    config: str
    options: dict[str, Any]
    groups: int
    inputs: tuple[str, ...] = ("input_ids",)
    classifies: bool = False


FAMILIES = {
    "gpt2": Family(
        *("GPT2LMHeadModel", "GPT2Config"),
        {"vocab_size": VOCABULARY, "n_positions": 16, "n_embd": 8, "n_layer": 2, "n_head": 2, **TOKENS},
        9,
    ),
    "llama": Family("LlamaForCausalLM", "LlamaConfig", {**DECODER, **TOKENS}, 9),
    "mistral": Family("MistralForCausalLM", "MistralConfig", {**DECODER, **TOKENS}, 9),
    "qwen2": Family("Qwen2ForCausalLM", "Qwen2Config", {**DECODER, **TOKENS}, 9),
    "gemma": Family("GemmaForCausalLM", "GemmaConfig", {**DECODER, **TOKENS, "head_dim": 4}, 9),
    "bert": Family("BertForSequenceClassification", "BertConfig", ENCODER, 10, classifies=True),
    "roberta": Family("RobertaForSequenceClassification", "RobertaConfig", ENCODER, 10, classifies=True),
    "masked bert": Family("BertForMaskedLM", "BertConfig", ENCODER, 9),
    "distilbert": Family(
        *("DistilBertForSequenceClassification", "DistilBertConfig"),
        {"vocab_size": VOCABULARY, "dim": 8, "hidden_dim": 6, "n_layers": 2, "n_heads": 2}
        | {"max_position_embeddings": 16},
        10,
        classifies=True,
    ),
    "vit": Family(
        *("ViTForImageClassification", "ViTConfig"),
        {"hidden_size": 8, "intermediate_size": 6, "num_hidden_layers": 2, "num_attention_heads": 2}
        | {"image_size": 4, "patch_size": 2, "num_labels": 3},
        9,
        ("pixel_values",),
        classifies=True,
    ),
    "t5": Family(
        *("T5ForConditionalGeneration", "T5Config"),
        {"vocab_size": VOCABULARY, "d_model": 8, "d_kv": 4, "d_ff": 6, "num_layers": 2, "num_heads": 2}
        | {"decoder_start_token_id": 0, "eos_token_id": None, "pad_token_id": 0},
        21,
        ("input_ids", "decoder_input_ids"),
    ),
}


def library() -> Any:
    """The transformers library; without it the test is skipped."""
    return pytest.importorskip(
        "transformers", reason="transformers is not installed; it comes with the extra 'hub'"
    )


def network(name: str, seed: int = 0) -> nn.Module:
    """A network of a family, with norms that no unit shares."""
    family, transformers = FAMILIES[name], library()
    torch.manual_seed(seed)
    made: nn.Module = getattr(transformers, family.network)(
        getattr(transformers, family.config)(**family.options)
    )
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return made.eval()


def inputs(name: str, seed: int = 0, samples: int = 3) -> dict[str, Tensor]:
    """Inputs of a family by their names."""
    generator = torch.Generator().manual_seed(seed)
    makers: dict[str, Callable[[], Tensor]] = {
        "pixel_values": lambda: torch.randn(samples, 3, 4, 4, generator=generator)
    }
    return {
        part: makers.get(part, lambda: torch.randint(2, VOCABULARY, (samples, 5), generator=generator))()
        for part in FAMILIES[name].inputs
    }


def batches(name: str, count: int = 3) -> list[dict[str, Tensor]]:
    """Batches with labels, as a data collator makes them."""
    made = []
    for seed in range(count):
        batch = inputs(name, seed)
        labels = batch["input_ids"].clone() if "input_ids" in batch else torch.tensor([0, 1, 0])
        if FAMILIES[name].classifies:
            labels = torch.tensor([0, 1, 0])
        elif name != "t5":
            labels[0, 3:] = -100
        made.append({**batch, "labels": labels})
    return made
