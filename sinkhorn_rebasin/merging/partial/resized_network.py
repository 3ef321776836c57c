"""A copy of a network whose layers have other numbers of units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from sinkhorn_rebasin._typing import StateLike
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.architecture import tied_names
from sinkhorn_rebasin.networks.copying import Module, standalone_copy


def resized_network(network: Module, state: StateLike) -> Module:
    """Copy a network with tensors of other shapes.

    The sizes that layers of PyTorch keep beside their tensors are set as the shapes say.

    Args:
        network: any; it is not changed.
        state: all of its tensors, one name of a tied one.

    Raises:
        ArchitectureError: a layer whose size cannot be changed: it is recurrent, packs attention, computes its
            weights, or convolves in groups of several channels. It is named.

    >>> import torch
    >>> wide = resized_network(nn.Linear(2, 3), {"weight": torch.ones(5, 2), "bias": torch.zeros(5)})
    >>> wide, wide(torch.ones(1, 2)).shape
    (Linear(in_features=2, out_features=5, bias=True), torch.Size([1, 5]))
    """
    twin = standalone_copy(network)
    firsts = {name: names for names in tied_names(twin) for name in names}
    placed: dict[str, Tensor] = {}
    for path, module in twin.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        old = {**module._parameters, **module._buffers}
        shapes = {key: tensor.shape for key, tensor in old.items() if tensor is not None}
        for key in shapes:
            _place(module, key, prefix + key, state, firsts, placed)
        changed = [key for key, shape in shapes.items() if getattr(module, key).shape != shape]
        if changed:
            _resize(path, module)
    return twin


def _place(
    module: nn.Module,
    key: str,
    name: str,
    state: StateLike,
    firsts: Mapping[str, list[str]],
    placed: dict[str, Tensor],
) -> None:
    """Put a tensor of the state where a module has one of its own."""
    given = next((alias for alias in firsts.get(name, [name]) if alias in state), None)
    if given is None:
        return
    kept: Any = module._parameters if key in module._parameters else module._buffers
    old: Any = kept[key]
    if given not in placed:
        value = state[given].detach().to(old.device, old.dtype).clone()
        is_parameter = isinstance(old, nn.Parameter)
        placed[given] = nn.Parameter(value, requires_grad=old.requires_grad) if is_parameter else value
    kept[key] = placed[given]


def _resize(path: str, module: Any) -> None:
    """Set the sizes that a module keeps, by the shapes of its tensors.

    A module of one's own keeps none that are known; whether it runs is seen by running it.
    """
    weight: Any = getattr(module, "weight", None)
    computed = "parametrizations" in path.split(".") or "weight_g" in module._parameters
    if computed or isinstance(module, (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention, nn.GroupNorm)):
        raise ArchitectureError(
            f"Expected layers whose number of units can be changed but {path!r} is {type(module).__name__}, which "
            f"{'computes its weights' if computed else 'is built for one size'}: leave its groups out with "
            f"spec.without(...)."
        )
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, _ConvNd):
        _resize_convolution(path, module)
    elif isinstance(module, _NormBase):
        kept: Any = weight if weight is not None else module.running_mean
        module.num_features = len(kept)
    elif isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        module.normalized_shape = tuple(weight.shape)
    elif isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        module.num_embeddings, module.embedding_dim = weight.shape
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(weight)


def _resize_convolution(path: str, module: Any) -> None:
    weight = module.weight
    if module.groups == 1:
        ends = (0, 1) if isinstance(module, _ConvTransposeNd) else (1, 0)
        module.in_channels, module.out_channels = (weight.shape[axis] for axis in ends)
    elif module.groups == module.in_channels and module.in_channels == module.out_channels:
        module.groups = module.in_channels = module.out_channels = len(weight)
    else:
        raise ArchitectureError(
            f"Expected convolutions over all channels, or of one channel each, but {path!r} has {module.groups} "
            f"groups of several channels, whose number cannot change: leave its groups out with spec.without(...)."
        )
