"""Sound."""

from __future__ import annotations

import torch

from experiments.zoo.transformers_models.recipe import SMALL, SPEECH, Recipe, sound

_PATCHES = {"patch_size": 8, "max_length": 32, "num_mel_bins": 16, "frequency_stride": 8, "time_stride": 8}

RECIPES: list[Recipe] = [
    Recipe(
        "ast",
        "ASTForAudioClassification",
        {**SMALL, **_PATCHES},
        lambda: {"input_values": torch.randn(2, 32, 16)},
    ),
    Recipe("data2vec_audio", "Data2VecAudioForCTC", SPEECH, sound),
    Recipe("hubert", "HubertForCTC", SPEECH, sound),
    Recipe("sew", "SEWForCTC", {**SPEECH, "squeeze_factor": 2}, sound),
    Recipe("unispeech", "UniSpeechForCTC", SPEECH, sound),
    Recipe("wav2vec2", "Wav2Vec2ForCTC", SPEECH, sound),
    Recipe("wav2vec2_conformer", "Wav2Vec2ConformerForCTC", SPEECH, sound),
    Recipe("wavlm", "WavLMForCTC", SPEECH, sound),
]
