"""Settings: which networks on which data, how they are trained, and what each method may spend on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser

from experiments.data import ImageData, load_cifar10, load_digits, load_mnist
from experiments.endpoints import EndpointConfig
from experiments.models import Architecture

CONFIGS = Path(__file__).parents[1] / "configs" / "compare_methods"


@dataclass(frozen=True)
class Training:
    """How the endpoints are trained: see :class:`EndpointConfig`."""

    epochs: int
    learning_rate: float = 1e-3
    batch_size: int = 128
    augmentation: bool = False
    one_cycle: bool = False
    bfloat16: bool = False


@dataclass(frozen=True)
class Budget:
    """What the methods that look at data may look at, and for how long.

    Attributes:
        images: training images that matching by activations, straight-through and annealing see.
        epochs: of the straight-through estimator over them.
        proposals: permutations that simulated annealing tries.
        steps, batch_size: of the methods that learn scores.
    """

    images: int = 5000
    epochs: int = 5
    proposals: int = 300
    steps: int = 1000
    batch_size: int = 500


@dataclass(frozen=True)
class Evaluation:
    """How a path is measured: test images (None: all), positions, and training images that REPAIR sees."""

    test_images: int | None = None
    points: int = 25
    repair_images: int = 2000


@dataclass(frozen=True)
class Setting:
    """One line of work: a network, its data, its pairs of seeds (reference, target), and the budgets."""

    title: str
    data: Literal["digits", "mnist", "cifar10"]
    model: str
    training: Training
    arguments: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[tuple[int, int], ...] = ((0, 1), (2, 3), (4, 5))
    budget: Budget = field(default_factory=Budget)
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
    """Read a setting: the name of a file in `experiments/configs/compare_methods`, or the path of one's own.

    Example:
        >>> load_setting("digits_mlp_32").model
        'mlp'
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else CONFIGS / f"{name}.yaml"
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a setting out of {', '.join(known_settings())}, or the path of a .yaml file, but got {name!r}."
        )
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Setting, "setting")
    loaded = parser.instantiate_classes(parser.parse_object({"setting": _read(path)}))
    setting: Setting = loaded.setting
    return setting


def known_settings() -> list[str]:
    """Names of the settings that come with the repository."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def load_data(setting: Setting, root: Path) -> ImageData:
    """The setting's data; those on disk are looked for in `root`."""
    if setting.data == "digits":
        return load_digits()
    return {"mnist": load_mnist, "cifar10": load_cifar10}[setting.data](root)


def _read(path: Path) -> Any:
    import yaml

    return yaml.safe_load(path.read_text(encoding="utf-8"))
