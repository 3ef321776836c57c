"""Find the permutation symmetries of any network by running it once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn

from sinkhorn_rebasin._typing import ExampleInputs, Outputs
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.architecture import sharing_memory
from sinkhorn_rebasin.networks.checked_run import runnable_copy
from sinkhorn_rebasin.networks.observed_run import GivenTensors
from sinkhorn_rebasin.networks.remembered import remembered_sources
from sinkhorn_rebasin.networks.support import check_supported
from sinkhorn_rebasin.networks.undisturbed import collection_paused, undisturbed
from sinkhorn_rebasin.networks.value_reads import ValueReads
from sinkhorn_rebasin.networks.write_protection import WriteProtection
from sinkhorn_rebasin.permutations.ignoring import patterns_in
from sinkhorn_rebasin.permutations.spec import PermutationSpec
from sinkhorn_rebasin.permutations.validity import Validity
from sinkhorn_rebasin.symmetry.proof import (
    check_coverage,
    described_inputs,
    proven,
    warn_of_frozen_attention,
    warn_of_what_was_not_followed,
)
from sinkhorn_rebasin.symmetry.runs import follow
from sinkhorn_rebasin.symmetry.solving.preservation import preserving_slots
from sinkhorn_rebasin.symmetry.solving.slot_tables import find_slots
from sinkhorn_rebasin.symmetry.solving.solver import solve
from sinkhorn_rebasin.symmetry.spec_building import assembled
from sinkhorn_rebasin.symmetry.state_buffers import state_buffers
from sinkhorn_rebasin.symmetry.subject import Subject, detached
from sinkhorn_rebasin.symmetry.tracing.tape import Tape
from sinkhorn_rebasin.symmetry.tracing.unread import fix_unread, fix_unseen


def discover_symmetry(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    outputs: Outputs = None,
    min_coverage: float = 0.0,
    ignore: Sequence[str] = (),
) -> PermutationSpec:
    r"""Discover the permutation symmetries of any network.

    The result names the axes of parameters and buffers that must be permuted together so that the function stays.

    A copy of the network is run in eval mode on the example inputs, and every ATen operation is interpreted on
    labels that say, position by position, which hidden unit a value belongs to. What is not understood is frozen
    and named in ``spec.frozen``. The claim can be checked with :func:`verify_symmetry`. A projection to queries, keys
    or values of attention that is frozen is told by a :class:`RebasinWarning`.

    Parameters that eval mode does not use (auxiliary heads) read hidden units all the same: if there are any, a run
    in training mode is followed too, where the network has one, and the symmetries are those of both runs. There
    dropout and norm layers stay in eval mode, and random numbers tell no two places apart. A branch that cannot
    be followed freezes the units it reads.

    Of a network that reads values, by which it may choose what it does, several runs are followed, so that experts
    and other ways are reached. What is found is verified then as :func:`verify_symmetry` does, and groups that fail
    are dropped. A :class:`RebasinWarning` names them, names the parameters that no run used, and tells where there
    were too many ways or where something is computed that cannot be followed. ``spec.validity`` says for which inputs
    the symmetries were found.

    What the network returns must stay the same, all of it or the ``outputs`` that count: units that show in no other
    output are free. Of an output of the transformers library its logits count by default (of CLIP, both
    similarities), and what is predicted beside them (boxes), not hidden states, attention maps, embeddings and
    auxiliary losses; nor the loss, which logits and labels determine. It counts whole where it has no logits, as
    plain dicts, tuples and dataclasses do. Caches of keys and values never count. ``spec.validity`` remembers what
    counts, and ``print(spec)`` tells what is not kept.

    Args:
        model: any module that can be copied; it is not changed, nor is its mode or the random state. Forward hooks
            run on the copies.
        example_inputs: a tensor, a tuple of positional or a dict of keyword arguments.
        outputs: what counts of what the network returns: the name of an output, a sequence of names, or a function
            from what is returned to the tensors that count, made of nothing else.
        ignore: layers that each network of the architecture keeps for itself, such as a head of other classes, by
            name or pattern: see :meth:`PermutationSpec.ignoring`.
        min_coverage: the least share of the parameter elements that could move, which may be permuted. Input and
            output axes and tensors that are not used are left out of it. Under 0.9 there is a
            :class:`RebasinWarning`, with what holds most of the rest fast.

    Raises:
        ArchitectureError: when the model has no parameters, does not run on the inputs, returns no tensor or
            something else in every run, or cannot be copied; and for wrappers (DataParallel, torch.compile),
            scripts, layers that are not built yet, and ``outputs`` that do not exist.
        SpecError: when ``ignore`` names no layer.
        SymmetryError: when less than ``min_coverage`` can be permuted.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10))
        >>> spec = discover_symmetry(net, torch.randn(2, 1, 8, 8))
        >>> [(slot.tensor, slot.axes, slot.layout.width) for slot in spec.slots_of("0")]
        [('0.weight', (0,), 1), ('0.bias', (0,), 1), ('3.weight', (1,), 36)]
    """
    with collection_paused():
        with torch.inference_mode(False), torch.no_grad(), undisturbed():
            subject, tape = _followed(model, example_inputs, outputs)
            _fix_shared_memory(tape, model)
        spec = _solved(subject, tape, described_inputs(model, example_inputs))
    warn_of_what_was_not_followed(model, tape)
    spec = spec.counting(outputs)
    spec = spec.ignoring(*patterns_in(ignore)) if ignore else spec
    spec = proven(model, spec, example_inputs) if tape.wants_proof else spec
    check_coverage(model, spec, min_coverage)
    warn_of_frozen_attention(model, spec, tape)
    return spec


def _solved(subject: Subject, tape: Tape, inputs: tuple[str, ...]) -> PermutationSpec:
    """Solve the relations of all runs for a spec."""
    relations, labels = tape.labelling.relations, tape.labelling.parameter_labels
    solution = solve(relations)
    slots = preserving_slots(relations, solution, labels, find_slots(solution, labels))
    # Units of statistics alone, or of tensors without elements, are nothing to align.
    state, buffers = subject.state, subject.buffers
    worth = {slot.group for slot in slots if slot.tensor not in buffers and state[slot.tensor].numel() > 0}
    validity = Validity(
        inputs,
        tape.trained,
        tape.branches,
        tape.branches_followed,
        None,
        tuple(tape.never_used),
        subject.returned.names,
        subject.returned.left_out,
    )
    kept = [slot for slot in slots if slot.group in worth]
    return assembled(state, buffers, tape, solution, kept, validity)


def _followed(model: nn.Module, example_inputs: ExampleInputs, outputs: Outputs) -> tuple[Subject, Tape]:
    """Follow the runs of a copy of the network.

    The runs are those of a copy with the network's own parameters, as large ones do not fit in memory often; unless
    it writes to them, or does not run that way.
    """
    check_supported(model)
    protection = WriteProtection(model.parameters())
    try:
        followed = _run_and_follow(model, example_inputs, outputs, protection)
        if not protection.violated:
            return followed
    except ArchitectureError:
        pass
    return _run_and_follow(model, example_inputs, outputs, None)


def _run_and_follow(
    model: nn.Module, example_inputs: ExampleInputs, outputs: Outputs, protection: WriteProtection | None
) -> tuple[Subject, Tape]:
    """Follow runs that are refused writes to parameters.

    The copy has parameters of its own where there is no protection.
    """
    watch, guard, shared = GivenTensors(), protection or nullcontext(), protection is not None
    try:
        watching = partial(_watching, guard, watch)
        model, inputs, returned = runnable_copy(model, example_inputs, watching, shared, outputs)
    except ArchitectureError:
        # Some networks do not run where their tensors are remembered, as those that swap them.
        model, inputs, returned = runnable_copy(model, example_inputs, lambda: guard, shared, outputs)
    buffers = state_buffers(model)
    state = detached({**dict(model.named_parameters(remove_duplicate=False)), **buffers})
    subject = Subject(model, inputs, returned, state, frozenset(buffers), guard)
    tape = follow(subject, [*watch.tensors, *watch.kept()])
    fix_unread(tape)
    fix_unseen(tape)
    if returned.keeps:
        with guard:
            sources = remembered_sources(model, inputs)
        _fix_remembered(tape, sources)
    return subject, tape


@contextmanager
def _watching(guard: AbstractContextManager[Any], watch: GivenTensors) -> Iterator[None]:
    with guard, watch, ValueReads(watch.note_read, lambda tensor: None):
        yield


def _fix_remembered(tape: Tape, names: Iterable[str]) -> None:
    tape.labelling.relations.origin = None
    for name in set(names) & set(tape.labelling.parameter_labels):
        tape.labelling.fix(
            tape.labelling.parameter_labels[name], "the network remembers what it made of it in its first run"
        )


def _fix_shared_memory(tape: Tape, model: nn.Module) -> None:
    """Fix parameters that overlap in memory.

    They cannot move apart from each other.
    """
    for name, other in sharing_memory(dict(model.named_parameters())):
        for one, twin in ((name, other), (other, name)):
            if one in tape.labelling.parameter_labels:
                tape.labelling.relations.origin = None
                tape.labelling.fix(tape.labelling.parameter_labels[one], f"shares its memory with {twin!r}")
