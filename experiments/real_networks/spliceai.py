"""SpliceAI as a PyTorch network: dilated residual blocks along a strand, which say where it is spliced."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from experiments.real_networks.network import Published, folder_of

# Width of the kernel and dilation in each stack of four blocks of the published network.
STACKS = ((11, 1), (11, 4), (21, 10), (41, 25))
BLOCKS_OF_A_STACK = 4
MEMBERS = 5
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


def published(file: Path) -> SpliceAI:
    """The network with the weights of a file of the package ``spliceai``, which Keras has written.

    Args:
        file: ``spliceai/models/spliceai1.h5`` to ``spliceai5.h5``.
    """
    import h5py

    network = SpliceAI().eval()
    convolutions: list[nn.Conv1d] = [network.inward, network.skips[0]]
    norms: list[nn.BatchNorm1d] = []
    for number, block in enumerate(network.blocks, 1):
        convolutions += [block.first, block.second]
        norms += [block.first_norm, block.second_norm]
        if number % BLOCKS_OF_A_STACK == 0:
            convolutions.append(network.skips[number // BLOCKS_OF_A_STACK])
    convolutions.append(network.outward)
    with h5py.File(file) as archive, torch.no_grad():
        weights = archive["model_weights"]
        for number, layer in enumerate(convolutions, 1):
            values = weights[f"conv1d_{number}"][f"conv1d_{number}"]
            layer.weight.copy_(torch.from_numpy(values["kernel:0"][()]).permute(2, 1, 0))
            layer.bias.copy_(torch.from_numpy(values["bias:0"][()]))
        for number, norm in enumerate(norms, 1):
            name = f"batch_normalization_{number}"
            values = weights[name][name]
            parts = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean"}
            for own, theirs in (parts | {"running_var": "moving_variance"}).items():
                getattr(norm, own).copy_(torch.from_numpy(values[f"{theirs}:0"][()]))
    return network


def published_member(number: int) -> SpliceAI:
    """One of the five networks of the installed package, which answers at all places."""
    network = published(folder_of("spliceai") / "models" / f"spliceai{number}.h5")
    network.context = 0
    return network


def bases(windows: int, places: int = 400) -> Tensor:
    """Draw random strands, (windows, 4, places)."""
    return one_hot(torch.randint(4, (windows, places)), 4).transpose(1, 2).float()


def strand_networks() -> list[Published]:
    """List the networks of strands."""
    return [
        Published(f"SpliceAI/{number}", "spliceai", partial(published_member, number), bases)
        for number in range(1, MEMBERS + 1)
    ]
