"""Plain networks of other widths, made of a network's own modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.architecture import tied_names
from sinkhorn_rebasin.networks.copying import Module, plain_tensors, standalone_copy


@plain_tensors()
def resized(model: Module, state: Mapping[str, Tensor]) -> Module:
    """Copy a network with tensors of other widths.

    What PyTorch's layers note about their widths is brought up to date: linear and convolution layers, norms,
    embeddings, recurrent layers. A module of any other kind just gets its tensors.

    Args:
        model: the network; it is not changed.
        state: all of its parameters and buffers, by name; of tied ones one name is enough. Whole numbers, such as
            counters, may be left out.

    Raises:
        ArchitectureError: a tensor is missing or of another number of axes, or a layer cannot have such shapes; it
            is named.

    Note:
        - The first name of tied tensors that the state has counts; the copy's stay tied.
        - Whether a forward of one's own runs at these widths only a run can tell.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> shapes = {"0.weight": (6, 3), "0.bias": (6,), "2.weight": (2, 6), "2.bias": (2,)}
        >>> wide = resized(net, {name: torch.ones(shape) for name, shape in shapes.items()})
        >>> wide[0], wide(torch.ones(1, 3)).tolist()
        (Linear(in_features=3, out_features=6, bias=True), [[25.0, 25.0]])
    """
    twin = standalone_copy(model)
    aliases = {name: names for names in tied_names(twin) for name in names}
    made: dict[int, Tensor] = {}
    for path, module in list(twin.named_modules(remove_duplicate=False)):
        prefix = f"{path}." if path else ""
        changed = False
        for kept in (module._parameters, module._buffers):
            for key, old in list(kept.items()):
                if old is None or key in module._non_persistent_buffers_set:
                    continue
                names = aliases.get(prefix + key, [prefix + key])
                if kept is module._buffers and not old.is_floating_point() and not set(names) & state.keys():
                    continue  # a counter has no width
                new = _given(state, names, old)
                changed |= new.shape != old.shape
                if id(old) not in made:
                    made[id(old)] = _like(new, old)
                kept[key] = made[id(old)]
        if changed:
            _note_widths(module, path)
    return twin


def _given(state: Mapping[str, Tensor], names: Sequence[str], old: Tensor) -> Tensor:
    name = next((name for name in names if name in state), names[0])
    if name not in state or state[name].dim() != old.dim():
        got = "none" if name not in state else f"shape {tuple(state[name].shape)}"
        raise ArchitectureError(f"Expected a tensor {name!r} with {old.dim()} axes but got {got}.")
    return state[name]


def _like(new: Tensor, old: Tensor) -> Tensor:
    copied = new.detach().to(old.device, old.dtype).clone()
    return nn.Parameter(copied, old.requires_grad) if isinstance(old, nn.Parameter) else copied


def _note_widths(module: Any, path: str) -> None:
    """Note a layer's new widths."""
    computed = "parametrizations" in path.split(".") or "weight_g" in module._parameters
    if computed or isinstance(module, (nn.RNNCellBase, nn.MultiheadAttention, nn.GroupNorm)):
        raise ArchitectureError(
            f"Expected layers whose number of units can be changed but {path!r} is {type(module).__name__}, which "
            f"{'computes its weights' if computed else 'is built for one size'}: leave its groups out with "
            f"spec.without(...)."
        )
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, _ConvNd):
        _note_channels(module, path)
    elif isinstance(module, _NormBase):
        tensors = [module.weight, module.running_mean]
        module.num_features = next(len(tensor) for tensor in tensors if tensor is not None)
    elif isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        module.normalized_shape = tuple(module.weight.shape)
    elif isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        module.num_embeddings, module.embedding_dim = module.weight.shape
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(module.weight)
    elif isinstance(module, nn.RNNBase):
        _note_hidden(module, path)


def _note_channels(module: Any, path: str) -> None:
    first, second = module.weight.shape[:2]
    if module.groups == 1:
        ends = (first, second) if isinstance(module, _ConvTransposeNd) else (second, first)
        module.in_channels, module.out_channels = ends
    elif module.groups == module.in_channels == module.out_channels and second == 1:
        module.in_channels = module.out_channels = module.groups = first
    else:
        raise ArchitectureError(
            f"Expected convolutions over all channels, or of one channel each, but {path!r} has {module.groups} "
            f"groups of several channels, whose number cannot change: leave its groups out with spec.without(...)."
        )


def _note_hidden(module: nn.RNNBase, path: str) -> None:
    gates = {"LSTM": 4, "GRU": 3}.get(module.mode, 1)
    hidden = {len(bias) // gates for key, bias in module.named_parameters() if key.startswith("weight_hh")}
    if len(hidden) > 1 or module.proj_size:
        raise ArchitectureError(
            f"Expected one hidden width in all layers of {path!r}, and no projection, but got {sorted(hidden)}: give "
            f"each layer a module of its own."
        )
    module.hidden_size = hidden.pop()
    module.input_size = dict(module.named_parameters())["weight_ih_l0"].shape[1]
    module.flatten_parameters()
