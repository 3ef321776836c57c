"""How long must a curve be bent until it joins two networks, with and without alignment?

    python -m experiments.curves digits_mlp
    python -m experiments.curves cifar10_cnn --cache runs/endpoints

A quadratic Bezier curve joins a target and a reference, or the aligned target and the reference, or both are trained
in turn: permutations at a fixed bend first, whose steps count, then the bend. The bend is trained at random points of
the curve; steps of the alignment do not count. A curve is connected when its lowest test accuracy is within 0.3
points of the worse end's and its test loss never rises above the chord. Every budget of steps is a training of its
own, the first of which is the segment, and the last that whose curve is connected. Once the aligned curve is
connected after some steps, others are followed until twice as many. Of several ways to train, each curve takes the
one that is best on held-out images after a pilot. Finished pairs are kept in OUT/finished, and OUT/parts keeps what
of a pair is finished. Leaves in OUT a picture and a receipt of all that is finished there.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

import sinkhorn_rebasin as sr
from experiments.curves.figures import NEVER, draw, steps_until, table, ways_tried
from experiments.curves.setting import Setting, load_setting
from experiments.curves.study import Study
from experiments.curves.training import alternated
from experiments.data import ImageData
from experiments.models.endpoints import read_tensors
from experiments.models.family import Batches, batches_of
from experiments.reporting.finished import Finished
from experiments.reporting.question import Question, Row, console, digest_of
from sinkhorn_rebasin.connectivity import LearnedCurve


def rows(setting: Setting, data: Any, options: Namespace) -> dict[str, Callable[[], Row]]:
    """Return what measures each pair."""
    return {
        f"{seeds[0]}-{seeds[1]}": partial(
            pair_row, setting, seeds, data, options.cache, options.out / "parts"
        )
        for seeds in setting.seeds[: options.pairs]
    }


def pair_row(
    setting: Setting,
    seeds: tuple[int, int],
    data: tuple[ImageData, Batches, Batches],
    cache: Path,
    parts: Path,
) -> dict[str, Any]:
    """Join a pair of networks by every curve.

    Args:
        setting: curves and networks.
        seeds: of the reference and the target.
        data: training images, held-out and test batches.
        cache: folder of trained networks.
        parts: folder of what is finished of a pair, which another number of budgets does not change.
    """
    images, held, _ = data
    reference, target = (setting.network(cache, images, seed) for seed in seeds)
    parts = parts / f"{seeds[0]}-{seeds[1]}-{digest_of(replace(setting, seeds=(), budgets=()))}"
    moved = aligned(reference, target, images, held, setting, parts / "aligned.safetensors")
    steps = setting.alternation_steps
    starts: dict[str, tuple[Callable[[], LearnedCurve], int]] = {
        "aligned": (lambda: LearnedCurve(moved, reference), 0),
        "as they are": (lambda: LearnedCurve(target, reference), 0),
    }
    if steps:
        starts["in turn"] = (lambda: alternated(reference, target, images, setting, seeds[0]), steps)
    curves: dict[str, list[dict[str, Any]]] = {}
    ways: dict[str, Any] = {}
    for name, (start, before) in starts.items():
        study = Study(start(), *data, setting, seeds[0], before, Finished(parts / name))
        enough = 2 * steps_until(curves["aligned"], setting.tolerance) if curves else NEVER
        way, tried = study.chosen_way()
        ways[name], curves[name] = {"taken": str(way), "tried": tried}, []
        console.print(f"{name}: {way} of {tried}")
        for found in study.budgets(way, enough or NEVER):
            curves[name].append(found)
            console.print(f"{name}: {found['step']} steps, {found['short']:.4f}, {found['barrier']:.4f}")
    facts = {"setting": setting.title, "pair": list(seeds), "tolerance": setting.tolerance}
    return {**facts, "ways": ways, "curves": curves}


def aligned(
    reference: nn.Module, target: nn.Module, data: ImageData, held: Batches, setting: Setting, file: Path
) -> nn.Module:
    """Return the target after alignment, which is read from a file if it is there and else written to it."""
    if file.is_file():
        moved = setting.fresh()
        moved.load_state_dict(read_tensors(file))
        return moved.eval()
    count = setting.match_images
    train = batches_of(data.train_images[:count], data.train_labels[:count])
    precision = "bf16-mixed" if setting.training.bfloat16 else "32-true"
    options: dict[str, Any] = {"trainer": {"accelerator": "cpu", "precision": precision}}
    options |= {"recipe": setting.recipe, "progress": False}
    moved = sr.align(reference, target, train, held or None, **options).to_model()
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in moved.state_dict().items()}, file)
    return moved


QUESTION = Question(
    *("curves", __doc__, "pairs", load_setting, rows, table, draw),
    seeds=lambda pairs: sorted({seed for pair in pairs for seed in pair["pair"]}),
    more=lambda pairs, setting: {"ways": ways_tried(pairs)},
)


if __name__ == "__main__":
    QUESTION.answer()
