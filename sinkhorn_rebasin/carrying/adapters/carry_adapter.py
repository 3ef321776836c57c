"""An adapter for one base in, the same adapter for another base out."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from typing import Any

import torch
from torch import nn

from sinkhorn_rebasin._typing import BatchAdapter, Criterion, ExampleInputs, State
from sinkhorn_rebasin.carrying.adapters.adapter import Adapter, merged
from sinkhorn_rebasin.carrying.adapters.bases import check_made_for, heads_among, name_of
from sinkhorn_rebasin.carrying.adapters.kinds import check_kind
from sinkhorn_rebasin.carrying.adapters.moving import moved_factors, moved_tensors, with_gains
from sinkhorn_rebasin.carrying.adapters.parts import Factors, parts_of
from sinkhorn_rebasin.carrying.along_alignment import canonical_form
from sinkhorn_rebasin.carrying.by_weights import matched_bases
from sinkhorn_rebasin.carrying.preparation import carry_problem, check_heads
from sinkhorn_rebasin.carrying.scale import TRIED, Scale, loss_of, scales_of
from sinkhorn_rebasin.carrying.way import CarryProblem
from sinkhorn_rebasin.errors import ArchitectureError, listed
from sinkhorn_rebasin.front.preparation import seeded
from sinkhorn_rebasin.front.result import AlignmentResult
from sinkhorn_rebasin.matching import Alignment
from sinkhorn_rebasin.matching.coordinates import Coordinates
from sinkhorn_rebasin.matching.rotations.canonical_form import check_canonical
from sinkhorn_rebasin.networks.architecture import named_tensors, tensors_of


def carry_adapter(
    adapter: Adapter | str | PathLike[str],
    base: nn.Module,
    new_base: nn.Module,
    alignment: Alignment | AlignmentResult | None = None,
    scale: Scale = "auto",
    *,
    data: Any = None,
    validation: Any = None,
    criterion: Criterion | None = None,
    batch: BatchAdapter | None = None,
    example_inputs: ExampleInputs = None,
    seed: int = 0,
) -> Adapter:
    r"""Carry a LoRA to another base, factors as factors.

    .. math:: \Delta W' = s\,(P B)\,(A N) \qquad \text{where weights move by } W' = P\,W\,N

    The rank stays, and the product is that of :func:`carry` for the merged network, by the same alignment. Biases,
    embeddings and modules that PEFT saves whole are carried as differences, and DoRA's magnitudes as what they
    multiply outputs by. Neither networks nor the adapter are changed, and PEFT is not needed.

    Args:
        adapter: a folder of PEFT, or what :meth:`Adapter.load` read.
        base: the network that the adapter was made for.
        new_base: the network to carry to, of the same architecture and widths.
        alignment: that takes ``base`` (as target) to ``new_base`` (as reference), of the networks as they are. None
            finds permutations and signs by the bases' weights.
        scale: s, as for :func:`carry`. ``"auto"`` is 0.75 without data, and what is best on held-out batches with.
        data, validation, criterion, batch: as for :func:`carry`; they decide the scale alone.
        example_inputs: what the networks take; by default from the first batch.
        seed: of everything that is drawn.

    Returns:
        An adapter for the new base; :meth:`Adapter.save` writes a folder of PEFT.

    Raises:
        ArchitectureError: the adapter is of another kind, or was made for another base; one of its targets has no
            counterpart; the bases differ, or the alignment is of others; it adds nothing. Each is named.
        SpecError: a scale is not finite, or an axis of a factor does not move by itself.
        CheckpointError: the folder is missing a file, or one is damaged.

    Example:
        >>> base, new_base = (nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)) for _ in range(2))
        >>> tensors = {"2.lora_A.weight": torch.randn(4, 8), "2.lora_B.weight": torch.randn(2, 4)}
        >>> adapter = Adapter({"peft_type": "LORA", "lora_alpha": 8}, tensors)
        >>> carry_adapter(adapter, base, new_base, example_inputs=torch.randn(4, 3)).tensors["2.lora_A.weight"].shape
        torch.Size([4, 8])

    Source: this package.
    """
    given = adapter if isinstance(adapter, Adapter) else Adapter.load(adapter)
    check_kind(given.config)
    check_made_for(given.config, base)
    with seeded(seed), torch.inference_mode(False), torch.no_grad():
        heads = heads_among(parts_of(given.config, given.tensors, base)[1], base, new_base)
        kept = _without(given, heads)
        problem, held_out = carry_problem(
            *(merged(kept, base, untie=False), base, new_base, alignment, data, validation, criterion, batch),
            example_inputs=example_inputs,
            spec=None,
            seed=seed,
        )
        check_heads(heads, problem.spec)
        coordinates = Coordinates.of(_alignment_of(problem))
        factors, replaced = parts_of(kept.config, kept.tensors, base)
        names = [*(pair.weight for pair in factors), *replaced]
        parts_of(kept.config, kept.tensors, new_base, "new base")

        def carried(scales: dict[str, float]) -> Adapter:
            return _carried(kept, factors, replaced, problem, coordinates, scales)

        notes: tuple[str, ...] = (
            (f"heads of other labels stay as they are: {listed(heads)}",) if heads else ()
        )
        if scale != "auto" or not held_out:
            return replace(carried(scales_of(scale, names, problem.spec)), notes=notes)
        teacher = None if heads else given.apply(base)
        judged = {
            tried: loss_of(
                carried(dict.fromkeys(names, tried)).apply(new_base), teacher, held_out, criterion, batch
            )
            for tried in TRIED
        }
        best = min(judged, key=lambda tried: judged[tried])
        if best == 0:
            notes += ("no scale does better than the new base on held-out data, which is kept",)
        return replace(carried(dict.fromkeys(names, best)), judged=judged, notes=notes)


def _alignment_of(problem: CarryProblem) -> Alignment:
    """Return the alignment that was given, or one of permutations and signs."""
    if not problem.same_widths:
        raise ArchitectureError(
            "Expected bases of one width everywhere, since the factors of an adapter keep their sizes, but they "
            "differ: merge the adapter into its base, and carry the merged network as a fine-tune."
        )
    if problem.alignment is None:
        return matched_bases(problem, "permutation")[0]
    alignment = problem.alignment
    _check_form(problem, alignment)
    if alignment.receipt is not None:
        alignment.receipt.check_target(tensors_of(problem.base))
        alignment.receipt.check_reference(tensors_of(problem.new_base))
    return alignment


def _check_form(problem: CarryProblem, alignment: Alignment) -> None:
    """Raise ArchitectureError unless bases are canonical.

    Maps act on canonical forms; a tensor that differs is named.
    """
    if alignment.continuous is None:
        return
    for network, whose in ((problem.base, "base"), (problem.new_base, "new base")):
        try:
            state = tensors_of(network)
            check_canonical(state, alignment.continuous, whose)
            form = tensors_of(canonical_form(network, alignment, problem)) if problem.canonical else {}
        except ArchitectureError as error:
            raise ArchitectureError(_other_form(str(error).split(": canonicalize")[0])) from error
        moved = [name for name, tensor in form.items() if not torch.allclose(tensor, state[name], atol=1e-5)]
        if moved:
            raise ArchitectureError(_other_form(f"{moved[0]!r} of the {whose} is another one there."))


def _other_form(reason: str) -> str:
    return (
        f"Expected an alignment of the networks as they are, on which an adapter is put, but got one whose maps act "
        f"on their canonical forms. {reason.rstrip('.')}. An adapter's factors cannot hold what that form moves into "
        f"biases. Carry the merged network, carry(adapter.apply(base), base, new_base, alignment); or align by "
        f"permutations, symmetry='permutation'; or train the adapter on canonicalize(base), which computes the same."
    )


def _without(adapter: Adapter, heads: tuple[str, ...]) -> Adapter:
    """Leave saved heads out of an adapter, and out of the modules that its config says are saved."""
    if not heads:
        return adapter
    left = {name.rpartition(".")[0] for name in heads}
    modules = adapter.config.get("modules_to_save") or []
    kept = [each for each in modules if not any(f".{path}".endswith(f".{each}") for path in left)]
    tensors = {key: t for key, t in adapter.tensors.items() if key.replace(".base_layer.", ".") not in heads}
    return replace(adapter, config={**adapter.config, "modules_to_save": kept or None}, tensors=tensors)


def _carried(
    adapter: Adapter,
    factors: list[Factors],
    replaced: State,
    problem: CarryProblem,
    coordinates: Coordinates,
    scales: dict[str, float],
) -> Adapter:
    base, new_base = named_tensors(problem.base), named_tensors(problem.new_base)
    tensors = moved_tensors(replaced, problem.base, problem.new_base, coordinates, scales)
    names = {key.replace(".base_layer.", "."): key for key in adapter.tensors}
    state: State = {names[name]: tensor for name, tensor in tensors.items()}
    for pair in factors:
        gained = with_gains(pair, replaced.get(pair.weight, base[pair.weight]))
        new_weight = tensors.get(pair.weight, new_base[pair.weight])
        state |= moved_factors(gained, coordinates, new_weight, scales[pair.weight])
    for key, tensor in adapter.tensors.items():
        state[key] = state[key].reshape(tensor.shape).to(tensor)
    config = {
        **adapter.config,
        "base_model_name_or_path": name_of(problem.new_base) or None,
        "revision": None,
    }
    return Adapter(config, {key: state[key] for key in adapter.tensors}, scales)
