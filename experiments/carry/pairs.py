"""Two bases of different seeds, and a fine-tune of each, trained once and kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from experiments.data.image_data import ImageData
from experiments.data.rotation import rotated
from experiments.models.endpoints import EndpointConfig, load_or_train
from experiments.models.training import train_endpoint
from sinkhorn_rebasin.files.weights_file import read_weights
from sinkhorn_rebasin.networks.copying import standalone_copy

HELD_OUT = 5000
DEGREES = 45.0
SECOND_SEED = 50
BASE_EPOCHS, TUNED_EPOCHS, TUNED_RATE = 4, 2, 3e-4


@dataclass(frozen=True)
class Task:
    """Hold one task's training, held-out and test images with labels."""

    train: tuple[Tensor, Tensor]
    held_out: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Pair:
    """Hold an old and a new base with a fine-tune of each, in evaluation mode."""

    base: nn.Module
    tuned: nn.Module
    new_base: nn.Module
    new_tuned: nn.Module


def tasks(data: ImageData) -> tuple[Task, Task]:
    """Return the base task, upright images, and the new one, the same images turned."""
    return _task(data), _task(turned(data))


def turned(data: ImageData) -> ImageData:
    """Return the images turned by 45 degrees."""
    images = [rotated(each, DEGREES, "bilinear") for each in (data.train_images, data.test_images)]
    return replace(data, train_images=images[0], test_images=images[1], name=f"{data.name}-turned")


def load_pair(folder: Path, data: ImageData, seed: int, width: int, new_width: int) -> Pair:
    """Return a pair from the folder, or train and keep it; the last images are held out of all training."""
    kept, _ = data.hold_out(HELD_OUT)
    bases, fine_tunes = [], []
    for number, size in ((seed, width), (seed + SECOND_SEED, new_width)):
        arguments = {"inputs": data.train_images[0].numel(), "widths": [size] * 3}
        base = load_or_train(folder, EndpointConfig("mlp", number, BASE_EPOCHS, arguments), kept)
        bases.append(base)
        fine_tunes.append(_fine_tune(folder / f"turned-{size}-seed{number}.safetensors", base, kept, number))
    return Pair(bases[0], fine_tunes[0], bases[1], fine_tunes[1])


def _fine_tune(path: Path, base: nn.Module, data: ImageData, seed: int) -> nn.Module:
    from safetensors.torch import save_file

    tuned = standalone_copy(base)
    if not path.is_file():
        tuned = train_endpoint(
            lambda: standalone_copy(base),
            turned(data),
            seed=seed,
            epochs=TUNED_EPOCHS,
            learning_rate=TUNED_RATE,
        )
        save_file({name: tensor.contiguous() for name, tensor in tuned.state_dict().items()}, path)
    tuned.load_state_dict(read_weights(path))
    return tuned.eval()


def _task(data: ImageData) -> Task:
    kept, held_out = data.hold_out(HELD_OUT)
    return Task((kept.train_images, kept.train_labels), held_out, (data.test_images, data.test_labels))
