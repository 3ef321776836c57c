"""Elements moved, repeated, padded, cut and laid together."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.random_networks.blocks.dense import Shape
from tests.random_networks.plan import IMAGE, LAST, SEQUENCE, SIGNAL, kind
from tests.zoo.case import Function


def then(change, channels: int, width: int, **layers) -> nn.Module:
    """A linear layer of four, what is done to it, and a linear layer of what comes out."""
    outputs = change(torch.zeros(2, 3, 4)).shape[-1]
    return Function(
        lambda net, x: net.b(change(net.a(x))),
        a=nn.Linear(channels, 4),
        b=nn.Linear(outputs, width),
        **layers,
    )


def halves_swapped(h: Tensor) -> Tensor:
    return torch.cat(h.chunk(2, -1)[::-1], -1)


CHANGES = {
    "roll": lambda h: h.roll(1, -1),
    "flip": lambda h: h.flip(-1),
    "roll_added": lambda h: h + h.roll(2, -1).tanh(),
    "flip_added": lambda h: h * h.flip(-1).sigmoid(),
    "repeat": lambda h: h.repeat(*[1] * (h.dim() - 1), 2),
    "repeat_interleave": lambda h: h.repeat_interleave(2, -1),
    "expand": lambda h: h.unsqueeze(-1).expand(*h.shape, 3).flatten(-2),
    "expand_in_front": lambda h: h.unsqueeze(-2).expand(*h.shape[:-1], 3, h.shape[-1]).flatten(-2),
    "halves_swapped": halves_swapped,
    "strided": lambda h: h[..., ::2] * h[..., 1::2],
    "interleaved": lambda h: torch.stack([h.tanh(), h.relu()], -1).flatten(-2),
    "side_by_side": lambda h: torch.stack([h.tanh(), h.relu()], -2).flatten(-2),
    "padded": lambda h: F.pad(h, (1, 2), value=0.5).tanh(),
    "cropped": lambda h: F.pad(h, (-1, 0)),
    "diagonal": lambda h: torch.diag_embed(h).flatten(-2),
    "tril": lambda h: (h.unsqueeze(-1) * h.unsqueeze(-2)).tril().flatten(-2),
    "transposed": lambda h: (h.unflatten(-1, (2, 2)).transpose(-1, -2).flatten(-2) + h).tanh(),
    "windows": lambda h: h.unfold(-1, 2, 1).flatten(-2),
    "uneven": lambda h: torch.cat([part.tanh() * (i + 1) for i, part in enumerate(h.split([1, 3], -1))], -1),
    "rot90": lambda h: torch.rot90(h.unflatten(-1, (2, 2)), 1, (-2, -1)).flatten(-2),
    "broadcast": lambda h: torch.broadcast_tensors(h.unsqueeze(-1), h.unsqueeze(-2))[0].flatten(-2),
    "meshgrid": lambda h: torch.cat([h + h[..., i : i + 1] for i in range(2)], -1),
    "tile": lambda h: torch.tile(h, (2,)),
    "squeezed": lambda h: h.unsqueeze(1).squeeze(1).swapaxes(-1, 0).swapaxes(0, -1),
}


@kind("movement", LAST, how=tuple(CHANGES))
def moved(shape: Shape, width: int, how: str) -> nn.Module:
    return then(CHANGES[how], shape[-1], width)


POSITIONS = {
    "roll": lambda x: x.roll(1, 1),
    "flip": lambda x: x.flip(1),
    "shift": lambda x: F.pad(x, (0, 0, 1, -1)),
    "repeat": lambda x: x.repeat(1, 2, 1),
    "repeat_interleave": lambda x: x.repeat_interleave(2, 1),
    "first_and_last": lambda x: torch.cat([x[:, 0], x[:, -1]], -1),
    "pairs": lambda x: torch.cat([x, x.roll(-1, 1)], -1),
    "merged_pairs": lambda x: x[:, : x.shape[1] // 2 * 2].reshape(len(x), -1, 2 * x.shape[2]),
    "outer_sum": lambda x: (x[:, :, None] + x[:, None]).flatten(1, 2),
    "swapped": lambda x: x.transpose(1, 2),
}


@kind("movement positions", SEQUENCE, how=tuple(POSITIONS))
def moved_positions(shape: Shape, width: int, how: str) -> nn.Module:
    if how == "merged_pairs" and shape[1] < 2:
        return nn.Identity()
    return Function(lambda net, x: POSITIONS[how](x))


@kind("padding", IMAGE, mode=("constant", "reflect", "replicate", "circular"))
def padded_image(shape: Shape, width: int, mode: str) -> nn.Module:
    pad = (1, 1, 1, 0) if min(shape[2:]) > 1 else (0, 0, 0, 0)
    return Function(lambda net, x: net.a(F.pad(x, pad, mode=mode)), a=nn.Conv2d(shape[1], width, 1))


@kind("padding", SIGNAL, mode=("constant", "reflect", "replicate", "circular"))
def padded_signal(shape: Shape, width: int, mode: str) -> nn.Module:
    pad = (1, 1) if shape[2] > 1 else (0, 0)
    kernel = min(2, shape[2])
    return Function(lambda net, x: net.a(F.pad(x, pad, mode=mode)), a=nn.Conv1d(shape[1], width, kernel))


@kind("pixel_shuffle", IMAGE)
def pixel_shuffle(shape: Shape, width: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(shape[1], 4 * width, 1), nn.PixelShuffle(2))


@kind("pixel_shuffle", IMAGE)
def pixel_unshuffle(shape: Shape, width: int) -> nn.Module:
    even = all(n % 2 == 0 for n in shape[2:])
    return nn.Sequential(nn.PixelUnshuffle(2) if even else nn.Identity(), nn.LazyConv2d(width, 1))


@kind("channel_shuffle", (IMAGE, SIGNAL), written_out=(False, True))
def channel_shuffle(shape: Shape, width: int, written_out: bool) -> nn.Module:
    """A shuffle between two grouped convolutions."""
    layer = {3: nn.Conv1d, 4: nn.Conv2d}[len(shape)]

    def run(net: Function, x: Tensor) -> Tensor:
        h = net.a(x)
        if written_out or h.dim() == 3:
            h = h.unflatten(1, (2, 3)).transpose(1, 2).flatten(1, 2)
        else:
            h = F.channel_shuffle(h, 2)
        return net.b(h.relu())

    return Function(run, a=layer(shape[1], 6, 1), b=layer(6, 4, 1, groups=2))
