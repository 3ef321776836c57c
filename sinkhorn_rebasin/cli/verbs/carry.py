"""``carry TUNED BASE NEW_BASE --out DIR``: write the new base with what the fine-tune learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sinkhorn_rebasin.carrying import Adapter, carry, carry_adapter
from sinkhorn_rebasin.carrying.scale import Scale, scales_of
from sinkhorn_rebasin.cli.carrying import (
    WAYS,
    check_adapter,
    check_alignment_of,
    check_bases,
    check_tuned,
    facts_of_carry,
)
from sinkhorn_rebasin.cli.data import read_data
from sinkhorn_rebasin.cli.failures import UsageError
from sinkhorn_rebasin.cli.models.source import load_model
from sinkhorn_rebasin.cli.output_folder import card, write_model
from sinkhorn_rebasin.cli.pair import inputs_of
from sinkhorn_rebasin.cli.streaming_update import StreamedCarry
from sinkhorn_rebasin.cli.terminal import say
from sinkhorn_rebasin.cli.verb import MODEL_HELP, Options, Verb, add_data, add_inputs, add_output
from sinkhorn_rebasin.files.adapter_folder import write_adapter
from sinkhorn_rebasin.files.atomic import check_free, whole_folder
from sinkhorn_rebasin.files.fingerprint import Fingerprint
from sinkhorn_rebasin.matching import Alignment
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.permutations import PermutationSpec


def _add_options(parser: Any) -> None:
    for name in ("tuned", "base", "new_base"):
        parser.add_argument(name, metavar=name.upper(), nargs="?", type=str, help=MODEL_HELP)
    add_output(parser, "DIR")
    parser.add_argument(
        "--adapter",
        type=str,
        metavar="DIR",
        help="a LoRA of PEFT for BASE, in place of TUNED; a LoRA is written",
    )
    parser.add_argument(
        "--alignment",
        type=str,
        metavar="FILE",
        help="what align NEW_BASE BASE wrote; without it the bases are aligned now",
    )
    parser.add_argument(
        "--scale", type=float, help="of the update; 0.75 without it, and what is best where there are data"
    )
    parser.add_argument("--way", choices=[*WAYS], help="how it is carried; by default what carries most")
    add_data(parser, "--data", "of the new task or of the base's, with or without labels")
    add_inputs(parser)
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")


def scale_of(options: Options) -> Scale:
    """Return the scale that the options ask for.

    Raises:
        SpecError: it is not finite.
    """
    scale: Scale = "auto" if options.scale is None else options.scale
    scales_of(scale, [""], PermutationSpec((), (), {}))
    return scale


def _run(options: Options) -> None:
    check_free(options.out, options.force)
    if options.alignment is not None and options.way not in (None, "weights"):
        raise UsageError(
            f"Expected --alignment with --way weights alone, but got it with {options.way}, which finds its own."
        )
    alignment = None if options.alignment is None else Alignment.load(options.alignment)
    scale = scale_of(options)
    if options.adapter is not None:
        _carry_adapter(alignment, scale, options)
    elif alignment is None or not _streamed(alignment, scale, options):
        _carry_loaded(alignment, scale, options)
    say(f"written to {options.out}")


def _streamed(alignment: Alignment, scale: Scale, options: Options) -> bool:
    """Carry tensor by tensor where nothing has to be run; tell whether that was possible."""
    if options.data is not None:
        return False
    factor = scales_of(scale, [""], alignment.spec)[""]
    streamed = StreamedCarry.of(alignment, options.tuned, options.base, options.new_base, factor)
    if streamed is None:
        return False
    facts = facts_of_carry("weights", f"{factor:g}", streamed.fingerprints(), alignment)
    for note in streamed.write(options.out, _title(Path(options.tuned), Path(options.new_base)), facts):
        say(f"note: {note}")
    return True


def _carry_loaded(alignment: Alignment | None, scale: Scale, options: Options) -> None:
    tuned, base, new_base = (load_model(text) for text in (options.tuned, options.base, options.new_base))
    batches = None if options.data is None else read_data(options.data, base)
    inputs = inputs_of(base, options.inputs, batches)
    check_tuned(tuned, base, inputs)
    check_bases(base, new_base, inputs)
    if alignment is not None:
        check_alignment_of(alignment, base, new_base)
    networks = tuned.module, base.module, new_base.module
    way = None if options.way is None else WAYS[options.way]
    update = carry(
        *networks, alignment, scale, way=way, data=batches, example_inputs=inputs, seed=options.seed
    )
    say(update)
    prints = [Fingerprint.of(tensors_of(network)) for network in networks]
    facts = facts_of_carry(update.way, update.scales, prints, alignment, update.notes)
    facts += [(f"loss at scale {tried:g}", f"{loss:.4g}") for tried, loss in update.judged.items()]
    title = _title(Path(tuned.name), Path(new_base.name))
    new_base.module = update.apply(new_base.module)
    parents = [options.new_base, options.tuned, options.base]
    write_model(new_base, options.out, title, parents, facts, "finetune")


def _carry_adapter(alignment: Alignment | None, scale: Scale, options: Options) -> None:
    if options.way not in (None, "weights"):
        raise UsageError(
            f"Expected --way weights with --adapter, whose factors move by an alignment, but got {options.way}: "
            f"merge the adapter into its base, and carry the merged network."
        )
    adapter = Adapter.load(options.adapter)
    base, new_base = (load_model(text) for text in (options.base, options.new_base))
    check_adapter(adapter, options.adapter, base)
    batches = None if options.data is None else read_data(options.data, base)
    inputs = inputs_of(base, options.inputs, batches)
    check_bases(base, new_base, inputs)
    if alignment is not None:
        check_alignment_of(alignment, base, new_base)
    networks = base.module, new_base.module
    carried = carry_adapter(
        adapter, *networks, alignment, scale, data=batches, example_inputs=inputs, seed=options.seed
    )
    say(carried)
    states = adapter.tensors, *(tensors_of(network) for network in networks)
    prints = [Fingerprint.of(state) for state in states]
    facts = facts_of_carry("weights", carried.scales, prints, alignment, carried.notes, "adapter")
    facts += [(f"loss at scale {tried:g}", f"{loss:.4g}") for tried, loss in carried.judged.items()]
    title = _title(Path(options.adapter), Path(new_base.name))
    load = "from peft import PeftModel; net = PeftModel.from_pretrained(new_base, FOLDER)"
    with whole_folder(options.out) as part:
        write_adapter(part, carried.config, carried.tensors)
        text = card("peft", load, title, [options.new_base], facts, "adapter")
        (part / "README.md").write_text(text, encoding="utf-8")


def _settle(options: Options) -> None:
    """Read BASE and NEW_BASE where an adapter stands for TUNED."""
    if options.adapter is None:
        return
    given = [text for text in (options.tuned, options.base, options.new_base) if text is not None]
    if options.tuned is not None and len(given) == 3:
        raise UsageError(
            "Expected BASE and NEW_BASE alone with --adapter, which stands for TUNED, but got three models."
        )
    options.tuned = options.adapter
    options.base, options.new_base = (*given, None, None)[:2]


def _title(tuned: Path, new_base: Path) -> str:
    return f"{tuned.name}, carried to {new_base.name}"


CARRY = Verb(
    "carry",
    "Write NEW_BASE with what TUNED learned from BASE, whose units are first brought into NEW_BASE's order.",
    "sinkhorn-rebasin carry ./tuned ./base ./new_base --out ./new_tuned",
    _add_options,
    _run,
    ("tuned", "base", "new_base"),
    ("out",),
    _settle,
)
