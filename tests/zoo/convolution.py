"""Networks of convolutions: dimensions, groups, norms, pooling, flattening, padding."""

from __future__ import annotations

import torch
from torch import nn

from tests.zoo.case import Case, Function, noise, slots

IMAGE = noise(2, 2, 6, 6)


def image_net(*middle: nn.Module, channels: int = 4, out: int | None = None) -> nn.Sequential:
    """Conv 2 -> channels, some layers, conv -> 3, mean over positions."""
    return nn.Sequential(
        nn.Conv2d(2, channels, 3, padding=1),
        *middle,
        nn.Conv2d(out or channels, 3, 1),
        nn.AdaptiveAvgPool2d(1),
    )


def one_group(name: str, *middle, groups=((4, 1),), **options) -> Case:
    """A network with one layer between two convolutions, by default without effect on the symmetry."""
    return Case(name, lambda: image_net(*[make() for make in middle], **options), IMAGE, groups)


CASES = [
    Case(
        "conv1d",
        lambda: nn.Sequential(
            nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Conv1d(4, 3, 3), nn.Flatten(), nn.Linear(12, 2)
        ),
        noise(2, 2, 8),
        ((4, 1), (3, 1)),
        (slots("0.weight 0", "0.bias 0", "2.weight 1"), slots("2.weight 0", "2.bias 0", "4.weight 1 x 4")),
    ),
    Case(
        "conv2d",
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 2)
        ),
        IMAGE,
        ((4, 1),),
        (
            slots(
                *("0.weight 0", "0.bias 0", "1.weight 0", "1.bias 0", "1.running_mean 0", "1.running_var 0"),
                "5.weight 1 x 4",
            ),
        ),
    ),
    Case(
        "conv3d",
        lambda: nn.Sequential(
            nn.Conv3d(2, 4, 2),
            nn.BatchNorm3d(4),
            nn.AvgPool3d(2),
            nn.Conv3d(4, 3, 1),
            nn.Flatten(),
            nn.Linear(3, 2),
        ),
        noise(2, 2, 3, 3, 3),
        ((4, 1), (3, 1)),
    ),
    Case(
        "reshape_between_conv_and_linear",
        lambda: Function(
            lambda net, x: net.b(net.a(x).relu().permute(0, 2, 3, 1).reshape(x.shape[0], -1)),
            a=nn.Conv2d(2, 4, 3),
            b=nn.Linear(64, 2),
        ),
        IMAGE,
        ((4, 1),),
        (slots("a.weight 0", "a.bias 0", "b.weight 1 x 16"),),
    ),
    Case(
        "grouped",
        lambda: image_net(nn.ReLU(), nn.Conv2d(4, 6, 3, groups=2), nn.ReLU(), out=6),
        IMAGE,
        ((2, 1), (2, 2), (3, 2)),
    ),
    Case(
        "grouped_twice",
        lambda: image_net(
            nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1, groups=2)
        ),
        IMAGE,
        ((2, 1), (2, 2), (3, 2), (2, 2)),
    ),
    Case(
        "groups_of_the_input",
        lambda: nn.Sequential(
            nn.Conv2d(2, 6, 3, groups=2), nn.ReLU(), nn.Conv2d(6, 3, 1), nn.AdaptiveAvgPool2d(1)
        ),
        IMAGE,
        ((3, 1), (3, 1)),
    ),
    Case(
        "depthwise",
        lambda: image_net(nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4), nn.BatchNorm2d(4), nn.ReLU6()),
        IMAGE,
        ((4, 1),),
        (
            slots(
                *("0.weight 0", "0.bias 0", "2.weight 0", "2.bias 0", "3.weight 0", "3.bias 0"),
                *("3.running_mean 0", "3.running_var 0", "5.weight 1"),
            ),
        ),
    ),
    one_group(
        "depthwise_with_multiplier", lambda: nn.Conv2d(4, 8, 3, groups=4), groups=((4, 1), (2, 4)), out=8
    ),
    one_group(
        "transposed", nn.ReLU, lambda: nn.ConvTranspose2d(4, 5, 3, stride=2), groups=((4, 1), (5, 1)), out=5
    ),
    one_group(
        "transposed_grouped",
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2),
        nn.ReLU,
        groups=((2, 1), (2, 2), (3, 2)),
        out=6,
    ),
    one_group("transposed_depthwise", lambda: nn.ConvTranspose2d(4, 4, 2, stride=2, groups=4), nn.ReLU),
    Case(
        "transposed_1d_and_3d",
        lambda: nn.Sequential(
            nn.ConvTranspose1d(2, 4, 3),
            nn.ReLU(),
            nn.Unflatten(2, (2, 2, 2)),
            nn.ConvTranspose3d(4, 3, 2),
            nn.Flatten(),
            nn.Linear(81, 2),
        ),
        noise(2, 2, 6),
        ((4, 1), (3, 1)),
    ),
    one_group(
        "dilated_and_strided",
        lambda: nn.Conv2d(4, 5, 2, dilation=2, stride=2),
        groups=((4, 1), (5, 1)),
        out=5,
    ),
    one_group("batch_norm", lambda: nn.BatchNorm2d(4)),
    one_group("batch_norm_without_affine", lambda: nn.BatchNorm2d(4, affine=False)),
    one_group("batch_norm_without_statistics", lambda: nn.BatchNorm2d(4, track_running_stats=False)),
    one_group("layer_norm_over_the_image", lambda: nn.LayerNorm((4, 6, 6))),
    one_group("group_norm", lambda: nn.GroupNorm(2, 6), channels=6, groups=((2, 1), (3, 2))),
    one_group("group_norm_of_one_group", lambda: nn.GroupNorm(1, 4)),
    one_group("group_norm_of_single_channels", lambda: nn.GroupNorm(4, 4)),
    one_group("instance_norm", lambda: nn.InstanceNorm2d(4, affine=True)),
    one_group("instance_norm_with_statistics", lambda: nn.InstanceNorm2d(4, track_running_stats=True)),
    one_group("max_pool", lambda: nn.MaxPool2d(3, 2, 1)),
    one_group("average_pool", lambda: nn.AvgPool2d(2)),
    one_group("lp_pool", lambda: nn.Sequential(nn.Softplus(), nn.LPPool2d(2, 2))),
    one_group("adaptive_max_pool", lambda: nn.AdaptiveMaxPool2d(2)),
    one_group("adaptive_average_pool", lambda: nn.AdaptiveAvgPool2d((2, 3))),
    one_group("zero_padding", lambda: nn.ZeroPad2d((1, 2, 0, 1))),
    one_group("constant_padding", lambda: nn.ConstantPad2d(1, 3.0)),
    one_group(
        "zero_padding_before_a_convolution",
        lambda: nn.Sequential(nn.ZeroPad2d((0, 1, 1, 0)), nn.Conv2d(4, 5, 3)),
        groups=((4, 1), (5, 1)),
        out=5,
    ),
    one_group(
        "zero_padding_before_depthwise_and_pooling",
        lambda: nn.Sequential(
            nn.ZeroPad2d(1), nn.MaxPool2d(3, 2), nn.ZeroPad2d(1), nn.Conv2d(4, 4, 3, groups=4)
        ),
    ),
    one_group("reflection_padding", lambda: nn.ReflectionPad2d(1)),
    one_group("replication_padding", lambda: nn.ReplicationPad2d(1)),
    Case(
        "circular_padding",
        lambda: image_net(nn.ReLU(), nn.Conv2d(4, 5, 3, padding=1, padding_mode="circular"), out=5),
        IMAGE,
        ((4, 1), (5, 1)),
    ),
    one_group("dropout_of_channels", lambda: nn.Dropout2d(0.3), nn.ReLU),
    one_group("prelu_of_channels", lambda: nn.PReLU(4)),
    one_group("softmax_over_channels", lambda: nn.Softmax(1)),
    one_group("local_response_norm", lambda: nn.LocalResponseNorm(2), groups=()),
    one_group("upsampling", lambda: nn.Upsample(scale_factor=2, mode="bilinear")),
    Case(
        "pixel_shuffle",
        lambda: image_net(nn.PixelShuffle(2), channels=12, out=3),
        IMAGE,
        ((3, 1), (4, 1)),
    ),
    Case(
        "pixel_unshuffle",
        lambda: image_net(nn.PixelUnshuffle(2), channels=3, out=12),
        IMAGE,
        ((3, 1),),
        (slots("0.weight 0", "0.bias 0", "2.weight 1 x 4"),),
    ),
    Case(
        "global_mean",
        lambda: Function(
            lambda net, x: net.b(net.a(x).relu().mean((2, 3))), a=nn.Conv2d(2, 4, 3), b=nn.Linear(4, 2)
        ),
        IMAGE,
        ((4, 1),),
        (slots("a.weight 0", "a.bias 0", "b.weight 1"),),
    ),
    Case(
        "mask_of_positions",
        lambda: Function(
            lambda net, x: net.b((net.a(x) * net.mask).flatten(1)),
            a=nn.Conv2d(2, 4, 3),
            b=nn.Linear(64, 2),
            mask=torch.arange(16.0).view(4, 4),
        ),
        IMAGE,
        ((4, 1),),
    ),
]
