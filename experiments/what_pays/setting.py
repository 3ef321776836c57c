"""Settings: which networks, what they have seen, and what every way may spend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from experiments.compare_methods.setting import Training, read_setting
from experiments.models.endpoints import EndpointConfig
from experiments.what_pays.budget import Budget

SETTINGS = Path(__file__).parent / "settings"
DataName = Literal["digits", "mnist", "cifar10", "ani_1x", "spliceai"]


@dataclass(frozen=True)
class Spending:
    """Say what every way that takes steps may spend, alike.

    Attributes:
        steps: of Adam.
        batch_size: at most; a budget of fewer samples is one batch.
        rates: of tuning, that held-out samples decide on; without any nothing is tuned.
        learning_rates: of the scores of permutations, that held-out samples decide on; not more than ``rates``.
            Scales are learned at a tenth of them, and temperatures fall with them.
        evaluate_every: steps, after each of which the best so far on held-out samples is kept.
    """

    steps: int = 200
    batch_size: int = 100
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    learning_rates: tuple[float, ...] = (0.1, 0.03)
    evaluate_every: int = 50


@dataclass(frozen=True)
class Setting:
    """One line of work.

    Attributes:
        title: of tables.
        data: of the networks.
        model, arguments, training: of the networks; published ones have none.
        share: of each class that goes to the owner who has most of it; None where all networks see all data.
        networks: that are merged.
        groups: of other networks each, one a seed.
        members: numbers of published networks, one list a group; those of the seeds otherwise.
        images: of the data, the first so many; None: all.
        held_out: training images, the last of them, that no network has seen; small budgets are made of them.
        sizes: of budgets; None is all samples.
        labelled: whether there are budgets with labels besides those without.
        test_images: None: all.
        fitted: also fit the layers of midpoints to what the networks compute.
        spending: of every way.
    """

    title: str
    data: DataName
    model: str = ""
    training: Training = field(default_factory=lambda: Training(epochs=0))
    arguments: Mapping[str, Any] = field(default_factory=dict)
    share: float | None = None
    networks: int = 2
    groups: int = 3
    members: tuple[tuple[int, ...], ...] = ()
    images: int | None = None
    held_out: int = 5000
    sizes: tuple[int | None, ...] = (50, 200, 1000, None)
    labelled: bool = True
    test_images: int | None = None
    fitted: bool = False
    spending: Spending = field(default_factory=Spending)

    def endpoint(self, seed: int) -> EndpointConfig:
        """Return how the network of a seed is trained."""
        training = {name: getattr(self.training, name) for name in Training.__dataclass_fields__}
        return EndpointConfig(model=self.model, seed=seed, arguments=dict(self.arguments), **training)

    def seeds(self, group: int) -> list[int]:
        """Return the seeds of one group's networks, or the numbers of the published ones.

        >>> load_setting("digits").seeds(1)
        [2, 3]
        """
        if self.members:
            return list(self.members[group])
        return list(range(self.networks * group, self.networks * (group + 1)))

    def budgets(self) -> list[Budget]:
        """Return no data first, then every size without labels, then with them.

        >>> [str(budget) for budget in load_setting("digits").budgets()][:3]
        ['no data', '50 unlabelled', '200 unlabelled']
        """
        kinds = (False, True) if self.labelled else (False,)
        return [Budget(0), *(Budget(size, labelled) for labelled in kinds for size in self.sizes)]

    def facts(self) -> dict[str, Any]:
        """Return what decides the figures of a cell."""
        left_out = ("title", "groups", "sizes", "labelled", "members")
        facts = {name: value for name, value in asdict(self).items() if name not in left_out}
        return facts if self.fitted else {name: value for name, value in facts.items() if name != "fitted"}


def load_setting(name: str) -> Setting:
    """Read a setting: the name of a file in `experiments/what_pays/settings`, or the path of one's own.

    >>> load_setting("digits").networks
    2
    """
    return read_setting(Setting, SETTINGS, name)


def known_settings() -> list[str]:
    """Return the names of the settings that come with the repository."""
    return sorted(path.stem for path in SETTINGS.glob("*.yaml"))
