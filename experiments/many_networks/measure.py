"""Ways to merge several networks, and what their means are worth on test images."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sinkhorn_rebasin
from experiments.data import ImageData, InMemoryDataModule
from sinkhorn_rebasin import ManyAlignment, Recipe

BATCH, TEST_BATCH, REPAIR_IMAGES, BARRIER_IMAGES = 256, 500, 2000, 2000
ENDS = ("one network", "mean of outputs")
WITH_BARRIERS = ("MergeMany", "ours")


@dataclass
class Bench:
    """Networks of one setting, and the images they are merged and measured on.

    Attributes:
        networks: of one architecture.
        data: training and test images; the networks saw the training images.
        held_out: images that no network saw, on which ours decides; a tenth of the training images without it.
        recipe: of ours.
        barriers: measure those between every two networks too.
    """

    networks: Sequence[nn.Module]
    data: ImageData
    held_out: tuple[Tensor, Tensor] | None
    recipe: Recipe
    barriers: bool = True

    def __post_init__(self) -> None:
        self.spec = sinkhorn_rebasin.discover_symmetry(self.networks[0], self.data.train_images[:2])
        self.repair_batches = list(self.data.train_images[:REPAIR_IMAGES].split(TEST_BATCH))

    def ways(self) -> dict[str, Callable[[], ManyAlignment]]:
        """Return the ways to align, by name."""
        networks, spec = self.networks, self.spec
        stays = sinkhorn_rebasin.Alignment(sinkhorn_rebasin.identity_permutations(spec), spec)
        return {
            "as they are": lambda: ManyAlignment((stays,) * len(networks)),
            "to the first": lambda: sinkhorn_rebasin.match_many(networks, spec, max_rounds=0),
            "MergeMany": lambda: sinkhorn_rebasin.match_many(networks, spec),
            "universe": lambda: sinkhorn_rebasin.match_many(networks, spec, method="universe"),
            "Frank-Wolfe": lambda: sinkhorn_rebasin.match_many(networks, spec, method="frank_wolfe"),
            "ours": self.learned,
            "ours, twice the steps": lambda: replace(self, recipe=longer(self.recipe)).learned(),
            "ours, for REPAIR": lambda: self.learned(repair=True),
            "ours, distilled": lambda: self.learned(distilled=True),
        }

    def learned(self, repair: bool = False, distilled: bool = False) -> ManyAlignment:
        """Align by what is best on training images.

        Args:
            repair: judge after REPAIR.
            distilled: learn what the networks say together, in place of labels; what is kept is decided by labels.
        """
        data = self.data
        if distilled:
            together = sinkhorn_rebasin.EnsembleTargets(self.networks)
            parts = [together.targets(images) for images in data.train_images.split(TEST_BATCH)]
            data = replace(data, train_labels=torch.cat(parts))
        train = InMemoryDataModule(data, batch_size=BATCH, validation_fraction=0.0).train_dataloader()
        validation = None
        if self.held_out is not None:
            parts = (tensor.split(TEST_BATCH) for tensor in self.held_out)
            validation = list(zip(*parts, strict=True))
        options: dict[str, Any] = {"recipe": self.recipe, "repair": repair, "progress": False}
        return sinkhorn_rebasin.align_many(
            self.networks, self.spec, train=train, validation=validation, **options
        )

    def ends(self, name: str) -> dict[str, Any]:
        """Measure single networks, or the mean of their outputs."""
        if name == "mean of outputs":
            return measured(lambda images: mean_of_outputs(self.networks, images), self.data)
        singles = [measured(network, self.data) for network in self.networks]
        return {key: sum(single[key] for single in singles) / len(singles) for key in singles[0]}

    def row(self, name: str) -> dict[str, Any]:
        """Align by one way, and measure the equal mean before and after REPAIR."""
        if name in ENDS:
            return self.ends(name)
        began = time.process_time()
        alignment = self.ways()[name]()
        seconds = time.process_time() - began
        found = {**of_mean(self, alignment), "seconds": seconds, "notes": list(alignment.notes)}
        if self.barriers and name in WITH_BARRIERS:
            images, labels = self.data.test_images[:BARRIER_IMAGES], self.data.test_labels[:BARRIER_IMAGES]
            batches = list(zip(images.split(TEST_BATCH), labels.split(TEST_BATCH), strict=True))
            found["barriers"] = alignment.barriers(self.networks, batches, points=3).tolist()
        return found


def longer(recipe: Recipe) -> Recipe:
    """Return a recipe of twice the steps.

    >>> longer(Recipe.many()).steps / Recipe.many().steps
    2.0
    """
    return replace(recipe, steps=2 * recipe.steps, closing_steps=2 * recipe.closing_steps)


def of_mean(bench: Bench, alignment: ManyAlignment) -> dict[str, Any]:
    """Measure the equal mean of aligned networks, before and after REPAIR, and what must be zero."""
    networks, data = bench.networks, bench.data
    after = measured(alignment.to_model(networks, repair=bench.repair_batches), data)
    images = data.test_images[:200]
    change = 0.0
    for network, state in zip(networks, alignment.apply(networks), strict=True):
        with torch.no_grad():
            moved = torch.func.functional_call(network, state, (images,))
            change = max(change, float((moved - network(images)).abs().max()))
    return {
        **measured(alignment.to_model(networks), data),
        "repaired_loss": after["loss"],
        "repaired_accuracy": after["accuracy"],
        "cycle_error": alignment.cycle_error(),
        "function_change": change,
    }


@torch.no_grad()
def measured(network: Callable[[Tensor], Tensor], data: ImageData) -> dict[str, float]:
    """Return the test loss and accuracy."""
    pairs = zip(data.test_images.split(TEST_BATCH), data.test_labels.split(TEST_BATCH), strict=True)
    loss, right = 0.0, 0
    for images, labels in pairs:
        logits = network(images)
        loss += float(F.cross_entropy(logits, labels, reduction="sum"))
        right += int((logits.argmax(1) == labels).sum())
    return {"loss": loss / len(data.test_labels), "accuracy": right / len(data.test_labels)}


def mean_of_outputs(networks: Sequence[nn.Module], images: Tensor) -> Tensor:
    """Return the logarithm of the mean probabilities."""
    return torch.stack([network(images).softmax(1) for network in networks]).mean(0).log()


def finished(
    bench: Bench, methods: Sequence[str], rows: Mapping[str, Any], keep: Callable[[Any], None]
) -> None:
    """Measure the methods that have no row yet, and keep each when it is done."""
    done = dict(rows)
    for name in methods:
        if name not in done:
            done[name] = bench.row(name)
            keep(done)
