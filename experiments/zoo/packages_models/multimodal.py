"""Documents, images with text, speech with text, and series, in transformers: what its own family does not hold."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from experiments.zoo.packages_models.inputs import noise, tokens
from experiments.zoo.packages_models.network import Field, Part

MULTIMODAL = Field()
_network = MULTIMODAL.network
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
IMAGE_TOKEN = 98


def documents(batch: int) -> dict[str, Tensor]:
    """Words, the boxes they stand in, and the page."""
    corner = torch.randint(0, 500, (batch, 9, 2))
    boxes = torch.cat([corner, corner + torch.randint(1, 500, (batch, 9, 2))], 2)
    return {**tokens(batch), "bbox": boxes, "pixel_values": torch.randn(batch, 3, 32, 32)}


@_network("transformers", documents)
def layout_lm_v3() -> nn.Module:
    from transformers import LayoutLMv3Config, LayoutLMv3ForSequenceClassification

    sizes = {
        "coordinate_size": 6,
        "shape_size": 4,
        "input_size": 32,
        "patch_size": 8,
        "max_2d_position_embeddings": 1024,
    }
    config = LayoutLMv3Config(**SIZES, **sizes, vocab_size=99, num_labels=3, max_position_embeddings=64)
    return Part(LayoutLMv3ForSequenceClassification(config), "logits")


@_network("transformers", lambda batch: {"input_ids": torch.randint(60, 1000, (batch, 64))})
def canine() -> nn.Module:
    from transformers import CanineConfig, CanineForSequenceClassification

    sizes = {
        "num_hash_buckets": 64,
        "num_hash_functions": 4,
        "downsampling_rate": 4,
        "local_transformer_stride": 16,
    }
    config = CanineConfig(**SIZES, **sizes, num_labels=3, max_position_embeddings=64, type_vocab_size=2)
    return Part(CanineForSequenceClassification(config), "logits")


def questions(batch: int) -> dict[str, Tensor]:
    """Sixteen places of an image, then words."""
    places = torch.full((batch, 16), IMAGE_TOKEN)
    return {
        "input_ids": torch.cat([places, tokens(batch)["input_ids"]], 1),
        "pixel_values": torch.randn(batch, 3, 32, 32),
    }


@_network("transformers", questions)
def llava() -> nn.Module:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    vision = CLIPVisionConfig(**SIZES, image_size=32, patch_size=8, projection_dim=16)
    text = LlamaConfig(**SIZES, vocab_size=99, num_key_value_heads=2, use_cache=False)
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=IMAGE_TOKEN, image_seq_length=16
    )
    return Part(LlavaForConditionalGeneration(config), "logits")


@_network("transformers", questions)
def pali_gemma() -> nn.Module:
    from transformers import (
        GemmaConfig,
        PaliGemmaConfig,
        PaliGemmaForConditionalGeneration,
        SiglipVisionConfig,
    )

    vision = SiglipVisionConfig(
        **SIZES, image_size=32, patch_size=8, vision_use_head=False, projection_dim=32
    )
    text = GemmaConfig(**SIZES, vocab_size=99, num_key_value_heads=2, head_dim=8, use_cache=False)
    config = PaliGemmaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE_TOKEN,
        projection_dim=32,
        hidden_size=32,
    )
    return Part(PaliGemmaForConditionalGeneration(config), "logits")


def patches_of_images(batch: int) -> dict[str, Tensor]:
    """Four merged patches of an image, then words, for each sample."""
    start, end = torch.full((batch, 1), 96), torch.full((batch, 1), 97)
    places = torch.full((batch, 4), IMAGE_TOKEN)
    words = tokens(batch)["input_ids"]
    return {
        "input_ids": torch.cat([start, places, end, words], 1),
        "pixel_values": torch.randn(batch * 16, 3 * 2 * 4 * 4),
        "mm_token_type_ids": torch.cat(
            [torch.zeros(batch, 1), torch.ones(batch, 4), torch.zeros(batch, 10)], 1
        ).int(),
        "image_grid_thw": torch.tensor([[1, 4, 4]]).repeat(batch, 1),
        "attention_mask": torch.ones(batch, 6 + words.shape[1], dtype=torch.long),
    }


@_network("transformers", patches_of_images)
def qwen2_vl() -> nn.Module:
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    vision = {"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "patch_size": 4, "mlp_ratio": 2}
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    text = {**SIZES, "vocab_size": 99, "num_key_value_heads": 2, "rope_parameters": rope, "use_cache": False}
    marks = {
        "image_token_id": IMAGE_TOKEN,
        "vision_start_token_id": 96,
        "vision_end_token_id": 97,
        "video_token_id": 95,
    }
    config = Qwen2VLConfig(text_config=text, vision_config=vision, **marks)
    return Part(Qwen2VLForConditionalGeneration(config), "logits")


@_network(
    "transformers",
    lambda batch: {
        **tokens(batch),
        "decoder_input_values": torch.randn(batch, 6, 16),
        "speaker_embeddings": torch.randn(batch, 24),
    },
)
def speech_t5() -> nn.Module:
    from transformers import SpeechT5Config, SpeechT5ForTextToSpeech

    sizes = {
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
    }
    more = {
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48,
        "num_mel_bins": 16,
        "speech_decoder_prenet_units": 24,
    }
    rest = {
        "speech_decoder_postnet_layers": 2,
        "speech_decoder_postnet_units": 16,
        "speech_decoder_prenet_dropout": 0.0,
    }
    config = SpeechT5Config(
        vocab_size=99,
        hidden_size=32,
        **sizes,
        **more,
        **rest,
        reduction_factor=1,
        speaker_embedding_dim=24,
        use_cache=False,
    )
    return Part(SpeechT5ForTextToSpeech(config), "spectrogram")


@_network("transformers", lambda batch: {"input_features": torch.randn(batch, 12, 16)})
def wav2vec2_bert() -> nn.Module:
    from transformers import Wav2Vec2BertConfig, Wav2Vec2BertForSequenceClassification

    sizes = {"feature_projection_input_dim": 16, "classifier_proj_size": 16, "conv_depthwise_kernel_size": 5}
    kinds = {"left_max_position_embeddings": 6, "right_max_position_embeddings": 4, "num_labels": 3}
    config = Wav2Vec2BertConfig(**SIZES, **sizes, **kinds, vocab_size=99)
    return Part(Wav2Vec2BertForSequenceClassification(config), "logits")


@_network("transformers", tokens)
def qwen3_next() -> nn.Module:
    from transformers import Qwen3NextConfig, Qwen3NextForCausalLM

    linear = {
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
    }
    experts = {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "shared_expert_intermediate_size": 24,
    }
    kinds = {"layer_types": ["linear_attention", "full_attention"], "head_dim": 8, "num_key_value_heads": 2}
    config = Qwen3NextConfig(**SIZES, **linear, **experts, **kinds, vocab_size=99, use_cache=False)
    return Part(Qwen3NextForCausalLM(config), "logits")


@_network("transformers", noise(32, 3))
def patch_time_series() -> nn.Module:
    from transformers import PatchTSTConfig, PatchTSTForPrediction

    sizes = {
        "d_model": 32,
        "num_attention_heads": 4,
        "ffn_dim": 48,
        "num_hidden_layers": 2,
        "patch_length": 8,
    }
    kinds = {"patch_stride": 8, "context_length": 32, "prediction_length": 4, "loss": "mse", "scaling": "std"}
    config = PatchTSTConfig(num_input_channels=3, **sizes, **kinds)
    return Part(PatchTSTForPrediction(config), "prediction_outputs")


@_network("transformers", lambda batch: {"past_values": torch.randn(batch, 32, 3)})
def patch_time_series_mixer() -> nn.Module:
    from transformers import PatchTSMixerConfig, PatchTSMixerForPrediction

    sizes = {"d_model": 32, "num_layers": 2, "expansion_factor": 2, "patch_length": 8, "patch_stride": 8}
    kinds = {"context_length": 32, "prediction_length": 4, "num_input_channels": 3, "mode": "mix_channel"}
    return Part(
        PatchTSMixerForPrediction(PatchTSMixerConfig(**sizes, **kinds, gated_attn=True)), "prediction_outputs"
    )
