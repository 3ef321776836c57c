"""Inputs without data: what an update shows of the inputs that it was learned from."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin.carrying.drawn_text import drawn_text, position_axis
from sinkhorn_rebasin.carrying.layer_activations import plain_layers
from sinkhorn_rebasin.carrying.way import CarryProblem
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.networks.batches import read_batch
from sinkhorn_rebasin.networks.copying import evaluation_copy, inputs_like
from sinkhorn_rebasin.networks.drawn_images import drawn_images
from sinkhorn_rebasin.networks.execution import run_at
from sinkhorn_rebasin.networks.layers import first_argument
from sinkhorn_rebasin.networks.randomness import untouched_randomness

SAMPLES = 4096
TEXTS, ROWS = 16, 128
PIXELS = 512 * 32 * 32
SIZE = 0.8
"""Standard deviation of what is drawn, where inputs have one of one."""


def inputs_of_update(problem: CarryProblem, synthetic: float) -> tuple[CarryProblem, tuple[str, ...]]:
    r"""Draw inputs from the rows of the first layer's update.

    .. math:: x \sim \mathcal N(0, C), \qquad C \propto \Delta W_1^\top \Delta W_1

    A gradient of the first layer is a sum of products with inputs, so the rows of its update lie among the inputs of
    the fine-tune's own data. It needs a first layer that is linear in the whole input. Without data, a first
    convolution is shown images: see :func:`drawn_images`. A language model draws text itself: see :func:`drawn_text`.
    Other networks, and data where ``synthetic`` is zero, are returned as they are.

    Args:
        problem: with or without data.
        synthetic: what is drawn is added to given inputs, times this.

    Returns:
        The problem with such inputs, and what to tell of them.
    """
    if problem.batches and not synthetic:
        return problem, ()
    if not problem.batches and position_axis(problem.tuned, problem.example_inputs) is not None:
        text = drawn_text(problem.tuned, problem.example_inputs, problem.seed)
        return _with_drawn(problem, text, TEXTS), (
            "the tuned network drew the text that is looked at, as there are no data",
        )
    filters = None if problem.batches else first_filters(problem)
    if filters is not None:
        like = problem.example_inputs
        samples = max(ROWS, min(PIXELS // like[0, 0].numel(), SAMPLES))
        images = SIZE * drawn_images(problem.update.difference[filters], like, samples, problem.seed)
        return _with_drawn(problem, images, ROWS), (
            "images were drawn in the colours of the first layer's update, as there are no data",
        )
    weight = first_weight(problem)
    if weight is None:
        return problem, ()
    rows = problem.update.difference[weight]
    spread = rows.T @ rows
    values, vectors = torch.linalg.eigh(spread / spread.diagonal().mean())
    root = vectors * values.clamp_min(0).sqrt()
    generator = torch.Generator().manual_seed(problem.seed)

    def drawn(like: Tensor, samples: int) -> Tensor:
        normal = torch.randn(samples, len(root), generator=generator, dtype=root.dtype)
        return (normal.to(root.device) @ root.T).reshape(samples, *like.shape[1:]).to(like)

    if not problem.batches:
        return _with_drawn(problem, SIZE * drawn(problem.example_inputs, SAMPLES), ROWS), (
            "inputs were drawn from the rows of the first layer's update, as there are no data",
        )
    batches = []
    for found in problem.batches:
        inputs, _ = read_batch(found, problem.batch, network=problem.base, labelled=False)
        batches.append((inputs + synthetic * SIZE * drawn(inputs, len(inputs)), None))
    return replace(problem, batches=batches, batch=None), ()


def text_beside(problem: CarryProblem, windows: int) -> tuple[CarryProblem, tuple[str, ...]]:
    """Add text that the tuned network draws.

    Labels of given inputs are left out.

    Args:
        problem: with or without data; of networks that are no language models it is returned as it is.
        windows: how many are drawn.

    Returns:
        The problem with such inputs, an eighth of the drawn ones held out, and what to tell of them.
    """
    if position_axis(problem.tuned, problem.example_inputs) is None:
        return problem, ()
    text = drawn_text(problem.tuned, problem.example_inputs, problem.seed, windows)
    drawn = _with_drawn(problem, text, TEXTS)
    given, held_out = (
        [read_batch(each, problem.batch, network=problem.base, labelled=False)[0] for each in batches]
        for batches in (problem.batches, problem.held_out)
    )
    beside = f", beside {len(given)} batches of data" if given else ""
    note = f"the tuned network drew {windows} windows of the text that is looked at{beside}"
    return replace(drawn, batches=[*given, *drawn.batches], held_out=[*held_out, *drawn.held_out]), (note,)


def _with_drawn(problem: CarryProblem, inputs: Tensor, size: int) -> CarryProblem:
    """Put drawn inputs in the place of data, an eighth of them held out, of which labels are not known."""
    batches: list[Any] = list(inputs.split(size))
    held_out = batches[: len(batches) // 8]
    return replace(problem, batches=batches[len(held_out) :], held_out=held_out, criterion=None, batch=None)


def shows_inputs(problem: CarryProblem) -> bool:
    """Tell whether inputs can be drawn without data."""
    shown = first_weight(problem) is not None or first_filters(problem) is not None
    return shown or position_axis(problem.tuned, problem.example_inputs) is not None


def first_weight(problem: CarryProblem) -> str | None:
    """Name the weight of a first layer that is linear in the whole input; None where there is none.

    The layer's inputs must be the network's, as they are but for their shape.
    """
    inputs = problem.example_inputs
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point() or inputs.ndim < 2:
        return None
    return _first_weight(problem, nn.Linear, inputs.reshape(len(inputs), -1))


def first_filters(problem: CarryProblem) -> str | None:
    """Name the weight of a first convolution.

    It must take the images themselves; None where there is none.

    Its patches must overlap: networks of separate patches, such as vision transformers, are not carried so.
    """
    inputs = problem.example_inputs
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point() or inputs.ndim != 4:
        return None
    weight = _first_weight(problem, nn.Conv2d, inputs)
    if weight is None:
        return None
    layer = plain_layers(problem.base)[weight.rpartition(".")[0]]
    assert isinstance(layer, nn.Conv2d)
    overlap = any(step < size for step, size in zip(layer.stride, layer.kernel_size, strict=True))
    return weight if overlap else None


def _first_weight(problem: CarryProblem, kind: type[nn.Module], wanted: Tensor) -> str | None:
    """Name the weight of a kind's first layer.

    Its inputs must be the ones that are wanted.
    """
    network = evaluation_copy(problem.base)
    state = tensors_of(network)
    seen: list[tuple[str, Tensor]] = []
    with ExitStack() as hooks, torch.no_grad(), untouched_randomness():
        for name, layer in plain_layers(network).items():
            if isinstance(layer, kind):
                hook = _recorder(name, seen)
                hooks.callback(layer.register_forward_pre_hook(hook, with_kwargs=True).remove)
        run_at(network, state, inputs_like(problem.example_inputs))
    if not seen:
        return None
    name, given = seen[0]
    wanted = wanted.to(given.device)
    if given.shape != wanted.shape or not torch.equal(given, wanted):
        return None
    weight = f"{name}.weight" if name else "weight"
    rows = problem.update.difference.get(weight)
    return weight if rows is not None and bool(rows.any()) else None


def _recorder(name: str, seen: list[tuple[str, Tensor]]) -> Any:
    def record(_: nn.Module, arguments: Any, keywords: Any) -> None:
        seen.append((name, first_argument(arguments, keywords).detach().clone()))

    return record
