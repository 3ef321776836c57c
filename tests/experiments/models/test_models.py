"""Parameter counts, output shapes and parameter names of the experiments' networks."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from experiments.models import COST_NETWORKS, MODELS, build_model
from experiments.models.resnet import Block, PadShortcut


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# The published counts, or counted by hand; 0 where only the shape is checked.
CASES: list[tuple[str, dict[str, Any], tuple[int, ...], int]] = [
    ("mlp", {"inputs": 784, "widths": [512, 512, 512]}, (1, 28, 28), 932_362),
    ("mlp", {"inputs": 12, "widths": [], "classes": 3}, (3, 2, 2), 12 * 3 + 3),
    ("cnn", {}, (3, 32, 32), 3 * 32 * 9 + 32 + 32 * 64 * 9 + 64 + 64 * 64 * 128 + 128 + 1290),
    (
        "cnn",
        {"channels": 1, "size": 28},
        (1, 28, 28),
        32 * 9 + 32 + 32 * 64 * 9 + 64 + 3136 * 128 + 128 + 1290,
    ),
    ("vgg", {"depth": 11, "batch_norm": True, "head": [512, 512]}, (3, 32, 32), 9_756_426),
    ("vgg", {"depth": 16, "batch_norm": True}, (3, 32, 32), 14_728_266),
    ("vgg", {"depth": 19, "width": 0.125}, (3, 32, 32), 0),
    ("resnet20", {"shortcut": "A"}, (3, 32, 32), 269_722),
    ("resnet20", {"shortcut": "B"}, (3, 32, 32), 272_474),
    ("resnet20", {"norm": "layer"}, (3, 32, 32), 272_474),
    ("resnet18", {"stem": "imagenet", "classes": 1000}, (3, 64, 64), 11_689_512),
    ("resnet18", {}, (3, 32, 32), 11_173_962),
    ("resnet50", {"classes": 1000}, (3, 64, 64), 25_557_032),
    ("resnext", {"groups": 32, "width": 4, "depths": [3, 4, 6, 3], "classes": 10}, (3, 32, 32), 0),
    ("vit", {"size": 16, "patch": 4, "width": 8, "depth": 1, "heads": 2, "classes": 3}, (3, 16, 16), 0),
]


@pytest.mark.parametrize(("name", "arguments", "shape", "count"), CASES)
def test_counts_and_shapes(name: str, arguments: dict[str, Any], shape: tuple[int, ...], count: int) -> None:
    model = build_model(name, **arguments)
    assert not count or _count(model) == count
    with torch.no_grad():
        assert model.eval()(torch.zeros(2, *shape)).shape == (2, arguments.get("classes", 10))


@pytest.mark.parametrize(
    ("name", "millions"),
    list(zip(COST_NETWORKS, [0.93, 0.27, 4.3, 9.8, 11.2, 23.5], strict=True)),
)
def test_cost_networks_have_the_compared_sizes(name: str, millions: float) -> None:
    assert round(_count(COST_NETWORKS[name].build()) / 1e6, 1 if millions > 1 else 2) == millions


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_vgg_depth_counts_weight_layers(depth: int) -> None:
    """The paper's depth counts three linear layers, of which one is left here."""
    model = build_model("vgg", depth=depth, width=0.05)
    convolutions = sum(isinstance(module, nn.Conv2d) for module in model.modules())
    assert convolutions == depth - 3


def test_resnet_names_are_those_of_torchvision() -> None:
    names = set(dict(build_model("resnet18").state_dict()))
    assert {
        "conv1.weight",
        "bn1.running_mean",
        "layer1.0.conv2.weight",
        "layer2.0.downsample.1.bias",
    } <= names
    assert {"layer4.1.bn2.weight", "fc.weight"} <= names
    assert "layer1.0.downsample.0.weight" not in names
    deep = set(dict(build_model("resnet50").state_dict()))
    assert {"layer1.0.downsample.0.weight", "layer3.5.conv3.weight", "layer4.2.bn3.bias"} <= deep


def test_shortcut_a_thins_pixels_and_pads_channels() -> None:
    images = torch.arange(2 * 2 * 4 * 4.0).view(2, 2, 4, 4)
    output = PadShortcut(added=2, stride=2)(images)
    assert torch.equal(output[:, 1:3], images[:, :, ::2, ::2])
    assert not output[:, [0, 3]].any()


@pytest.mark.parametrize("bottleneck", [False, True])
def test_a_block_without_its_convolutions_passes_its_input_on(bottleneck: bool) -> None:
    block = Block(8, 2 if bottleneck else 8, 1, bottleneck, "B", "batch").eval()
    nn.init.zeros_(block.get_parameter(f"bn{3 if bottleneck else 2}.weight"))
    images = torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(block(images), images.relu())


def test_layer_norm_treats_each_image_alone() -> None:
    model = build_model("resnet20", norm="layer", width=0.25).train()
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(images)[:1], model(images[:1]), rtol=1e-4, atol=1e-5)


def test_tanh_mlp_is_odd_without_biases() -> None:
    model = build_model("mlp", inputs=4, widths=[5], activation="tanh")
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
    x = torch.ones(1, 4)
    torch.testing.assert_close(model(-x), -model(x))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("alexnet", {}),
        ("vgg", {"depth": 12}),
        ("mlp", {"inputs": 1, "widths": [1], "activation": "gelu"}),
        ("resnet18", {"stem": "none"}),
        ("resnet20", {"shortcut": "C"}),
        ("resnet20", {"norm": "group"}),
        ("vit", {"heads": 3}),
        ("vit", {"patch": 5}),
    ],
)
def test_unknown_choices_are_refused(name: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Expected"):
        build_model(name, **arguments)


def test_modules_import_torch_alone() -> None:
    """Other environments build these networks, where the package and its requirements are not installed."""
    program = (
        "import sys, experiments.models; print([m for m in sys.modules if m.split('.')[0] in sys.argv[1:]])"
    )
    foreign = ["sinkhorn_rebasin", "lightning", "scipy", "safetensors", "rich", "sklearn"]
    done = subprocess.run(
        [sys.executable, "-c", program, *foreign], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    assert set(MODELS) == {
        "bottleneck_mlp",
        "cnn",
        "gpt",
        "inverted_residual",
        "lstm",
        "mixture",
        "mlp",
        "resnet18",
        "resnet20",
        "resnet50",
        "resnet8",
        "resnext",
        "vgg",
        "vit",
    }
