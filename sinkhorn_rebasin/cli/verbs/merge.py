"""``merge A B [C ...] --out DIR``: write the mixture of A and of the others, aligned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.activations import repair
from sinkhorn_rebasin.cli.aligning import align_models
from sinkhorn_rebasin.cli.criterion import loss_of
from sinkhorn_rebasin.cli.data import read_data
from sinkhorn_rebasin.cli.each_head import add_heads, check_heads_apart, write_each_head
from sinkhorn_rebasin.cli.failures import UsageError
from sinkhorn_rebasin.cli.fusing import add_fusion, fuse_models
from sinkhorn_rebasin.cli.models.loaded import LoadedModel
from sinkhorn_rebasin.cli.models.source import load_model
from sinkhorn_rebasin.cli.output_folder import write_model
from sinkhorn_rebasin.cli.pair import (
    check_function,
    check_mergeable,
    check_shapes,
    inputs_of,
    load_pair,
    spec_of,
)
from sinkhorn_rebasin.cli.several import aligned_together
from sinkhorn_rebasin.cli.streaming import shards_of, stream_merge
from sinkhorn_rebasin.cli.terminal import complain, say, say_apart
from sinkhorn_rebasin.cli.verb import Options, Verb, add_data, add_inputs, add_models, add_output
from sinkhorn_rebasin.cli.verbs.align import add_method, wish_of
from sinkhorn_rebasin.cli.verbs.apply import facts_of, rebase
from sinkhorn_rebasin.connectivity import LinearPath, evaluate_path
from sinkhorn_rebasin.errors import listed
from sinkhorn_rebasin.files.atomic import check_free
from sinkhorn_rebasin.matching import Alignment
from sinkhorn_rebasin.merging.mean_network import mean_network
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.permutations import identity_permutations


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
        alignment = Alignment.load(options.alignment)
        check_shapes(reference, target, alignment.spec.ignored)
        return alignment
    known = train if train is not None else batches
    inputs = inputs_of(reference, options.inputs, known)
    return align_models(reference, target, inputs, train, wish_of(options))


def whose_layers(alignment: Alignment) -> dict[str, Any]:
    """Say for a path that the layers each network keeps are the reference's, where there are some."""
    ignored = sorted(alignment.spec.ignored)
    return {"heads": "reference", "ignore": ignored} if ignored else {}


def _add_options(parser: Any) -> None:
    add_models(parser, "reference", "target")
    parser.add_argument(
        "more", metavar="C", nargs="*", type=str, default=[], help="further models of the same class"
    )
    add_output(parser, "DIR")
    add_alignment(parser)
    parser.add_argument(
        "--at", type=float, help="share of A, from 0 to 1; all have the same share without it"
    )
    add_fusion(parser)
    add_heads(parser)
    add_data(parser, "--repair", "data to restore the statistics of activations on (REPAIR, batch norm)")
    add_data(parser, "--data", "held-out batches with labels, for the barrier on the card")
    add_method(parser)
    add_inputs(parser)


def _run(options: Options) -> None:
    at = 0.5 if options.at is None else options.at
    if not 0 <= at <= 1:
        raise UsageError(f"Expected --at from 0 to 1 but got {at}.")
    if options.alignment is not None and options.ignore:
        raise UsageError("Expected --alignment or --ignore but got both: the file says what it ignores.")
    check_free(options.out, options.force)
    if options.more:
        _merge_many(options)
    elif not _streamed(options, at):
        _merge_two(options, at)
    say(f"written to {options.out}")


def _streamed(options: Options, at: float) -> bool:
    """Merge two folders tensor by tensor where nothing has to be run; tell whether that was possible."""
    runs = options.repair is not None or options.data is not None or options.fusion != "mean"
    if options.alignment is None or runs or options.heads == "each":
        return False
    alignment = Alignment.load(options.alignment)
    target = shards_of(options.target, alignment)
    reference = shards_of(options.reference, alignment) if target is not None else None
    if reference is None or target is None or reference.keys() != target.keys():
        return False
    names = Path(options.reference).name, Path(options.target).name
    facts = [("share of the first", f"{at:g}"), *facts_of(alignment), *_kept(alignment, names[0])]
    say_apart(alignment.spec.ignored)
    stream_merge(alignment, reference, target, at, options.out, f"{names[0]} and {names[1]}, merged", facts)
    return True


def _merge_two(options: Options, at: float) -> None:
    reference, target = load_pair(options.reference, options.target)
    statistics = None if options.repair is None else read_data(options.repair, reference)
    held_out = None if options.data is None else read_data(options.data, reference, labelled=True)
    alignment = alignment_for(options, reference, target, statistics if statistics is not None else held_out)
    check_heads_apart(options.heads, alignment.spec.ignored)
    rebase(alignment, target)
    facts = [("share of the first", f"{at:g}"), *facts_of(alignment)]
    say_apart(alignment.spec.ignored)
    if held_out is not None:
        pair = target.module, reference.module
        path = evaluate_path(pair, held_out, loss_of, points=11, **whose_layers(alignment))
        facts += [
            ("loss barrier between the two", f"{path.barrier:.4g}"),
            ("loss halfway", f"{path.midpoint_loss:.4g}"),
        ]
        say(path)
    merged = LinearPath.between(target.module, reference.module, **whose_layers(alignment)).module_at(at)
    if options.fusion != "mean":
        stays = Alignment(identity_permutations(alignment.spec), alignment.spec)
        state, told = fuse_models(options, [reference, target], [stays, stays], [at, 1 - at])
        merged.load_state_dict(state, strict=False)
        facts += told
    if statistics is not None:
        merged = repair(merged, reference.module, target.module, alignment.spec, statistics, at=at)
        facts.append(("statistics of activations", "restored (REPAIR)"))
    else:
        _warn_of_batch_norm(merged)
    title = f"{reference.name} and {target.name}, merged"
    states = [tensors_of(model.module) for model in (reference, target)]
    _write(options, [reference, target], merged, states, alignment, title, facts)


def _merge_many(options: Options) -> None:
    """Write the mean of three models and more, aligned with the first."""
    told = {"--at": options.at, "--alignment": options.alignment, "--data": options.data}
    told |= {"--method": options.method, "--signs": options.signs or None}
    for name, value in told.items():
        if value is not None:
            raise UsageError(
                f"Expected {name} with two models alone, but got it with {2 + len(options.more)}."
            )
    texts = [options.reference, options.target, *options.more]
    models = [load_model(text) for text in texts]
    first, *others = models
    for other in others:
        check_mergeable(first, other)
    statistics = None if options.repair is None else read_data(options.repair, first)
    train = None if options.train is None else read_data(options.train, first)
    known = train if train is not None else statistics
    inputs, wish = inputs_of(first, options.inputs, known), wish_of(options)
    spec = spec_of(models, inputs, wish.ignore)
    check_heads_apart(options.heads, spec.ignored)
    for other in others:
        check_function(first, other, inputs, spec.ignored)
    say_apart(spec.ignored)
    found, error = aligned_together(models, spec, inputs, train, wish)
    by = "weight matching, each to the mean of the others"
    facts = [
        ("aligned by", by if train is None else "learning permutations and scales together"),
        ("verified change of the functions", f"{error:.0e}"),
    ]
    networks = [model.module for model in models]
    mean, fused = fuse_models(options, models, found)
    facts += fused if options.fusion != "mean" else []
    states, equal = found.apply(networks), [1 / len(networks)] * len(networks)
    merged = mean_network(networks, states, mean, spec, equal, statistics, None)
    if statistics is not None:
        facts.append(("statistics of activations", "restored (REPAIR)"))
    else:
        _warn_of_batch_norm(merged)
    title = f"{', '.join(model.name for model in models)}, merged"
    _write(options, models, merged, states, found[0], title, facts)


def _write(
    options: Options,
    models: Sequence[LoadedModel],
    merged: nn.Module,
    states: Sequence[State],
    alignment: Alignment,
    title: str,
    facts: list[tuple[str, str]],
) -> None:
    """Write the merge with the first head or each."""
    if options.heads == "each":
        write_each_head(models, merged, states, alignment.spec.ignored, options.out, title, facts)
        return
    first = models[0]
    first.module = merged
    parents = [model.text for model in models]
    write_model(first, options.out, title, parents, [*facts, *_kept(alignment, first.name)])


def _kept(alignment: Alignment, name: str) -> list[tuple[str, str]]:
    """Say on a card whose the layers are that were not mixed."""
    ignored = sorted(alignment.spec.ignored)
    return [("not mixed", f"{listed(ignored, most=8)}: those of {name}")] if ignored else []


def _warn_of_batch_norm(merged: nn.Module) -> None:
    if any(isinstance(layer, _BatchNorm) for layer in merged.modules()):
        complain(
            "warning: its batch norm has statistics of the networks it was made of; pass --repair DATA to measure "
            "them anew."
        )


MERGE = Verb(
    "merge",
    "Write the mixture of A and of the others, whose units are first brought into the order of A's.",
    "sinkhorn-rebasin merge ./model_a ./model_b --out ./merged",
    _add_options,
    _run,
    ("reference", "target", "more"),
    ("out",),
)
