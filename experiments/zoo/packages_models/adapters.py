"""Adapters: peft, on small networks of transformers, and loralib."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from experiments.zoo.packages_models.inputs import noise, tokens
from experiments.zoo.packages_models.network import Field, Part

ADAPTERS = Field()
_network = ADAPTERS.network


def _bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    return BertForSequenceClassification(BertConfig(**sizes, vocab_size=99, num_labels=3))


def _llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    return LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=99, num_key_value_heads=2, use_cache=False))


def _adapted(model: nn.Module, kind: str, **settings: Any) -> nn.Module:
    import peft

    return Part(peft.get_peft_model(model, getattr(peft, kind)(**settings)), "logits")


@_network("peft", tokens)
def lora() -> nn.Module:
    return _adapted(_llama(), "LoraConfig", r=4, target_modules=["q_proj", "v_proj", "down_proj"])


@_network("peft", tokens)
def rank_stabilised_lora_on_everything() -> nn.Module:
    return _adapted(
        _bert(), "LoraConfig", r=4, use_rslora=True, target_modules=["query", "value", "word_embeddings"]
    )


@_network("peft", tokens)
def dora() -> nn.Module:
    return _adapted(_llama(), "LoraConfig", r=4, use_dora=True, target_modules=["q_proj", "v_proj"])


@_network("peft", tokens)
def ada_lora() -> nn.Module:
    names = ["query", "value"]
    return _adapted(_bert(), "AdaLoraConfig", init_r=6, target_r=4, total_step=100, target_modules=names)


@_network("peft", tokens)
def scaled_activations() -> nn.Module:
    names = {"target_modules": ["k_proj", "v_proj", "down_proj"], "feedforward_modules": ["down_proj"]}
    return _adapted(_llama(), "IA3Config", **names)


@_network("peft", tokens)
def vera() -> nn.Module:
    return _adapted(_llama(), "VeraConfig", r=8, target_modules=["q_proj"])


@_network("peft", tokens)
def hadamard() -> nn.Module:
    return _adapted(_bert(), "LoHaConfig", r=4, target_modules=["query", "value"])


@_network("peft", tokens)
def kronecker() -> nn.Module:
    return _adapted(_bert(), "LoKrConfig", r=4, target_modules=["query", "value"])


@_network("peft", tokens)
def orthogonal() -> nn.Module:
    return _adapted(_llama(), "OFTConfig", r=0, oft_block_size=8, target_modules=["q_proj"])


@_network("peft", tokens)
def prompts() -> nn.Module:
    return _adapted(_llama(), "PromptTuningConfig", task_type="CAUSAL_LM", num_virtual_tokens=3)


@_network("peft", tokens)
def prefixes() -> nn.Module:
    return _adapted(_llama(), "PrefixTuningConfig", task_type="CAUSAL_LM", num_virtual_tokens=3)


@_network("loralib", noise(12))
def low_rank_layers() -> nn.Module:
    import loralib

    return nn.Sequential(
        loralib.Linear(12, 48, r=4),
        nn.ReLU(),
        loralib.MergedLinear(48, 48, r=4, enable_lora=[True, False, True]),
        nn.ReLU(),
        nn.Linear(48, 3),
    )


@_network("loralib", noise(3, 16, 16))
def low_rank_convolutions() -> nn.Module:
    import loralib

    body = nn.Sequential(
        loralib.Conv2d(3, 16, 3, r=2),
        nn.ReLU(),
        loralib.Conv2d(16, 24, 3, r=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
    )
    return nn.Sequential(body, nn.Flatten(), nn.Linear(24, 3))


@_network("loralib", lambda batch: torch.randint(0, 99, (batch, 7)))
def low_rank_embedding() -> nn.Module:
    import loralib

    return nn.Sequential(loralib.Embedding(99, 32, r=4), nn.Linear(32, 48), nn.GELU(), nn.Linear(48, 3))
