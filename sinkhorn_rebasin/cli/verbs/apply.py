"""``apply FILE B --out DIR``: write B with its units reordered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sinkhorn_rebasin.cli.failures import NotMergeableError
from sinkhorn_rebasin.cli.models.loaded import LoadedModel
from sinkhorn_rebasin.cli.models.source import load_model
from sinkhorn_rebasin.cli.output_folder import write_model
from sinkhorn_rebasin.cli.streaming import shards_of, stream_apply
from sinkhorn_rebasin.cli.terminal import say
from sinkhorn_rebasin.cli.verb import MODEL_HELP, Options, Verb, add_output
from sinkhorn_rebasin.errors import ArchitectureError, SpecError, listed
from sinkhorn_rebasin.files.atomic import check_free
from sinkhorn_rebasin.matching import Alignment


def rebase(alignment: Alignment, target: LoadedModel) -> None:
    """Move a model's units as an alignment says.

    Raises:
        NotMergeableError: the alignment is of another network; the first difference is named.
    """
    try:
        state = alignment.apply(target.module)
    except (ArchitectureError, SpecError) as error:
        raise NotMergeableError(f"{target.text}: {error}") from error
    target.module.load_state_dict(state, strict=False)


def facts_of(alignment: Alignment) -> list[tuple[str, str]]:
    """List what an alignment's receipt says, as rows of a card."""
    facts = [("aligned by", alignment.method or "hand")]
    if alignment.spec.ignored:
        facts.append(("layers that each network keeps", listed(sorted(alignment.spec.ignored), most=8)))
    receipt = alignment.receipt
    if receipt is None:
        return facts
    if receipt.verified_error is not None:
        facts.append(("verified change of the function", f"{receipt.verified_error:.0e}"))
    for role, fingerprint in (("reference", receipt.reference), ("target", receipt.target)):
        if fingerprint is not None:
            facts.append((f"fingerprint of the {role}'s weights", fingerprint.contents))
    return facts


def _add_options(parser: Any) -> None:
    parser.add_argument("file", metavar="FILE", nargs="?", type=str, help="what align wrote")
    parser.add_argument("target", metavar="B", nargs="?", type=str, help=MODEL_HELP)
    add_output(parser, "DIR")


def _run(options: Options) -> None:
    check_free(options.out, options.force)
    alignment = Alignment.load(options.file)
    shards = shards_of(options.target, alignment)
    if shards is not None:
        title = f"{Path(options.target).name}, aligned"
        stream_apply(alignment, shards, options.out, title, facts_of(alignment))
    else:
        _apply_loaded(alignment, options)
    say(f"written to {options.out}: the same function, its units in another order")


def _apply_loaded(alignment: Alignment, options: Options) -> None:
    target = load_model(options.target)
    rebase(alignment, target)
    write_model(target, options.out, f"{target.name}, aligned", [options.target], facts_of(alignment))


APPLY = Verb(
    "apply",
    "Write B with its units in the order that a file of align says; its function stays.",
    "sinkhorn-rebasin apply b_to_a.safetensors ./model_b --out ./model_b_aligned",
    _add_options,
    _run,
    ("file", "target"),
    ("out",),
)
