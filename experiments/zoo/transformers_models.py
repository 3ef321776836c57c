"""Models of the transformers library from small configurations, with random weights."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from experiments.zoo.entry import Entry
from experiments.zoo.torchvision_models import import_models

_SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 99,
}
_GROUPED = {**_SMALL, "num_key_value_heads": 2}
_SEQ2SEQ = {
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
_VISION = {**{k: v for k, v in _SMALL.items() if k != "vocab_size"}, "image_size": 32, "patch_size": 8}


def _tokens() -> dict[str, torch.Tensor]:
    return {"input_ids": torch.randint(5, 90, (2, 9))}


def _pairs() -> dict[str, torch.Tensor]:
    return {**_tokens(), "decoder_input_ids": torch.randint(5, 90, (2, 7))}


def _images() -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.randn(2, 3, 32, 32)}


def _large_images() -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.randn(2, 3, 64, 64)}


def _sound() -> dict[str, torch.Tensor]:
    return {"input_values": torch.randn(2, 1200)}


_CONV = {"conv_dim": (32, 32), "conv_kernel": (8, 4), "conv_stride": (4, 2), "num_feat_extract_layers": 2}
_SPEECH = {**_SMALL, **_CONV, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4}

MODELS: list[tuple[str, str, str, dict[str, Any], Callable[[], dict[str, torch.Tensor]]]] = [
    ("albert", "AlbertModel", "AlbertConfig", {**_SMALL, "embedding_size": 16}, _tokens),
    ("bert", "BertForMaskedLM", "BertConfig", _SMALL, _tokens),
    ("camembert", "CamembertModel", "CamembertConfig", _SMALL, _tokens),
    ("deberta", "DebertaModel", "DebertaConfig", _SMALL, _tokens),
    ("deberta_v2", "DebertaV2Model", "DebertaV2Config", _SMALL, _tokens),
    (
        "distilbert",
        "DistilBertModel",
        "DistilBertConfig",
        {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "vocab_size": 99},
        _tokens,
    ),
    ("electra", "ElectraModel", "ElectraConfig", {**_SMALL, "embedding_size": 16}, _tokens),
    ("ernie", "ErnieModel", "ErnieConfig", _SMALL, _tokens),
    ("fnet", "FNetModel", "FNetConfig", _SMALL, _tokens),
    (
        "mobilebert",
        "MobileBertModel",
        "MobileBertConfig",
        {**_SMALL, "embedding_size": 32, "intra_bottleneck_size": 32, "true_hidden_size": 32},
        _tokens,
    ),
    ("mpnet", "MPNetModel", "MPNetConfig", _SMALL, _tokens),
    ("roberta", "RobertaForMaskedLM", "RobertaConfig", _SMALL, _tokens),
    ("roformer", "RoFormerModel", "RoFormerConfig", {**_SMALL, "embedding_size": 32}, _tokens),
    ("squeezebert", "SqueezeBertModel", "SqueezeBertConfig", {**_SMALL, "embedding_size": 32}, _tokens),
    ("xlm_roberta", "XLMRobertaModel", "XLMRobertaConfig", _SMALL, _tokens),
    ("modernbert", "ModernBertModel", "ModernBertConfig", {**_SMALL, "pad_token_id": 0}, _tokens),
    (
        "gpt2",
        "GPT2LMHeadModel",
        "GPT2Config",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 99},
        _tokens,
    ),
    (
        "gpt_neo",
        "GPTNeoForCausalLM",
        "GPTNeoConfig",
        {
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "vocab_size": 99,
        },
        _tokens,
    ),
    ("gpt_neox", "GPTNeoXForCausalLM", "GPTNeoXConfig", _SMALL, _tokens),
    (
        "gptj",
        "GPTJForCausalLM",
        "GPTJConfig",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "vocab_size": 99},
        _tokens,
    ),
    ("opt", "OPTForCausalLM", "OPTConfig", {**_SMALL, "ffn_dim": 48, "word_embed_proj_dim": 32}, _tokens),
    (
        "bloom",
        "BloomForCausalLM",
        "BloomConfig",
        {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 99},
        _tokens,
    ),
    ("falcon", "FalconForCausalLM", "FalconConfig", _SMALL, _tokens),
    ("llama", "LlamaForCausalLM", "LlamaConfig", _GROUPED, _tokens),
    ("mistral", "MistralForCausalLM", "MistralConfig", _GROUPED, _tokens),
    ("qwen2", "Qwen2ForCausalLM", "Qwen2Config", _GROUPED, _tokens),
    ("qwen3", "Qwen3ForCausalLM", "Qwen3Config", {**_GROUPED, "head_dim": 8}, _tokens),
    ("gemma", "GemmaForCausalLM", "GemmaConfig", {**_GROUPED, "head_dim": 8}, _tokens),
    ("phi", "PhiForCausalLM", "PhiConfig", _SMALL, _tokens),
    ("stablelm", "StableLmForCausalLM", "StableLmConfig", _GROUPED, _tokens),
    ("olmo2", "Olmo2ForCausalLM", "Olmo2Config", _GROUPED, _tokens),
    ("mixtral", "MixtralForCausalLM", "MixtralConfig", {**_GROUPED, "num_local_experts": 4}, _tokens),
    (
        "olmoe",
        "OlmoeForCausalLM",
        "OlmoeConfig",
        {**_GROUPED, "num_experts": 4, "num_experts_per_tok": 2},
        _tokens,
    ),
    (
        "mamba",
        "MambaForCausalLM",
        "MambaConfig",
        {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "vocab_size": 99},
        _tokens,
    ),
    (
        "rwkv",
        "RwkvForCausalLM",
        "RwkvConfig",
        {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 99},
        _tokens,
    ),
    (
        "t5",
        "T5ForConditionalGeneration",
        "T5Config",
        {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "vocab_size": 99},
        _pairs,
    ),
    ("bart", "BartForConditionalGeneration", "BartConfig", _SEQ2SEQ, _pairs),
    ("marian", "MarianModel", "MarianConfig", _SEQ2SEQ, _pairs),
    ("pegasus", "PegasusModel", "PegasusConfig", _SEQ2SEQ, _pairs),
    (
        "whisper",
        "WhisperModel",
        "WhisperConfig",
        {**_SEQ2SEQ, "num_mel_bins": 8, "max_source_positions": 30},
        lambda: {"input_features": torch.randn(2, 8, 60), "decoder_input_ids": torch.randint(5, 90, (2, 7))},
    ),
    ("vit", "ViTModel", "ViTConfig", _VISION, _images),
    ("deit", "DeiTModel", "DeiTConfig", _VISION, _images),
    ("beit", "BeitModel", "BeitConfig", _VISION, _images),
    ("dinov2", "Dinov2Model", "Dinov2Config", {**_VISION, "mlp_ratio": 2}, _images),
    (
        "swin",
        "SwinModel",
        "SwinConfig",
        {
            "image_size": 32,
            "patch_size": 2,
            "embed_dim": 16,
            "depths": [1, 2],
            "num_heads": [2, 4],
            "window_size": 4,
        },
        _images,
    ),
    (
        "convnext",
        "ConvNextModel",
        "ConvNextConfig",
        {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]},
        _large_images,
    ),
    (
        "segformer",
        "SegformerModel",
        "SegformerConfig",
        {"hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 2, 3, 4]},
        _large_images,
    ),
    (
        "clip",
        "CLIPModel",
        "CLIPConfig",
        {"text_config": _SMALL, "vision_config": _VISION, "projection_dim": 16},
        lambda: {**_tokens(), **_images()},
    ),
    ("wav2vec2", "Wav2Vec2Model", "Wav2Vec2Config", _SPEECH, _sound),
    ("hubert", "HubertModel", "HubertConfig", _SPEECH, _sound),
]


def entries() -> Iterator[Entry]:
    """The models that the installed transformers has."""
    if importlib.util.find_spec("torchvision"):
        import_models()  # transformers imports torchvision where it is installed
    import transformers

    for name, model, config, settings, inputs in MODELS:
        if hasattr(transformers, model):
            yield Entry(name, partial(_make, transformers, model, config, settings), inputs)


def _make(transformers: Any, model: str, config: str, settings: dict[str, Any]) -> nn.Module:
    made: nn.Module = getattr(transformers, model)(getattr(transformers, config)(**settings))
    return made
