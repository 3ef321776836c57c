"""Networks with branches: residual additions, concatenation, gates and shuffles."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.case import Case, Function, noise, slots

IMAGE = noise(2, 2, 6, 6)


class Block(nn.Module):
    """A basic residual block: identity shortcut, option A (padding) or option B (projection)."""

    def __init__(
        self, channels: int, out: int, inner: int, option: str = "A", *, before: bool = False
    ) -> None:
        super().__init__()
        stride = 1 if channels == out else 2
        self.before, self.extra, self.stride = before, out - channels, stride
        self.conv1 = nn.Conv2d(channels, inner, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels if before else inner)
        self.conv2 = nn.Conv2d(inner, out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(inner if before else out)
        self.project = None
        if option == "B" and self.extra:
            self.project = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        if self.before:
            y = self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))
            return y + self.shortcut(x)
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))

    def shortcut(self, x: Tensor) -> Tensor:
        if self.project is not None:
            return self.project(x)
        if not self.extra:
            return x
        before = self.extra // 2
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.extra - before))


def resnet(*blocks: Block, first: int, last: int) -> nn.Sequential:
    stem = nn.Sequential(nn.Conv2d(2, first, 3, 1, 1, bias=False), nn.BatchNorm2d(first), nn.ReLU())
    return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, 2))


def dense_net(net: Function, x: Tensor) -> Tensor:
    one = F.relu(net.a(x))
    two = torch.cat([one, F.relu(net.b(one))], 1)
    three = torch.cat([two, F.relu(net.c(net.norm(two)))], 1)
    return net.d(three.mean((2, 3)))


def u_net(net: Function, x: Tensor) -> Tensor:
    fine = F.relu(net.down(x))
    coarse = F.relu(net.bottom(F.max_pool2d(fine, 2)))
    raised = F.interpolate(coarse, scale_factor=2, mode="nearest")
    return net.up(torch.cat([fine, raised], 1))


def squeeze_excite(net: Function, x: Tensor) -> Tensor:
    h = F.relu(net.conv(x))
    gate = torch.sigmoid(net.excite(F.relu(net.squeeze(h.mean((2, 3), keepdim=True)))))
    return net.head((h * gate).mean((2, 3)))


def channel_shuffle(groups: int):
    def run(net: Function, x: Tensor) -> Tensor:
        h = net.b(F.relu(net.a(x)))
        batch, channels, *size = h.shape
        h = h.view(batch, groups, channels // groups, *size).transpose(1, 2).reshape(batch, channels, *size)
        return net.d(F.relu(net.c(h)).mean((2, 3)))

    return run


def attention(net: Function, x: Tensor) -> Tensor:
    h = torch.tanh(net.a(x))
    q, k, v = net.qkv(h).view(*h.shape[:2], 3, 2, 3).permute(2, 0, 3, 1, 4)
    mixed = (q @ k.transpose(-1, -2)).softmax(-1) @ v
    return net.b(net.out(mixed.transpose(1, 2).flatten(2)))


CASES = [
    Case(
        "resnet_identity",
        lambda: resnet(Block(4, 4, 3), Block(4, 4, 5), first=4, last=4),
        IMAGE,
        ((4, 1), (3, 1), (5, 1)),
    ),
    Case(
        "resnet_option_a",
        lambda: resnet(Block(4, 4, 3), Block(4, 9, 5, "A"), Block(9, 9, 6), first=4, last=9),
        IMAGE,
        ((4, 1), (5, 1), (3, 1), (5, 1), (6, 1)),
    ),
    Case(
        "resnet_option_b",
        lambda: resnet(Block(4, 4, 3), Block(4, 7, 5, "B"), first=4, last=7),
        IMAGE,
        ((4, 1), (7, 1), (3, 1), (5, 1)),
    ),
    Case(
        "resnet_pre_activation",
        lambda: resnet(Block(4, 4, 3, before=True), Block(4, 7, 5, "B", before=True), first=4, last=7),
        IMAGE,
        ((4, 1), (7, 1), (3, 1), (5, 1)),
    ),
    Case(
        "residual_with_scale",
        lambda: Function(
            lambda net, x: net.c(
                (h := net.a(x)) + net.scale * net.b(F.gelu(h)).mean((2, 3), keepdim=True)
            ).mean((2, 3)),
            a=nn.Conv2d(2, 4, 3),
            b=nn.Conv2d(4, 4, 1),
            c=nn.Conv2d(4, 2, 1),
            scale=nn.Parameter(torch.ones(4, 1, 1)),
        ),
        IMAGE,
        ((4, 1),),
        (
            slots(
                *("scale 0", "a.weight 0", "a.bias 0", "b.weight 0", "b.weight 1", "b.bias 0"),
                "c.weight 1",
            ),
        ),
    ),
    Case(
        "dense_net",
        lambda: Function(
            dense_net,
            a=nn.Conv2d(2, 4, 3, padding=1),
            b=nn.Conv2d(4, 3, 3, padding=1),
            norm=nn.BatchNorm2d(7),
            c=nn.Conv2d(7, 5, 1),
            d=nn.Linear(12, 2),
        ),
        IMAGE,
        ((4, 1), (3, 1), (5, 1)),
    ),
    Case(
        "u_net",
        lambda: Function(
            u_net,
            down=nn.Conv2d(2, 4, 3, padding=1),
            bottom=nn.Conv2d(4, 5, 3, padding=1),
            up=nn.Conv2d(9, 2, 3, padding=1),
        ),
        IMAGE,
        ((4, 1), (5, 1)),
        (
            slots("down.weight 0", "down.bias 0", "bottom.weight 1", "up.weight 1"),
            slots("bottom.weight 0", "bottom.bias 0", "up.weight 1"),
        ),
    ),
    Case(
        "concatenated_with_itself",
        lambda: Function(
            lambda net, x: net.b(torch.cat([h := net.a(x), h.relu(), h.neg().relu()], 1)),
            a=nn.Linear(3, 5),
            b=nn.Linear(15, 2),
        ),
        noise(6, 3),
        ((5, 1),),
        (slots("a.weight 0", "a.bias 0", "b.weight 1 x 3"),),
    ),
    Case(
        "squeeze_and_excitation",
        lambda: Function(
            squeeze_excite,
            conv=nn.Conv2d(2, 4, 3),
            squeeze=nn.Conv2d(4, 3, 1),
            excite=nn.Conv2d(3, 4, 1),
            head=nn.Linear(4, 2),
        ),
        IMAGE,
        ((4, 1), (3, 1)),
    ),
    Case(
        "channel_shuffle",
        lambda: Function(
            channel_shuffle(2),
            a=nn.Conv2d(2, 4, 3),
            b=nn.Conv2d(4, 6, 1, groups=2),
            c=nn.Conv2d(6, 6, 1, groups=3),
            d=nn.Linear(6, 2),
        ),
        IMAGE,
        None,
    ),
    Case(
        "channel_shuffle_layer",
        lambda: nn.Sequential(
            *(
                nn.Conv2d(2, 6, 1),
                nn.ChannelShuffle(2),
                nn.ReLU(),
                nn.Conv2d(6, 3, 1),
                nn.AdaptiveAvgPool2d(1),
            )
        ),
        IMAGE,
        ((6, 1),),
    ),
    Case(
        "stacked_branches",
        lambda: Function(
            lambda net, x: net.c(torch.stack([net.a(x).relu(), net.b(x).relu()], 1).amax(1)),
            a=nn.Linear(3, 5),
            b=nn.Linear(3, 5),
            c=nn.Linear(5, 2),
        ),
        noise(6, 3),
        ((5, 1),),
    ),
    Case(
        "attention",
        lambda: Function(
            attention, a=nn.Linear(3, 4), qkv=nn.Linear(4, 18), out=nn.Linear(6, 5), b=nn.Linear(5, 2)
        ),
        noise(2, 4, 3),
        None,
    ),
    Case(
        "interleaved_branches",
        lambda: Function(
            lambda net, x: net.c(torch.stack([net.a(x).tanh(), net.b(x).tanh()], 2).flatten(1)),
            a=nn.Linear(3, 4),
            b=nn.Linear(3, 4),
            c=nn.Linear(8, 2),
        ),
        noise(6, 3),
        None,
    ),
    Case(
        "interleaved_branches_added",
        lambda: Function(
            lambda net, x: net.c(
                torch.stack([h := net.a(x), net.b(x).tanh()], 2).flatten(1) + h.repeat(1, 2)
            ),
            a=nn.Linear(3, 2),
            b=nn.Linear(3, 2),
            c=nn.Linear(4, 2),
        ),
        noise(6, 3),
        None,
    ),
]
