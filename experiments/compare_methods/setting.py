"""Settings: which networks on which data, how they are trained, and what each method may spend on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from jsonargparse import ArgumentParser

import sinkhorn_rebasin
from experiments.data import ImageData, load_cifar10, load_digits, load_mnist, load_source_text
from experiments.models import Architecture
from experiments.models.endpoints import EndpointConfig

SETTINGS = Path(__file__).parent / "settings"
S = TypeVar("S")


@dataclass(frozen=True)
class Training:
    """How the endpoints are trained: see :class:`EndpointConfig`."""

    epochs: int
    learning_rate: float = 1e-3
    batch_size: int = 128
    augmentation: bool = False
    one_cycle: bool = False
    bfloat16: bool = False
    small_epochs: int = 0


@dataclass(frozen=True)
class Budget:
    """What the other methods that look at data may look at, and for how long.

    Attributes:
        images: training images that matching by activations and the straight-through estimator see.
        epochs: of the straight-through estimator over them.
        batch_size: of the methods that learn.
        annealing_images, proposals: of simulated annealing.
        curvature_images: on which the Fisher information is measured.
        matching_steps: of the Sinkhorn losses without our recipe.
        published_batch_size: of the published implementation, whose number of steps stays.
        published_bfloat16: run the networks in mixed precision in it, and all it does with permutations as it is.
    """

    images: int = 5000
    epochs: int = 5
    batch_size: int = 500
    annealing_images: int = 1000
    proposals: int = 2000
    curvature_images: int = 1000
    matching_steps: int = 500
    published_batch_size: int = 1000
    published_bfloat16: bool = False


@dataclass(frozen=True, repr=False)
class Recipe(sinkhorn_rebasin.Recipe):
    """How ours is trained: the package's recipe, with the batches and the precision of an experiment.

    Attributes:
        batch_size: of both fits.
        bfloat16: run both fits in mixed precision.
        trials: a setting's schedule is its own, chosen on held-out data; none is tried again.
    """

    trials: int = 1
    batch_size: int = 250
    bfloat16: bool = False


@dataclass(frozen=True)
class Evaluation:
    """How a path is measured: positions, test images (None: all), and training images, those of REPAIR too.

    With `bfloat16` the networks run in mixed precision, and their losses are taken of float32 outputs.
    """

    points: int = 25
    test_images: int | None = None
    train_images: int = 10_000
    repair_images: int = 2000
    bfloat16: bool = False


@dataclass(frozen=True)
class Setting:
    """One line of work: a network, its data, its pairs of seeds (reference, target), and the budgets.

    `held_out` of the training images, the last of them, are kept from the networks for ours to decide on: networks
    that fit all they have seen do not tell on it which alignment is better. With `expand`, rows over every symmetry
    turn gains that cannot be folded into matrices: see :func:`sinkhorn_rebasin.expand`. With `fold_batch_norm`, they
    fold the batch norms of linear streams: see :func:`sinkhorn_rebasin.discover_continuous`.
    """

    title: str
    data: Literal["digits", "mnist", "cifar10", "source_text"]
    model: str
    training: Training
    arguments: Mapping[str, Any] = field(default_factory=dict)
    held_out: int = 0
    expand: bool = False
    fold_batch_norm: bool = False
    seeds: tuple[tuple[int, int], ...] = ((0, 1), (2, 3), (4, 5))
    budget: Budget = field(default_factory=Budget)
    recipe: Recipe = field(default_factory=Recipe)
    evaluation: Evaluation = field(default_factory=Evaluation)
    without: Mapping[str, str] = field(default_factory=dict)
    """Methods that are left out here, each with the reason."""

    def endpoint(self, seed: int) -> EndpointConfig:
        """How the network of a seed is trained."""
        training = {name: getattr(self.training, name) for name in Training.__dataclass_fields__}
        return EndpointConfig(model=self.model, seed=seed, arguments=dict(self.arguments), **training)

    def architecture(self, data: ImageData) -> Architecture:
        """The network, as an environment without this package builds it."""
        return Architecture(self.model, (1, *data.image_shape), dict(self.arguments))


def load_setting(name: str) -> Setting:
    """Read a setting: the name of a file in `experiments/compare_methods/settings`, or the path of one's own.

    Example:
        >>> load_setting("digits_mlp_32").model
        'mlp'
    """
    return read_setting(Setting, SETTINGS, name)


def read_setting(kind: type[S], folder: Path, name: str) -> S:
    """Read a setting of any experiment from its folder, or from a file of one's own."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        raise FileNotFoundError(
            f"Expected a setting out of {known}, or the path of a .yaml file, but got {name!r}."
        )
    return setting_of(kind, _read(path))


def setting_of(kind: type[S], values: Mapping[str, Any]) -> S:
    """Make a setting of what a file or a receipt says.

    Example:
        >>> setting_of(Training, {"epochs": 3}).epochs
        3
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, "setting")
    setting: S = parser.instantiate(parser.parse_object({"setting": dict(values)})).setting
    return setting


def known_settings() -> list[str]:
    """Names of the settings that come with the repository."""
    return sorted(path.stem for path in SETTINGS.glob("*.yaml"))


def load_data(setting: Setting, root: Path) -> ImageData:
    """The setting's data; those on disk are looked for in `root`."""
    if setting.data == "digits":
        return load_digits()
    if setting.data == "source_text":
        return load_source_text()
    return {"mnist": load_mnist, "cifar10": load_cifar10}[setting.data](root)


def _read(path: Path) -> Any:
    import yaml

    return yaml.safe_load(path.read_text(encoding="utf-8"))
