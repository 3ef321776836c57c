"""``align A B --out FILE``: bring B's units into A's order, and write how."""

from __future__ import annotations

import sys
from typing import Any

from sinkhorn_rebasin.cli.aligning import METHODS, Wish, align_models
from sinkhorn_rebasin.cli.data import read_data
from sinkhorn_rebasin.cli.pair import inputs_of, load_pair
from sinkhorn_rebasin.cli.terminal import say, say_apart
from sinkhorn_rebasin.cli.verb import Options, Verb, add_data, add_ignore, add_inputs, add_models, add_output
from sinkhorn_rebasin.files.atomic import check_free


def add_method(parser: Any) -> None:
    """Add the options for how two models are aligned."""
    add_data(parser, "--train", "data that the alignment is found on")
    parser.add_argument(
        "--method", choices=[*METHODS], help="default: weight_matching, and learned where there are data"
    )
    parser.add_argument(
        "--recipe",
        type=str,
        metavar="NAME",
        help="of --method learned: default, quick, transformer, or a YAML file",
    )
    parser.add_argument("--seconds", type=float, help="budget of learning, or limit of weight matching")
    parser.add_argument("--signs", action="store_true", help="also negate units, where that changes nothing")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    add_ignore(parser)


def wish_of(options: Options) -> Wish:
    """Return how the options want two models aligned."""
    told = {name: getattr(options, name) for name in ("method", "seconds", "signs", "seed", "recipe")}
    return Wish(**told, progress=sys.stderr.isatty(), ignore=tuple(options.ignore or ()))


def _add_options(parser: Any) -> None:
    add_models(parser, "reference", "target")
    add_output(parser, "FILE")
    add_method(parser)
    add_inputs(parser)


def _run(options: Options) -> None:
    check_free(options.out, options.force)
    reference, target = load_pair(options.reference, options.target)
    batches = None if options.train is None else read_data(options.train, reference)
    inputs = inputs_of(reference, options.inputs, batches)
    alignment = align_models(reference, target, inputs, batches, wish_of(options))
    alignment.save(options.out)
    say(alignment)
    say_apart(alignment.spec.ignored)
    if alignment.receipt is not None:
        say(f"verified: the output of {target.text} changes by {alignment.receipt.verified_error:.0e}")
    say(f"written to {options.out}")


ALIGN = Verb(
    "align",
    "Find how the units of B are to be reordered towards A, and write it to a file without weights.",
    "sinkhorn-rebasin align ./model_a ./model_b --out b_to_a.safetensors",
    _add_options,
    _run,
    ("reference", "target"),
    ("out",),
)
