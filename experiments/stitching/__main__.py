"""How much of what two networks do in their layers is the same but for the symmetries of ReLU?

    python -m experiments.stitching digits_mlp
    python -m experiments.stitching mnist_cnn

The lower layers of one network run first, then a stitch, then the upper layers of another; both networks stay. The
penalty is the mean test accuracy of both minus that of the stitched network. The units at the cut are taken as they
are, ordered by their correlations, ordered by a permutation that is learned on the loss, scaled too, or mapped by any
matrix and bias, which starts from the scaled permutation. Scales are learned after the permutation or together with
it. Batch norm runs as it was trained. Held-out images decide what is kept. Finished pairs are kept in OUT/finished.
Leaves in OUT a picture and a receipt of all that is finished there.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from experiments.data import ImageData
from experiments.models.family import Batches, batches_of
from experiments.reporting.question import Question, Row, console, numbered
from experiments.stitching.chains import cuts, parts
from experiments.stitching.figures import FULL, GROUP, draw, table
from experiments.stitching.setting import Setting, load_setting
from experiments.stitching.stitches import FullStitch, GroupStitch, accuracy, fitted, held_loss, matched_order


def rows(setting: Setting, data: Any, options: Namespace) -> dict[str, Callable[[], Row]]:
    """Return what measures each pair."""
    return numbered(setting.pairs, options, lambda number: pair_row(setting, number, data, options.cache))


def pair_row(
    setting: Setting, number: int, data: tuple[ImageData, Batches, Batches], cache: Path
) -> dict[str, Any]:
    """Stitch a pair of networks after every layer, by every stitch."""
    images, held, tests = data
    source, receiver = (setting.network(cache, images, seed) for seed in (2 * number, 2 * number + 1))
    whole = (accuracy(source, tests) + accuracy(receiver, tests)) / 2
    count = setting.match_images
    train = batches_of(images.train_images[:count], images.train_labels[:count], setting.batch_size)
    found: dict[str, list[float]] = {}
    for cut in cuts(source):
        bottom, top = parts(source, cut)[0], parts(receiver, cut)[1]
        for name, stitch in stitched(bottom, parts(receiver, cut)[0], top, train, held, setting).items():
            found.setdefault(name, []).append(whole - accuracy(nn.Sequential(bottom, stitch, top), tests))
            console.print(f"cut {cut}, {name}: {100 * found[name][-1]:.2f}")
    rows = [{"stitch": name, "penalties": penalties} for name, penalties in found.items()]
    return {"setting": setting.title, "pair": number, "accuracy": whole, "rows": rows}


def stitched(
    bottom: nn.Module, other: nn.Module, top: nn.Module, train: Batches, held: Batches, setting: Setting
) -> dict[str, nn.Module]:
    """Return every stitch between a lower part and another network's upper part, by name.

    Args:
        bottom: the lower part of the source.
        other: the lower part of the receiver, with which units are matched.
        top: the upper part of the receiver.
        train, held: batches of images.
        setting: steps and rates.
    """
    with torch.no_grad():
        seen, held_seen = (
            [(bottom(images), labels) for images, labels in batches] for batches in (train, held)
        )
        order = matched_order(
            torch.cat([units for units, _ in seen]), torch.cat([other(x) for x, _ in train])
        )
    fit = partial(fitted, top=top, train=seen, held=held_seen, steps=setting.steps)
    orders, scales = {"scores": setting.permutation_rate}, {"log_scales": setting.scale_rate}
    matched = GroupStitch(order).eval()
    ordered = fit(matched, rates=orders)
    scaled = [fit(start, rates=scales) for start in (ordered, fit(matched, rates={**orders, **scales}))]
    group = min(scaled, key=lambda stitch: held_loss(stitch, top, held_seen))
    for _ in range(setting.cycles - 1):
        group = fit(fit(group, rates={**orders, **scales}), rates=scales)
    full = FullStitch(group.matrix().detach())
    return {
        "as they are": GroupStitch(torch.arange(len(order))).eval(),
        "matched permutation": matched,
        "learned permutation": ordered,
        GROUP: group,
        FULL: fit(full, rates={"weight": setting.full_rate, "bias": setting.full_rate}),
    }


QUESTION = Question(
    *("stitching", __doc__, "pairs", load_setting, rows, table, draw),
    seeds=lambda pairs: list(range(2 * len(pairs))),
)


if __name__ == "__main__":
    QUESTION.answer()
