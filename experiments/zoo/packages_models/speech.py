"""Speech: speechbrain, conformer."""

from __future__ import annotations

import importlib.machinery
import sys
import types

import torch
from torch import nn

from experiments.zoo.packages_models.inputs import noise
from experiments.zoo.packages_models.network import Field, Method, Part

SPEECH = Field()
_network = SPEECH.network


def _without_torchaudio() -> None:
    """Let speechbrain import a torchaudio that holds nothing: its wheel needs CUDA, and no network here calls it."""
    name = "torchaudio"
    if name not in sys.modules:
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        module.__dict__.update(__version__="2.11.0", list_audio_backends=lambda: ["soundfile"])
        sys.modules[name] = module


@_network("speechbrain", noise(20, 16))
def ecapa_tdnn() -> nn.Module:
    _without_torchaudio()
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

    sizes = {"channels": [32] * 4 + [48], "kernel_sizes": [5, 3, 3, 3, 1], "dilations": [1, 2, 3, 4, 1]}
    more = {"attention_channels": 16, "res2net_scale": 4, "se_channels": 16, "lin_neurons": 24}
    return ECAPA_TDNN(16, **sizes, **more)


@_network("speechbrain", noise(20, 16))
def crdnn() -> nn.Module:
    _without_torchaudio()
    from speechbrain.lobes.models.CRDNN import CRDNN

    sizes = {"cnn_blocks": 2, "cnn_channels": (8, 12), "rnn_layers": 1, "rnn_neurons": 16, "dnn_blocks": 1}
    return nn.Sequential(CRDNN(input_size=16, **sizes, dnn_neurons=24, time_pooling=True), nn.Linear(24, 5))


def speech_and_words(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(batch, 20, 16), torch.randint(1, 30, (batch, 6))


@_network("speechbrain", speech_and_words)
def transformer_asr() -> nn.Module:
    _without_torchaudio()
    from speechbrain.lobes.models.transformer.TransformerASR import TransformerASR

    sizes = {"d_model": 32, "nhead": 4, "num_encoder_layers": 1, "num_decoder_layers": 1, "d_ffn": 48}
    return Part(TransformerASR(31, 16, **sizes, normalize_before=True, causal=False), 1)


@_network("speechbrain", speech_and_words)
def conformer_asr() -> nn.Module:
    _without_torchaudio()
    from speechbrain.lobes.models.transformer.TransformerASR import TransformerASR

    sizes = {"d_model": 32, "nhead": 4, "num_encoder_layers": 1, "num_decoder_layers": 1, "d_ffn": 48}
    kinds = {"encoder_module": "conformer", "attention_type": "RelPosMHAXL", "kernel_size": 5}
    return Part(TransformerASR(31, 16, **sizes, **kinds, normalize_before=True, causal=False), 1)


@_network("speechbrain", noise(20, 16))
def branchformer() -> nn.Module:
    _without_torchaudio()
    from speechbrain.lobes.models.transformer.TransformerASR import TransformerASR

    sizes = {
        "d_model": 32,
        "nhead": 4,
        "num_encoder_layers": 1,
        "num_decoder_layers": 0,
        "csgu_linear_units": 48,
    }
    kinds = {"encoder_module": "branchformer", "attention_type": "regularMHA", "kernel_size": 5}
    return nn.Sequential(
        Method(TransformerASR(31, 16, **sizes, **kinds, normalize_before=True, causal=False), "encode"),
        nn.Linear(32, 5),
    )


@_network("speechbrain", noise(20, 16))
def context_net() -> nn.Module:
    _without_torchaudio()
    from speechbrain.lobes.models.ContextNet import ContextNet

    return nn.Sequential(
        ContextNet(
            input_shape=(3, 20, 16),
            out_channels=24,
            conv_channels=[16, 16, 24, 24],
            strides=[1, 1, 2, 1],
            num_blocks=4,
            num_layers=1,
        ),
        nn.Linear(24, 5),
    )


@_network("speechbrain", noise(20, 16))
def convolutional_front_end() -> nn.Module:
    _without_torchaudio()
    from speechbrain.lobes.models.convolution import ConvolutionFrontEnd

    layers = ConvolutionFrontEnd(
        (None, 20, 16),
        num_blocks=2,
        num_layers_per_block=1,
        out_channels=(8, 12),
        kernel_sizes=(3, 3),
        strides=(1, 2),
        residuals=(False, True),
    )
    return nn.Sequential(layers, nn.Flatten(2), nn.Linear(96, 5))


@_network("speechbrain", lambda batch: torch.randint(1, 30, (batch, 7)))
def recurrent_language_model() -> nn.Module:
    _without_torchaudio()
    from speechbrain.lobes.models.RNNLM import RNNLM

    return RNNLM(31, embedding_dim=16, rnn_layers=2, rnn_neurons=24, dnn_blocks=1, dnn_neurons=16)


@_network("speechbrain", lambda batch: torch.randint(1, 30, (batch, 7)))
def transformer_language_model() -> nn.Module:
    _without_torchaudio()
    from speechbrain.lobes.models.transformer.TransformerLM import TransformerLM

    return TransformerLM(
        31, d_model=32, nhead=4, num_encoder_layers=2, num_decoder_layers=0, d_ffn=48, normalize_before=True
    )


@_network("speechbrain", noise(16, 200))
def dual_path() -> nn.Module:
    _without_torchaudio()
    from speechbrain.lobes.models.dual_path import Dual_Path_Model, SBRNNBlock

    inside, between = (SBRNNBlock(16, 12, num_layers=1, rnn_type="LSTM", bidirectional=True) for _ in "ab")
    return Dual_Path_Model(16, 16, inside, between, num_layers=1, norm="ln", K=20, num_spks=2)


@_network("conformer", noise(20, 32))
def conformer() -> nn.Module:
    from conformer import Conformer

    body = Conformer(
        dim=32, depth=2, dim_head=8, heads=4, ff_mult=2, conv_expansion_factor=2, conv_kernel_size=5
    )
    return nn.Sequential(nn.Linear(32, 32), body, nn.Linear(32, 5))
