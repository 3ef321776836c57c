"""``inspect MODEL``: the symmetries of a model."""

from __future__ import annotations

from typing import Any

from sinkhorn_rebasin.cli.models.hugging_face import described_module
from sinkhorn_rebasin.cli.models.source import load_model
from sinkhorn_rebasin.cli.pair import inputs_of
from sinkhorn_rebasin.cli.terminal import say
from sinkhorn_rebasin.cli.verb import Options, Verb, add_ignore, add_inputs, add_models
from sinkhorn_rebasin.symmetry import discover_rescaling, discover_symmetry, verify_symmetry


def _add_options(parser: Any) -> None:
    add_models(parser, "model")
    add_inputs(parser)
    add_ignore(parser)
    parser.add_argument("--rescaling", action="store_true", help="also look for scales and signs of units")


def _run(options: Options) -> None:
    model = load_model(options.model)
    inputs = inputs_of(model, options.inputs)
    spec = discover_symmetry(model.module, inputs, ignore=tuple(options.ignore or ()))
    say(f"{model.text}: {described_module(model.module)}")
    say(spec)
    say(f"verified: the output changes by {verify_symmetry(model.module, spec, inputs):.0e}")
    if options.rescaling:
        say(f"\nrescalings\n{discover_rescaling(model.module, spec, inputs)}")


INSPECT = Verb(
    "inspect",
    "Print the symmetries of a model: what can be permuted, and what holds the rest.",
    "sinkhorn-rebasin inspect ./gpt2",
    _add_options,
    _run,
    ("model",),
)
