"""Weights handed to a run whose layers may run again in the backward pass, and the gradients those runs leave."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node

from sinkhorn_rebasin.errors import ArchitectureError


class Handover:
    """Hand tensors over between two graphs.

    One graph is that they come from, the other that of the run. Reentrant checkpoints and reversible layers run
    layers again in the backward pass and call ``backward`` there. That must not go on into the graph that the weights
    come from, which would be gone after the first of them. They are given leaves, whose gradients join the others
    here, once all of the run's graph has been passed.

    >>> weight = torch.tensor([2.0], requires_grad=True)
    >>> handover = Handover([3 * weight])
    >>> (handover.given[0] * 5).backward()
    >>> weight.grad
    tensor([15.])
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._leaves: dict[int, Tensor] = {}
        given: tuple[Tensor, ...] = _Handover.apply(self._leaves, *tensors)
        self.given = given
        self._node = given[0].grad_fn

    def is_run_again(self, outputs: Iterable[Tensor]) -> bool:
        """Tell whether functions may call ``backward``.

        They lie between these outputs and the start.
        """
        roots = (tensor.grad_fn for tensor in outputs)
        return any(isinstance(node, BackwardCFunction) for node in _nodes(roots, end=self._node))

    def leaf(self, tensor: Tensor) -> Tensor:
        """Return the stand-in for a given tensor.

        It is for layers that run again. Other tensors stand for themselves.
        """
        for place, given in enumerate(self.given):
            if given is tensor:
                if place not in self._leaves:
                    self._leaves[place] = tensor.detach().requires_grad_()
                return self._leaves[place]
        return tensor


class _Handover(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, leaves: dict[int, Tensor], *tensors: Tensor) -> tuple[Tensor, ...]:
        """Hand the tensors over unchanged."""
        ctx.leaves = leaves
        ctx.set_materialize_grads(False)
        return tuple(tensor.detach() for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        """Hand the gradients back."""
        if ctx.leaves and torch.is_grad_enabled():
            raise ArchitectureError(
                "Expected layers that run once, to differentiate their gradient again, but the network runs them "
                "again in the backward pass: switch reentrant checkpoints off, or pass use_reentrant=False to them."
            )
        found = list(gradients)
        for place, leaf in ctx.leaves.items():
            if leaf.grad is not None:
                own = found[place]
                found[place] = leaf.grad if own is None else own + leaf.grad
                leaf.grad = None
        return (None, *found)


def gradients_of(
    loss: Tensor, tensors: Sequence[Tensor], *, retain_graph: bool = False
) -> list[Tensor | None]:
    """Compute a loss's gradients in some tensors.

    None where the loss does not depend on one.

    Raises:
        ArchitectureError: when reentrant checkpoints lie on the way, which allow no such gradients.

    >>> x = torch.tensor(3.0, requires_grad=True)
    >>> gradients_of(x.square(), [x])
    [tensor(6.)]
    """
    try:
        return list(torch.autograd.grad(loss, tensors, retain_graph=retain_graph, allow_unused=True))
    except RuntimeError as error:
        if "use_reentrant" not in str(error):
            raise
        raise ArchitectureError(
            "Expected layers that can be differentiated in chosen tensors but the network runs some of them again "
            "in the backward pass by torch.utils.checkpoint with use_reentrant=True: pass use_reentrant=False, or "
            "switch checkpoints off for this call."
        ) from error


def check_not_reentrant(loss: Tensor) -> None:
    """Raise ArchitectureError for reentrant checkpoints.

    They hide what lies inside of them from a loss.

    >>> check_not_reentrant(torch.ones(1, requires_grad=True).sum())
    """
    if any(node.name() == "CheckpointFunctionBackward" for node in _nodes([loss.grad_fn])):
        raise ArchitectureError(
            "Expected layers that run once but the network runs some of them again in the backward pass by "
            "torch.utils.checkpoint with use_reentrant=True, where their outputs have no gradient: pass "
            "use_reentrant=False, or switch checkpoints off for this call."
        )


def _nodes(roots: Iterable[Node | None], end: Node | None = None) -> Iterator[Node]:
    """Walk a graph from its roots.

    It goes as far as ``end``, which is left out.
    """
    waiting, seen = list(roots), {end}
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            waiting.extend(following for following, _ in node.next_functions)
