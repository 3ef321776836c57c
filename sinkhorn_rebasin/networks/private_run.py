"""A run on modules of its own, for networks that keep hold of their layers or of their weights."""

from __future__ import annotations

from typing import Any
from weakref import ref

from torch import Tensor, nn

from sinkhorn_rebasin._typing import StateLike
from sinkhorn_rebasin.networks.copying import copied
from sinkhorn_rebasin.networks.handover import Handover
from sinkhorn_rebasin.networks.modes import hold_modes_weakly
from sinkhorn_rebasin.networks.shared_memory import views_at
from sinkhorn_rebasin.networks.structures import flattened, tensors_in

_OWN = __name__.split(".")[0]
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def private_run(
    module: nn.Module,
    weights: StateLike,
    arguments: tuple[Any, ...],
    keywords: dict[str, Any],
    *,
    graded: bool,
) -> tuple[Any, bool]:
    """Run a copy that holds the weights.

    It holds them for good. Returns its output and whether the copy lives on.

    Wherever the network keeps its weights (lists, closures, views), the copy has those it is given. What runs its
    layers again in the backward pass finds the copy as it was in the forward. Where the run is ``graded``, the
    gradients of all such runs reach the weights. The copy lives on when something holds it: usually the graph.
    """
    handover = None
    if graded and any(tensor.requires_grad for tensor in weights.values()):
        handover, weights, arguments, keywords = _handed_over(weights, arguments, keywords)
    twin = private_copy(module, weights)
    hold_modes_weakly(twin)
    outputs = twin(*arguments, **keywords)
    _keep_new_buffers(module, twin, weights)
    twins = [ref(child) for child in twin.modules()]
    del twin
    alive = [child for child in (reference() for reference in twins) if child is not None]
    if handover is not None and alive and handover.is_run_again(tensors_in(outputs)):
        for child in alive:
            held: Any
            for held in (child._parameters, child._buffers):
                held.update({name: handover.leaf(t) for name, t in held.items() if t is not None})
    return outputs, bool(alive)


def private_copy(module: nn.Module, weights: StateLike) -> nn.Module:
    """Copy a network with other tensors.

    Where none is given, it has the network's own.

    Hooks of this package stay outside of it: they are called with the original's layers.

    >>> import torch
    >>> layer = nn.Linear(2, 2)
    >>> twin = private_copy(layer, {"weight": torch.ones(2, 2)})
    >>> twin.weight.tolist(), twin.bias is layer.bias
    ([[1.0, 1.0], [1.0, 1.0]], True)
    """
    given, own = {}, {}
    for named in (
        module.named_parameters(remove_duplicate=False),
        module.named_buffers(remove_duplicate=False),
    ):
        for name, tensor in named:
            own[id(tensor)] = tensor
            if name in weights:
                given[id(tensor)] = weights[name]
    outside = {
        id(hook): _Outside(hook, child)
        for child in module.modules()
        for hooks in HOOKS
        for hook in vars(child)[hooks].values()
        if getattr(hook, "__module__", "").split(".")[0] == _OWN
    }
    return copied(module, {**outside, **own, **given, **views_at(module, given)})


class _Outside:
    """Mark a hook by the layer it sees.

    It is the layer that the hook was registered on.
    """

    def __init__(self, hook: Any, layer: nn.Module) -> None:
        self.hook, self.layer = hook, layer

    def __call__(self, layer: nn.Module, *arguments: Any) -> Any:
        return self.hook(self.layer, *arguments)


def _handed_over(
    weights: StateLike, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[Handover, dict[str, Tensor], tuple[Any, ...], dict[str, Any]]:
    """Hand weights and inputs over to a run.

    All of the run's graph then lies behind the handover.
    """
    leaves, rebuilt = flattened((arguments, keywords))
    followed = [name for name, tensor in weights.items() if tensor.requires_grad]
    places = [place for place, leaf in enumerate(leaves) if leaf.is_floating_point()]
    handover = Handover([*(weights[name] for name in followed), *(leaves[place] for place in places)])
    given = dict(weights) | dict(zip(followed, handover.given, strict=False))
    for place, tensor in zip(places, handover.given[len(followed) :], strict=True):
        leaves[place] = tensor
    arguments, keywords = rebuilt(leaves)
    return handover, given, arguments, keywords


def _keep_new_buffers(module: nn.Module, twin: nn.Module, weights: StateLike) -> None:
    """Keep the buffers that a run has put in.

    They are the network's own from then on, as in a run on itself.
    """
    others = dict(twin.named_modules())
    for prefix, child in module.named_modules():
        for name, buffer in child._buffers.items():
            given = f"{prefix}.{name}" if prefix else name
            found = others[prefix]._buffers.get(name) if prefix in others else buffer
            if given not in weights and found is not buffer:
                child._buffers[name] = found
