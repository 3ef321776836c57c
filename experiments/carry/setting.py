"""Settings: which networks, what is changed in their data, and what each way may look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from experiments.compare_methods.setting import Training, read_setting
from experiments.models.endpoints import EndpointConfig

SETTINGS = Path(__file__).parent / "settings"


@dataclass(frozen=True)
class Tuning:
    """How a base is tuned to the new task, with Adam; `bfloat16` is for networks that take long."""

    epochs: int
    learning_rate: float = 5e-4
    batch_size: int = 128
    bfloat16: bool = False

    def facts(self) -> dict[str, Any]:
        """Return what decides a tuned network; a switch that is off is left out, as before there was one."""
        return {name: value for name, value in asdict(self).items() if value is not False}


@dataclass(frozen=True)
class FewLabels:
    """How networks are tuned on few labels, from every start alike.

    Attributes:
        counts: of labels.
        steps, batch_size: of tuning.
        rates: that held-out data decide on; at 0 the start stays.
        copies: of each image, shifted by up to 4 pixels and half of them mirrored.
        way: how the update is carried with the samples before they tune.
        reach: pixels by which samples are shifted at every step; tried beside none of it, from every start alike.
        beside: whether the update is also carried with samples of the base task beside the new ones.
    """

    counts: tuple[int, ...] = (50, 200, 1000)
    steps: int = 300
    batch_size: int = 64
    rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3)
    copies: int = 1
    way: Literal["default", "learned"] = "default"
    reach: int = 0
    beside: bool = False


@dataclass(frozen=True)
class Setting:
    """One line of work.

    Attributes:
        title: of tables.
        data: the base task.
        change: what the new task is made of it by.
        model, arguments, training: of the bases.
        tuning: of the fine-tunes.
        seeds: pairs of bases, (old, new).
        wide: arguments of a wider new base, whose columns come beside.
        train_images: the first so many; all by default.
        every: each so many test samples one is held out, for all that is decided; the others are the test.
        most_tested: test samples, at most.
        decide: what choices are made by, on held-out samples.
        looked_at: samples of the base task that ways with data see.
        unlabelled: samples of the new task that ways with data see.
        without: methods that are left out.
        labels: few labels.
        sparsity: share of weights that masks leave out; none without.
    """

    title: str
    data: Literal["mnist", "cifar10", "source_text"]
    change: Literal["turned", "colors", "blur", "prose"]
    model: str
    training: Training
    tuning: Tuning
    arguments: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[tuple[int, int], ...] = ((0, 1), (1, 2), (2, 0))
    wide: Mapping[str, Any] | None = None
    train_images: int | None = None
    every: int = 5
    most_tested: int | None = None
    decide: Literal["loss", "accuracy"] = "loss"
    looked_at: int = 4000
    unlabelled: int = 1000
    without: tuple[str, ...] = ()
    labels: FewLabels = field(default_factory=FewLabels)
    sparsity: float | None = None

    def endpoint(self, seed: int, wide: bool = False) -> EndpointConfig:
        """Return how the base of a seed is trained."""
        training = {name: getattr(self.training, name) for name in Training.__dataclass_fields__}
        arguments = {**self.arguments, **((self.wide or {}) if wide else {})}
        return EndpointConfig(model=self.model, seed=seed, arguments=arguments, **training)


def load_setting(name: str) -> Setting:
    """Read a setting: the name of a file in `experiments/carry/settings`, or the path of one's own.

    Example:
        >>> load_setting("mnist_mlp").change
        'turned'
    """
    return read_setting(Setting, SETTINGS, name)


def known_settings() -> list[str]:
    """Return the names of the settings that come with the repository."""
    return sorted(path.stem for path in SETTINGS.glob("*.yaml"))
