"""Networks without continuous symmetries: what is asked for by default changes nothing of how they are aligned."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import sinkhorn_rebasin as sr


class Recurrent(nn.Module):
    """A recurrent layer whose last state is read: (N, T, 3) -> (N, 2)."""

    def __init__(self, layer: type[nn.LSTM] | type[nn.GRU]) -> None:
        super().__init__()
        self.layer, self.head = layer(3, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = self.head(self.layer(inputs)[0][:, -1])
        return output


class Residual(nn.Module):
    """A convolution block with batch norm and an activation behind the addition."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.inner, self.second, self.head = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        stream = self.first(self.stem(images)).relu()
        stream = (stream + self.second(self.inner(stream))).relu()
        output: Tensor = self.head(stream.mean((2, 3)))
        return output


def convolutions() -> nn.Module:
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), *pooled, nn.Linear(4, 2))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), (4,)),
    "cnn": (convolutions, (1, 6, 6)),
    "resnet": (Residual, (1, 6, 6)),
    "lstm": (lambda: Recurrent(nn.LSTM), (3, 3)),
    "gru": (lambda: Recurrent(nn.GRU), (3, 3)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_they_are_aligned_as_by_permutations_alone(name: str) -> None:
    make, shape = NETWORKS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        networks = [make().eval() for _ in range(2)]
        batches = [(torch.randn(8, *shape), torch.randint(2, (8,))) for _ in range(4)]
    recipe = sr.Recipe(steps=3, cycles=1, closing_steps=2, evaluate_every=3, points=3)
    options = {"recipe": recipe, "progress": False, "trainer": {"accelerator": "cpu"}}
    every, permuted = (
        sr.align(*networks, batches, symmetry=symmetry, **options) for symmetry in ("full", "permutation")
    )
    assert not every.rebasin.continuous
    expected = permuted.to_model().state_dict()
    for key, tensor in every.to_model().state_dict().items():
        assert torch.equal(tensor, expected[key])
