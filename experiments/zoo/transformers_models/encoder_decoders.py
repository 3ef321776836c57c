"""Encoders with decoders, of text and of sound."""

from __future__ import annotations

from functools import partial

from experiments.zoo.transformers_models.recipe import SEQ2SEQ, T5, Recipe, pairs, spectrum

RECIPES: list[Recipe] = [
    Recipe("bart", "BartForConditionalGeneration", SEQ2SEQ, pairs),
    Recipe(
        "bigbird_pegasus",
        "BigBirdPegasusForConditionalGeneration",
        {**SEQ2SEQ, "attention_type": "original_full"},
        pairs,
    ),
    Recipe("blenderbot", "BlenderbotForConditionalGeneration", SEQ2SEQ, pairs),
    Recipe("led", "LEDForConditionalGeneration", {**SEQ2SEQ, "attention_window": 4}, pairs),
    Recipe("longt5", "LongT5ForConditionalGeneration", {**T5, "local_radius": 3}, pairs),
    Recipe("m2m_100", "M2M100ForConditionalGeneration", SEQ2SEQ, pairs),
    Recipe("marian", "MarianMTModel", SEQ2SEQ, pairs, "MarianConfig"),
    Recipe("mbart", "MBartForConditionalGeneration", SEQ2SEQ, pairs),
    Recipe("mt5", "MT5ForConditionalGeneration", T5, pairs),
    Recipe("pegasus", "PegasusForConditionalGeneration", SEQ2SEQ, pairs),
    Recipe(
        "prophetnet",
        "ProphetNetForConditionalGeneration",
        {
            "hidden_size": 32,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "num_encoder_layers": 2,
            "num_decoder_layers": 2,
            "num_encoder_attention_heads": 4,
            "num_decoder_attention_heads": 4,
            "vocab_size": 99,
        },
        pairs,
    ),
    Recipe(
        "speech_to_text",
        "Speech2TextForConditionalGeneration",
        {**SEQ2SEQ, "input_feat_per_channel": 16, "conv_channels": 48},
        partial(spectrum, 40, 16),
    ),
    Recipe(
        "switch_transformers",
        "SwitchTransformersForConditionalGeneration",
        {
            **T5,
            "num_sparse_encoder_layers": 1,
            "num_decoder_layers": 2,
            "num_sparse_decoder_layers": 1,
            "num_experts": 4,
        },
        pairs,
    ),
    Recipe("t5", "T5ForConditionalGeneration", T5, pairs),
    Recipe(
        "whisper",
        "WhisperForConditionalGeneration",
        {**SEQ2SEQ, "num_mel_bins": 8, "max_source_positions": 30},
        partial(spectrum, 8, 60),
    ),
]
