from __future__ import annotations

import torch
from torch import Tensor, nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.carrying import LayerByLayer
from sinkhorn_rebasin.networks.drawn_images import drawn_images
from tests.carrying.networks import farthest, tuned_from

LIKE = torch.zeros(2, 2, 8, 8)


def network(seed: int, stride: int = 1) -> nn.Module:
    """Convolutions without norms: the first sees overlapping patches, or separate ones at stride 3."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Conv2d(2, 6, 3, stride), nn.ReLU(), nn.Conv2d(6, 5, 1), nn.ReLU()
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)).eval()


def test_without_data_a_convolutional_network_is_carried_by_what_drawn_images_show() -> None:
    networks = tuned_from(network(0)), network(0), network(1)
    update = sr.carry(*networks, scale=1.0, example_inputs=LIKE + torch.arange(2).view(2, 1, 1, 1))
    assert update.way == "layer by layer"
    assert any(
        "images were drawn in the colours of the first layer's update" in note for note in update.notes
    )
    assert farthest(update.state, carried_with_drawn(networks).state) < 1e-9


def carried_with_drawn(networks: tuple[nn.Module, nn.Module, nn.Module]) -> sr.CarriedUpdate:
    """Carry by such images as data; of those the package keeps an eighth of 4,096 out."""
    rows = (networks[0][0].weight - networks[1][0].weight).double().detach()
    images = 0.8 * drawn_images(rows, LIKE, 4096, 0)
    return sr.carry(
        *networks, way=LayerByLayer(), scale=1.0, data=list(images[512:].split(128)), validation=[images[:1]]
    )


def test_separate_patches_are_carried_by_weights() -> None:
    inputs = torch.randn(2, 2, 9, 9, generator=torch.Generator().manual_seed(0))
    base, new_base = network(0, 3), network(1, 3)
    assert sr.carry(tuned_from(base), base, new_base, example_inputs=inputs).way == "weights"


def test_a_convolution_of_something_else_than_the_images_shows_no_inputs() -> None:
    class Halved(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            self.layers = network(seed)

        def forward(self, images: Tensor) -> Tensor:
            return torch.as_tensor(self.layers(images / 2))

    base = Halved(0)
    inputs = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    assert sr.carry(tuned_from(base), base, Halved(1), example_inputs=inputs).way == "weights"
