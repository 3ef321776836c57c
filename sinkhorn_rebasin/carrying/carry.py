"""Carrying in one call: the update of a fine-tune in, the same update for another base out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from sinkhorn_rebasin._typing import BatchAdapter, Criterion, ExampleInputs, State
from sinkhorn_rebasin.activations.batch_norm import batch_norm_statistics
from sinkhorn_rebasin.carrying.carried_update import CarriedUpdate
from sinkhorn_rebasin.carrying.choice import default_way
from sinkhorn_rebasin.carrying.preparation import carry_problem
from sinkhorn_rebasin.carrying.scale import Scale, judged_scales, scales_of
from sinkhorn_rebasin.carrying.way import Carried, CarryProblem, Way
from sinkhorn_rebasin.errors import ArchitectureError, listed
from sinkhorn_rebasin.files.fingerprint import Fingerprint
from sinkhorn_rebasin.front.preparation import seeded
from sinkhorn_rebasin.front.result import AlignmentResult
from sinkhorn_rebasin.matching import Alignment
from sinkhorn_rebasin.networks.architecture import named_tensors, tensors_of
from sinkhorn_rebasin.permutations import PermutationSpec


def carry(
    tuned: nn.Module,
    base: nn.Module,
    new_base: nn.Module,
    alignment: Alignment | AlignmentResult | None = None,
    scale: Scale = "auto",
    *,
    way: Way | None = None,
    data: Any = None,
    validation: Any = None,
    criterion: Criterion | None = None,
    batch: BatchAdapter | None = None,
    example_inputs: ExampleInputs = None,
    spec: PermutationSpec | None = None,
    seed: int = 0,
) -> CarriedUpdate:
    r"""Carry what a fine-tune learned to another base.

    .. math:: \theta_{\mathrm{new}} + s\,\bigl(\pi(\theta_{\mathrm{tuned}}) - \pi(\theta_{\mathrm{base}})\bigr)

    with π the alignment of the base with the new base, or what another ``way`` puts in its place. Neither networks
    nor data nor any random state is changed.

    Args:
        tuned, base: a network and what it was tuned from, of one architecture. Heads with other labels are left out.
        new_base: the network to carry to, of the same architecture; widths may differ.
        alignment: that takes ``base`` (as target) to ``new_base`` (as reference). None finds what the way needs.
        scale: s. A number; numbers by a group or a pattern of names; or ``"auto"``: 0.75 without data, 1 where
            the way has fitted it, and with data what is best on held-out batches, 0 among them.
        way: how it is carried. None is :class:`ByWeights` where an alignment is given or there is nothing to look
            at, :class:`Distilled` for language models, and :class:`LayerByLayer` otherwise. :class:`Learned` carries
            more of small networks, and takes longer.
        data: batches of the new task or of the base task, with or without labels; see :func:`align`.
        validation: held-out batches. None keeps a part of ``data`` out.
        criterion: (outputs, labels) to a loss, which decides the scale. None follows the tuned network's outputs.
        batch: a function from a batch to (inputs, labels).
        example_inputs: what the networks take; by default from the first batch.
        spec: the symmetries of the base, instead of discovering them.
        seed: of everything that is drawn.

    Raises:
        ArchitectureError: the tuned network is of another architecture than its base, or the new base is, which is
            told by the first difference; nothing was changed; a parameter is no finite floating point.
        SpecError: a scale is not finite or fits nothing.
        DataError, LossError: data that are needed are missing or not understood.

    Example:
        >>> nets = [nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)) for _ in range(3)]
        >>> update = carry(*nets, scale=0.5, example_inputs=torch.randn(4, 3))
        >>> tuned = update.apply(nets[2])
        >>> sorted(update.norms())
        ['0', '2']

    Source: carrying along an alignment as in TransFusion (Rinaldi et al., 2025); the other ways are this package's.
    """
    with seeded(seed):
        problem, held_out = carry_problem(
            *(tuned, base, new_base, alignment, data, validation, criterion, batch),
            example_inputs=example_inputs,
            spec=spec,
            seed=seed,
        )
        way = way if way is not None else default_way(problem)
        scales_of(scale, problem.update.difference, problem.spec)  # refuses a wrong scale before any work
        with torch.inference_mode(False), torch.no_grad():
            carried = way.carried(problem)
            return _scaled(problem, carried, way, scale, held_out)


def carry_many(updates: Sequence[CarriedUpdate], scales: Sequence[float] | None = None) -> CarriedUpdate:
    r"""Add several updates that were carried to one base.

    .. math:: \theta_{\mathrm{new}} + \sum_i s_i\, \Delta_i

    Args:
        updates: for one new base, each with its own scales.
        scales: what each of them is multiplied by; one by default.

    Raises:
        ArchitectureError: there are none, or they are for several bases, or forms of one base.
        SpecError: a scale is not finite.

    Example:
        >>> nets = [nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)) for _ in range(3)]
        >>> update = carry(*nets, scale=0.5, example_inputs=torch.randn(4, 3))
        >>> twice = carry_many([update, update]).apply(nets[2])
        >>> torch.allclose(twice[0].weight, update.apply(nets[2], 2.0)[0].weight)
        True
    """
    if not updates:
        raise ArchitectureError("Expected at least one carried update but got none.")
    factors = [1.0] * len(updates) if scales is None else list(scales)
    if len(factors) != len(updates):
        raise ArchitectureError(
            f"Expected a scale for each of {len(updates)} updates but got {len(factors)}."
        )
    first = updates[0]
    for other in updates[1:]:
        _check_one_base(first, other)
    total: State = {}
    for update, factor in zip(updates, factors, strict=True):
        factor = scales_of(factor, [""], PermutationSpec((), (), {}))[""]
        for name, tensor in update.state.items():
            total[name] = total.get(name, torch.zeros_like(tensor)) + factor * update.scales[name] * tensor
    notes = tuple(dict.fromkeys(note for update in updates for note in update.notes))
    ways = listed(dict.fromkeys(update.way for update in updates))
    return CarriedUpdate(total, dict.fromkeys(total, 1.0), ways, first.new_base, first.frame, notes=notes)


def _scaled(
    problem: CarryProblem, carried: Carried, way: Way, scale: Scale, held_out: list[Any]
) -> CarriedUpdate:
    """Give the update its scale and its notes."""
    names = [name for name, _ in problem.new_base.named_parameters(remove_duplicate=False)]
    tensors = named_tensors(problem.new_base)
    state = {
        name: torch.zeros_like(tensors[name], dtype=carried.state[name].dtype)
        if name in problem.heads
        else carried.state[name].to(tensors[name].device)
        for name in names
    }
    heads = problem.heads
    notes = (*carried.notes, *([f"heads of other labels stay as they are: {listed(heads)}"] if heads else []))
    update = CarriedUpdate(
        *(state, dict.fromkeys(names, 1.0), way.name, Fingerprint.of(tensors_of(problem.new_base))),
        frame=carried.frame,
        notes=notes,
    )
    update = _with_buffers(problem, update)
    if scale == "auto" and carried.fitted and not held_out:
        scale = 1.0
    if scale != "auto" or not held_out:
        return replace(update, scales=scales_of(scale, names, problem.new_spec))
    tuned = None if heads else problem.tuned
    judged = judged_scales(update, problem.new_base, tuned, held_out, problem.criterion, problem.batch)
    best = min(judged, key=lambda tried: judged[tried])
    if best == 0:
        kept = "no scale does better than the new base on held-out data, which is kept"
        update = replace(update, notes=(*update.notes, kept))
    return replace(update, scales=dict.fromkeys(names, best), judged=judged)


def _with_buffers(problem: CarryProblem, update: CarriedUpdate) -> CarriedUpdate:
    """Measure running statistics anew where there are data, and say what became of buffers."""
    if not problem.update.buffers:
        return update
    floating = [n for n in problem.update.buffers if named_tensors(problem.base)[n].is_floating_point()]
    if not floating:
        return update
    if problem.batches:
        applied = update.apply(problem.new_base)
        measured = batch_norm_statistics(applied, tensors_of(applied), problem.batches, batch=problem.batch)
        before = tensors_of(applied)
        buffers = {name: tensor for name, tensor in measured.items() if not torch.equal(tensor, before[name])}
        if buffers:
            note = f"running statistics were measured anew on the data: {listed(buffers)}"
            return replace(update, buffers=buffers, notes=(*update.notes, note))
    note = f"buffers that the fine-tune changed are kept as the new base has them: {listed(floating)}"
    return replace(update, notes=(*update.notes, note))


def _check_one_base(first: CarriedUpdate, other: CarriedUpdate) -> None:
    if first.new_base.contents != other.new_base.contents:
        raise ArchitectureError("Expected updates that were carried to one new base but got two bases.")
    same = first.frame.keys() == other.frame.keys()
    if not same or any(not torch.equal(first.frame[n], other.frame[n]) for n in first.frame):
        raise ArchitectureError(
            "Expected updates for one form of the new base but one is for its canonical form: carry all of them by "
            "the same alignment."
        )
