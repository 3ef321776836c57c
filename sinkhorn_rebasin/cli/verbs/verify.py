"""``verify FILE A B``: whether a file of align is of these two models, and keeps B's function."""

from __future__ import annotations

from typing import Any

from sinkhorn_rebasin.cli.aligning import check_alignment
from sinkhorn_rebasin.cli.failures import VerificationError
from sinkhorn_rebasin.cli.models.source import load_model
from sinkhorn_rebasin.cli.pair import inputs_of
from sinkhorn_rebasin.cli.terminal import say, say_apart, table
from sinkhorn_rebasin.cli.verb import Options, Verb, add_inputs, add_models
from sinkhorn_rebasin.cli.verbs.diagnose import distance, without
from sinkhorn_rebasin.errors import ArchitectureError, CheckpointError
from sinkhorn_rebasin.matching import Alignment
from sinkhorn_rebasin.networks.architecture import tensors_of


def _add_options(parser: Any) -> None:
    parser.add_argument("file", metavar="FILE", nargs="?", type=str, help="what align wrote")
    add_models(parser, "reference", "target")
    add_inputs(parser)


def _run(options: Options) -> None:
    try:
        alignment = Alignment.load(options.file)
    except CheckpointError as error:
        raise VerificationError(str(error)) from error
    reference, target = load_model(options.reference), load_model(options.target)
    if alignment.receipt is not None:
        try:
            alignment.receipt.check_reference(tensors_of(reference.module))
        except ArchitectureError as error:
            raise VerificationError(f"{reference.text}: {error}") from error
    change = check_alignment(alignment, target, inputs_of(target, options.inputs))
    apart = alignment.spec.ignored
    goal, before = without(tensors_of(reference.module), apart), tensors_of(target.module)
    after = alignment.apply(before)
    rows = [
        ("method", alignment.method or "not told"),
        ("change of B's function", f"{change:.0e}"),
        ("distance to A before", f"{distance(goal, without(before, apart)):.4g}"),
        ("distance to A after", f"{distance(goal, without(after, apart)):.4g}"),
    ]
    say(table(rows))
    say_apart(apart)
    say("verified")


VERIFY = Verb(
    "verify",
    "Check that a file of align is of these two models, is whole, and keeps the function of B.",
    "sinkhorn-rebasin verify b_to_a.safetensors ./model_a ./model_b",
    _add_options,
    _run,
    ("file", "reference", "target"),
)
