"""Find the permutation symmetries of any network by running it once."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functionalize
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._pytree import tree_leaves

from sinkhorn_rebasin._typing import ExampleInputs, State
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.execution import evaluation_copy, run_at, untouched_randomness
from sinkhorn_rebasin.permutations.spec import Frozen, Group, PermutationSpec, Slot
from sinkhorn_rebasin.symmetry.extraction import FoundSlot, find_slots
from sinkhorn_rebasin.symmetry.provenance import frozen_axes
from sinkhorn_rebasin.symmetry.random_inputs import random_inputs
from sinkhorn_rebasin.symmetry.solution import Solution, solve
from sinkhorn_rebasin.symmetry.trace import Tape

# How often a network that chooses by data which parameters it uses is run again to meet the others.
MOST_FURTHER_RUNS = 8


def discover_symmetry(model: nn.Module, example_inputs: ExampleInputs) -> PermutationSpec:
    """Which axes of which parameters and buffers must be permuted together so that the function stays the same.

    The network is run once, in eval mode, on the example inputs; every ATen operation is interpreted on labels
    that say, position by position, which hidden unit a value belongs to. What is not understood is frozen and
    named in ``spec.frozen``. The claim can be checked with :func:`verify_symmetry`.

    Args:
        model: any module; it is not changed, nor is its mode or the random state.
        example_inputs: a tensor, a tuple of positional or a dict of keyword arguments.

    Raises:
        ArchitectureError: when the model has no parameters, does not run on the inputs or returns no tensor.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10))
        >>> spec = discover_symmetry(net, torch.randn(2, 1, 8, 8))
        >>> [(slot.tensor, slot.axes, slot.layout.width) for slot in spec.slots_of("0")]
        [('0.weight', (0,), 1), ('0.bias', (0,), 1), ('3.weight', (1,), 36)]
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    if not parameters:
        raise ArchitectureError("Expected a network with parameters but got one without any.")
    model = evaluation_copy(model)
    buffers = _moving_buffers(model, example_inputs)
    named: State = {**parameters, **buffers}
    tape = _trace(model, named, example_inputs)
    solution = solve(tape.relations)
    slots = find_slots(solution, tape.parameter_labels)
    return _spec(named, frozenset(buffers), tape, solution, slots)


@contextmanager
def _plain_operations() -> Iterator[None]:
    """Fused kernels switched off, so that networks dispatch the operations there are rules for."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings():
            # Setting oneDNN's flags warns of accelerators that are not there.
            warnings.simplefilter("ignore", UserWarning)
            with torch.backends.mkldnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH):
                yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


def _moving_buffers(model: nn.Module, example_inputs: ExampleInputs) -> State:
    """Float buffers that a training-mode run changes: they are state, and move with their group."""
    buffers = {n: b for n, b in model.named_buffers() if b.is_floating_point() and b.dim() > 0}
    if not buffers:
        return {}
    trained = copy.deepcopy(model, memo={id(p): p for p in model.parameters()}).train()
    try:
        with torch.no_grad(), untouched_randomness():
            _run_checked(trained, {}, example_inputs)
    except ArchitectureError:
        # Some networks run in eval mode only, for example batch norm on a single example.
        norms = [(name, child) for name, child in model.named_modules() if isinstance(child, _NormBase)]
        names = {f"{name}.{key}".lstrip(".") for name, child in norms for key, _ in child.named_buffers()}
        return {name: buffer for name, buffer in buffers.items() if name in names}
    after = dict(trained.named_buffers())
    return {name: buffer for name, buffer in buffers.items() if not torch.equal(after[name], buffer)}


def _run_checked(model: nn.Module, state: Mapping[str, Tensor], example_inputs: ExampleInputs) -> Any:
    try:
        outputs = run_at(model, state, example_inputs)
    except ArchitectureError:
        raise
    except Exception as error:
        shapes = [tuple(leaf.shape) for leaf in tree_leaves(example_inputs) if isinstance(leaf, Tensor)]
        raise ArchitectureError(
            f"Expected example inputs that {type(model).__name__} runs on but got tensors of shape {shapes}, "
            f"on which it raised {type(error).__name__}: {error}"
        ) from error
    if not any(isinstance(leaf, Tensor) for leaf in tree_leaves(outputs)):
        raise ArchitectureError(
            f"Expected {type(model).__name__} to return at least one tensor but got {type(outputs).__name__}."
        )
    return outputs


def _trace(model: nn.Module, named: State, example_inputs: ExampleInputs) -> Tape:
    inputs = [leaf for leaf in tree_leaves(example_inputs) if isinstance(leaf, Tensor)]
    state = {name: tensor.detach() for name, tensor in named.items()}
    aliases = {id(tensor): state[name] for name, tensor in reversed(named.items())}
    tied = {name: aliases[id(tensor)] for name, tensor in named.items()}
    with torch.no_grad(), untouched_randomness(), _plain_operations():
        _run_checked(model, state, example_inputs)
        tape = Tape(tied, inputs)
        try:
            _record(tape, model, tied, example_inputs)
            _record_what_data_chose(tape, model, tied, example_inputs)
        except Exception as error:
            raise ArchitectureError(
                f"Expected a network whose operations can be followed but {type(model).__name__} runs and cannot "
                f"be traced: {type(error).__name__}: {error}"
            ) from error
    return tape


def _record(tape: Tape, model: nn.Module, tensors: State, inputs: ExampleInputs) -> None:
    run = functionalize(lambda state, given: run_at(model, state, given), remove="mutations")
    with tape:
        outputs = run(tensors, inputs)
    tape.fix_outputs(outputs)


def _record_what_data_chose(
    tape: Tape, model: nn.Module, tensors: State, example_inputs: ExampleInputs
) -> None:
    """Further runs of a network that branches on data, as long as there are parameters it has not used.

    Experts that no token of the example went to are met by other tokens; every run only adds relations.
    """
    generator = torch.Generator().manual_seed(0)
    for _ in range(MOST_FURTHER_RUNS):
        if not (tape.branches and tape.unused):
            return
        inputs = random_inputs(example_inputs, generator, dtype=None)
        tape.watch([leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)])
        _record(tape, model, tensors, inputs)


def _spec(
    named: State, buffers: frozenset[str], tape: Tape, solution: Solution, found: list[FoundSlot]
) -> PermutationSpec:
    aliases: dict[int, list[str]] = {}
    for name, tensor in named.items():
        aliases.setdefault(id(tensor), []).append(name)
    names = _group_names(named, found)
    groups = tuple(
        Group(names[i], group.size, group.blocks, _valid_parent(solution, names, group.parent))
        for i, group in enumerate(solution.groups)
        if i in names
    )
    order = {name: place for place, name in enumerate(named)}
    slots = [
        Slot(names[slot.group], alias, slot.axes, slot.layout)
        for slot in found
        for alias in aliases[id(named[slot.tensor])]
    ]
    slots.sort(key=lambda slot: (order[slot.tensor], slot.axes))
    shapes = {name: tuple(tensor.shape) for name, tensor in named.items()}
    frozen: tuple[Frozen, ...] = frozen_axes(named, tape, solution, slots)
    return PermutationSpec(groups, tuple(slots), shapes, frozen, buffers)


def _valid_parent(solution: Solution, names: Mapping[int, str], parent: int) -> str | None:
    while parent >= 0 and parent not in names:
        parent = solution.groups[parent].parent
    return names.get(parent)


def _group_names(named: State, found: list[FoundSlot]) -> dict[int, str]:
    """Each group is called after the module that holds the first tensor it shows up in."""
    order = {name: place for place, name in enumerate(named)}
    first: dict[int, str] = {}
    for slot in sorted(found, key=lambda slot: (order[slot.tensor], slot.axes)):
        first.setdefault(slot.group, slot.tensor)
    names: dict[int, str] = {}
    for group, tensor in sorted(first.items()):
        path = tensor.rpartition(".")[0] or tensor
        # Groups name parameters in a ParameterDict, which allows no dots.
        base = name = path.replace(".", "/")
        count = 1
        while name in names.values() or hasattr(nn.ParameterDict, name):
            count += 1
            name = f"{base}#{count}"
        names[group] = name
    return names
