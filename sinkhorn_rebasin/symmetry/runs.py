"""Run a network under the tape, as often as it takes to see all its parameters at work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import functionalize

from sinkhorn_rebasin._typing import ExampleInputs, State
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.checked_run import LARGEST_ROUNDING, check_repeatable, checked_run
from sinkhorn_rebasin.networks.copying import inputs_like, standalone_copy, training_copy
from sinkhorn_rebasin.networks.counted_outputs import counted
from sinkhorn_rebasin.networks.execution import run_at
from sinkhorn_rebasin.networks.nested_tensors import largest_change, tensors_in
from sinkhorn_rebasin.networks.observed_run import RunFingerprint, TensorReads
from sinkhorn_rebasin.networks.random_inputs import other_inputs
from sinkhorn_rebasin.networks.uncompiled import uncompiled
from sinkhorn_rebasin.networks.undisturbed import plain_operations
from sinkhorn_rebasin.networks.value_reads import ValueReads
from sinkhorn_rebasin.symmetry.labels.experts import Layouts
from sinkhorn_rebasin.symmetry.solving.slot_tables import find_slots
from sinkhorn_rebasin.symmetry.solving.solver import solve
from sinkhorn_rebasin.symmetry.subject import Subject
from sinkhorn_rebasin.symmetry.tracing.tape import Tape
from sinkhorn_rebasin.symmetry.tracing.unread import loose_parameters

# How often a network that chooses by data which parameters it uses is run again to meet the others.
MOST_FURTHER_RUNS = 16
# How many of those look for other ways through a network that uses all of its parameters, and how many are followed.
MOST_OTHER_WAYS, MOST_FOLLOWED_WAYS = 12, 5
# One pass finds the matrices of experts, the next what is added to their outputs, one more which of them were not
# read, and the last follows them all.
MOST_PASSES = 4


def _is_dense(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_quantized


def follow(subject: Subject, given: Sequence[Tensor]) -> Tape:
    """Follow a network's runs under the tape.

    One run in eval mode and, where that leaves parameters unused, one in training mode.

    A network some of whose parameters hold a matrix for each of many experts is followed again, with units of
    their own in each. ``given`` are tensors that another run has read and not made: what was there before.
    """
    layouts: Layouts = {}
    for _ in range(MOST_PASSES):
        tape = _faithful(partial(_tape, subject, layouts, given))
        found = tape.labelling.batched.layouts()
        if not found and not tape.branches:
            # What the network does with matrices that this run has not read it can only do as with the others.
            found = tape.labelling.batched.narrower(tape.labelling.relations, tape.labelling.parameter_labels)
        if not found:
            break
        layouts = {**layouts, **found}
    return tape


def _faithful(followed: Callable[[bool], tuple[Tape, float]]) -> Tape:
    """Follow without writes in place, else as it is.

    Functionalisation fails at gradients inside of the forward, and where the memory of a tensor is asked for: what
    fails without it too is raised. It computes something else where memory is shared past PyTorch.
    """
    try:
        tape, change = followed(True)
    except ArchitectureError:
        return followed(False)[0]
    if change > LARGEST_ROUNDING:
        with suppress(ArchitectureError):
            other, other_change = followed(False)
            return other if other_change <= LARGEST_ROUNDING else tape
    return tape


def _tape(
    subject: Subject, layouts: Layouts, given: Sequence[Tensor], functional: bool
) -> tuple[Tape, float]:
    """Follow all runs on one tape.

    Returns by how much the first run's output was not the network's, too.
    """
    tape = Tape(subject.state, layouts)
    tape.labelling.constants.add_foreign(given)
    followed = _follow(tape, subject, functional)
    outputs = subject.returned.tensors
    with subject.guard:
        check_repeatable(subject.model, outputs, followed, subject.inputs)
    change = largest_change(outputs, followed)
    _follow_other_branches(tape, subject, functional)
    if all(tape.uses(tensor) for tensor in subject.state.values()):
        return tape, change
    trained = replace(subject, model=training_copy(subject.model))
    try:
        with subject.guard:
            checked_run(trained.model, {}, subject.inputs)
        tape.labelling.noise_is_symmetric = True
        _follow(tape, trained, functional)
        tape.trained = True
    except ArchitectureError:
        # It runs in eval mode only: what that does not use stays unused.
        pass
    if tape.branches:
        loose = set(loose_parameters(tape))
        tape.never_used = [
            name
            for name, tensor in subject.state.items()
            if name in loose or not tape.labelling.meets(tensor)
        ]
    return tape, change


def _follow_other_branches(tape: Tape, subject: Subject, functional: bool) -> None:
    """Follow runs that take other branches.

    Experts that no token of the example went to are met by other tokens; every run only adds relations. While
    parameters are unused, more runs are tried.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    ways: set[int] = set()
    for attempt in range(MOST_FURTHER_RUNS):
        unused = {name for name, tensor in subject.state.items() if not tape.uses(tensor)}
        other_ways = tape.branches and attempt < MOST_OTHER_WAYS
        if not tape.labelling.batched.unvisited and not other_ways and not (tape.branches and unused):
            return
        if not ways:
            ways.add(_control_flow(subject)[0])
        further = replace(subject, inputs=other_inputs(subject.inputs, generator, attempt))
        try:
            way, read = _control_flow(further)
            new = other_ways and way not in ways and len(ways) < MOST_FOLLOWED_WAYS
            last = new and len(ways) + 1 == MOST_FOLLOWED_WAYS
            before = _symmetries(tape) if last else frozenset()
            if tape.labelling.batched.unvisited or read & unused or new:
                _follow(tape, further, functional)
                tape.branches_followed += way not in ways
            tape.more_branches_than_followed |= last and _symmetries(tape) != before
        except ArchitectureError:
            continue  # not every input will do
        ways.add(way)
    for labels in tape.labelling.batched.unvisited:
        tape.labelling.fix(labels, "no input tried went to some of the experts")


def _symmetries(tape: Tape) -> frozenset[frozenset[Any]]:
    """Collect what moves together in the runs so far."""
    groups: dict[int, set[Any]] = {}
    for slot in find_slots(solve(tape.labelling.relations), tape.labelling.parameter_labels):
        groups.setdefault(slot.group, set()).add((slot.tensor, slot.axes, slot.layout))
    return frozenset(frozenset(group) for group in groups.values())


def _control_flow(subject: Subject) -> tuple[int, set[str]]:
    """Fingerprint the branches that a run takes.

    The names of the parameters that it reads come with it.
    """
    names = {**dict(subject.model.named_buffers()), **subject.state}
    readers, operations = TensorReads(subject.state), RunFingerprint(names, tensors_in(subject.inputs))
    with subject.guard, readers, operations:
        checked_run(subject.model, subject.state, subject.inputs)
    return operations.fingerprint(), readers.names()


def _follow(tape: Tape, subject: Subject, functional: bool) -> list[Tensor]:
    """Run a network under the tape.

    Returns the tensors of its output.
    """
    # What a network keeps from a run that is followed is no plain tensor, and cannot be copied later.
    model = standalone_copy(subject.model, share_parameters=True)
    state, given = subject.state, inputs_like(subject.inputs)
    saved = model.state_dict(keep_vars=True)
    buffers = {
        n: b for n, b in model.named_buffers(remove_duplicate=False) if n not in state and _is_dense(b)
    }
    tape.begin(model, tensors_in(given), {n: b for n, b in buffers.items() if n in saved})
    persistent = {n for n, _ in model.named_buffers(remove_duplicate=False) if n in state}
    buffers |= {name: state[name] for name in persistent}
    parameters = {name: tensor for name, tensor in state.items() if name not in persistent}

    def forward(parameters: State, buffers: State, given: ExampleInputs) -> list[Tensor]:
        # Copied in here, buffers that the network writes to are followed like any other tensor.
        copies = {id(buffer): buffer.clone() for buffer in buffers.values()}
        buffers = {name: copies[id(buffer)] for name, buffer in buffers.items()}
        return tensors_in(counted(model, run_at(model, {**parameters, **buffers}, given)))

    run = functionalize(forward, remove="mutations") if functional else forward
    try:
        with (
            subject.guard,
            plain_operations(),
            tape,
            ValueReads(tape.note_read, tape.note_made),
            uncompiled(),
        ):
            outputs: list[Tensor] = run(parameters, buffers, given)
    except Exception as error:
        raise ArchitectureError(
            f"Expected a network whose operations can be followed but {type(model).__name__} runs and cannot "
            f"be traced: {type(error).__name__}: {error}"
        ) from error
    tape.fix_outputs(outputs)
    return outputs
