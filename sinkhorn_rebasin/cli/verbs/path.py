"""``path A B --data DATA --out DIR``: the loss on the way from B to A, before and after aligning."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sinkhorn_rebasin.activations import RepairAlongPath
from sinkhorn_rebasin.cli.criterion import loss_of
from sinkhorn_rebasin.cli.data import read_data
from sinkhorn_rebasin.cli.pair import load_pair
from sinkhorn_rebasin.cli.terminal import say, say_apart
from sinkhorn_rebasin.cli.verb import Options, Verb, add_data, add_inputs, add_models, add_output
from sinkhorn_rebasin.cli.verbs.align import add_method
from sinkhorn_rebasin.cli.verbs.apply import rebase
from sinkhorn_rebasin.cli.verbs.merge import add_alignment, alignment_for, whose_layers
from sinkhorn_rebasin.connectivity import PathEvaluation, evaluate_path
from sinkhorn_rebasin.files.atomic import check_free, whole_folder


def _add_options(parser: Any) -> None:
    add_models(parser, "reference", "target")
    add_data(parser, "--data", "held-out batches with labels")
    add_output(parser, "DIR")
    add_alignment(parser)
    parser.add_argument("--points", type=int, default=25, help="positions on the path, an odd number")
    add_data(parser, "--repair", "data to restore the statistics of activations on, at every position")
    add_method(parser)
    add_inputs(parser)


def _run(options: Options) -> None:
    check_free(options.out, options.force)
    reference, target = load_pair(options.reference, options.target)
    held_out = read_data(options.data, reference, labelled=True)
    alignment = alignment_for(options, reference, target, held_out)
    pair = target.module, reference.module
    measured = {"points": options.points, **whose_layers(alignment)}
    paths = {"as they are": evaluate_path(pair, held_out, loss_of, **measured)}
    rebase(alignment, target)
    paths["aligned"] = evaluate_path(pair, held_out, loss_of, **measured)
    if options.repair is not None:
        statistics = read_data(options.repair, reference)
        mended = RepairAlongPath(reference.module, target.module, alignment.spec, statistics)
        paths["aligned, REPAIR"] = evaluate_path(pair, held_out, loss_of, prepare=mended, **measured)
    text = "\n\n".join(f"{name}\n{path}" for name, path in paths.items())
    with whole_folder(options.out) as part:
        (part / "path.txt").write_text(text + "\n", encoding="utf-8")
        (part / "path.json").write_text(
            json.dumps({name: path.to_dict() for name, path in paths.items()}, indent=1)
        )
        _draw(paths, part / "path.png")
    say(text)
    say_apart(alignment.spec.ignored)
    say(f"\nwritten to {options.out}: path.txt, path.json, path.png")


def _draw(paths: Mapping[str, PathEvaluation], file: Path) -> None:
    from matplotlib.figure import Figure

    from sinkhorn_rebasin.plots import plot_paths

    figure = Figure(figsize=(6, 4), layout="constrained")
    plot_paths(paths, ax=figure.add_subplot())
    figure.savefig(file, dpi=150)


PATH = Verb(
    "path",
    "Measure the loss on the straight path from B to A, as they are and aligned: a table, JSON and a picture.",
    "sinkhorn-rebasin path ./model_a ./model_b --data my_data:test_batches --out ./path",
    _add_options,
    _run,
    ("reference", "target"),
    ("data", "out"),
)
