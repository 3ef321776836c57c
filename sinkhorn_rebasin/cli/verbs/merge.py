"""``merge A B --out DIR``: write the mixture of A and the aligned B."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sinkhorn_rebasin.activations import repair
from sinkhorn_rebasin.cli.aligning import align_models
from sinkhorn_rebasin.cli.criterion import loss_of
from sinkhorn_rebasin.cli.data import read_data
from sinkhorn_rebasin.cli.failures import UsageError
from sinkhorn_rebasin.cli.models.loaded import LoadedModel
from sinkhorn_rebasin.cli.output_folder import write_model
from sinkhorn_rebasin.cli.pair import inputs_of, load_pair
from sinkhorn_rebasin.cli.terminal import complain, say
from sinkhorn_rebasin.cli.verb import Options, Verb, add_data, add_inputs, add_models, add_output
from sinkhorn_rebasin.cli.verbs.align import add_method, wish_of
from sinkhorn_rebasin.cli.verbs.apply import facts_of, rebase
from sinkhorn_rebasin.connectivity import LinearPath, evaluate_path
from sinkhorn_rebasin.files.atomic import check_free
from sinkhorn_rebasin.matching import Alignment


def add_alignment(parser: Any) -> None:
    """Add the option for an alignment that was written before."""
    parser.add_argument(
        "--alignment", type=str, metavar="FILE", help="what align wrote; without it B is aligned now"
    )


def alignment_for(
    options: Options, reference: LoadedModel, target: LoadedModel, batches: Iterable[Any] | None
) -> Alignment:
    """Read the alignment of a file, or find one."""
    train = None if options.train is None else read_data(options.train, reference)
    if options.alignment is not None:
        return Alignment.load(options.alignment)
    known = train if train is not None else batches
    inputs = inputs_of(reference, options.inputs, known)
    return align_models(reference, target, inputs, train, wish_of(options))


def _add_options(parser: Any) -> None:
    add_models(parser, "reference", "target")
    add_output(parser, "DIR")
    add_alignment(parser)
    parser.add_argument("--at", type=float, default=0.5, help="share of A, from 0 to 1")
    add_data(parser, "--repair", "data to restore the statistics of activations on (REPAIR, batch norm)")
    add_data(parser, "--data", "held-out batches with labels, for the barrier on the card")
    add_method(parser)
    add_inputs(parser)


def _run(options: Options) -> None:
    if not 0 <= options.at <= 1:
        raise UsageError(f"Expected --at from 0 to 1 but got {options.at}.")
    check_free(options.out, options.force)
    reference, target = load_pair(options.reference, options.target)
    statistics = None if options.repair is None else read_data(options.repair, reference)
    held_out = None if options.data is None else read_data(options.data, reference, labelled=True)
    alignment = alignment_for(options, reference, target, statistics if statistics is not None else held_out)
    rebase(alignment, target)
    facts = [("share of the first", f"{options.at:g}"), *facts_of(alignment)]
    if held_out is not None:
        path = evaluate_path((target.module, reference.module), held_out, loss_of, points=11)
        facts += [
            ("loss barrier between the two", f"{path.barrier:.4g}"),
            ("loss halfway", f"{path.midpoint_loss:.4g}"),
        ]
        say(path)
    merged = LinearPath.between(target.module, reference.module).module_at(options.at)
    if statistics is not None:
        merged = repair(merged, reference.module, target.module, alignment.spec, statistics, at=options.at)
        facts.append(("statistics of activations", "restored (REPAIR)"))
    elif _has_batch_norm(merged):
        complain(
            "warning: its batch norm has statistics of two networks; pass --repair DATA to measure them anew."
        )
    title = f"{reference.name} and {target.name}, merged"
    reference.module = merged
    write_model(reference, options.out, title, [options.reference, options.target], facts)
    say(f"written to {options.out}")


def _has_batch_norm(module: nn.Module) -> bool:
    return any(isinstance(layer, _BatchNorm) for layer in module.modules())


MERGE = Verb(
    "merge",
    "Write the mixture of A and of B, whose units are first brought into the order of A's.",
    "sinkhorn-rebasin merge ./model_a ./model_b --out ./merged",
    _add_options,
    _run,
    ("reference", "target"),
    ("out",),
)
