"""SpliceAI as a PyTorch network: dilated residual blocks along a strand, which say where it is spliced."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Width of the kernel and dilation in each stack of four blocks of the published network.
STACKS = ((11, 1), (11, 4), (21, 10), (41, 25))
BLOCKS_OF_A_STACK = 4
CHANNELS = 32


class Block(nn.Module):
    """Two norms, each before its convolution, and what came in added to what comes out."""

    def __init__(self, channels: int, width: int, dilation: int) -> None:
        super().__init__()
        kind = {"padding": "same", "dilation": dilation}
        self.first_norm = nn.BatchNorm1d(channels, eps=1e-3)
        self.first = nn.Conv1d(channels, channels, width, **kind)
        self.second_norm = nn.BatchNorm1d(channels, eps=1e-3)
        self.second = nn.Conv1d(channels, channels, width, **kind)

    def forward(self, x: Tensor) -> Tensor:
        """Channels in, channels out, at every place."""
        inside = self.first(self.first_norm(x).relu())
        return x + self.second(self.second_norm(inside).relu())


class SpliceAI(nn.Module):
    """Probabilities of no splice site, of an acceptor and of a donor at every place but those of the context.

    Args:
        context: how many places at both ends together only help; the published network has 10000.
    """

    def __init__(self, context: int = 10000, channels: int = CHANNELS) -> None:
        super().__init__()
        self.context = context
        self.inward = nn.Conv1d(4, channels, 1)
        self.skips = nn.ModuleList(nn.Conv1d(channels, channels, 1) for _ in range(len(STACKS) + 1))
        blocks = [Block(channels, *kind) for kind in STACKS for _ in range(BLOCKS_OF_A_STACK)]
        self.blocks = nn.ModuleList(blocks)
        self.outward = nn.Conv1d(channels, 3, 1)

    def forward(self, bases: Tensor) -> Tensor:
        """(windows, 4, places) to (windows, 3, places - context)."""
        x = self.inward(bases)
        skipped = self.skips[0](x)
        for number, block in enumerate(self.blocks, 1):
            x = block(x)
            if number % BLOCKS_OF_A_STACK == 0:
                skipped = skipped + self.skips[number // BLOCKS_OF_A_STACK](x)
        half = self.context // 2
        return torch.softmax(self.outward(skipped[..., half : skipped.shape[-1] - half]), dim=1)
