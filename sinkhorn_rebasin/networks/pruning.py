"""Networks pruned by PyTorch, with their zeros made permanent in a copy."""

from __future__ import annotations

from torch.nn.utils import prune

from sinkhorn_rebasin.networks.copying import Module, standalone_copy


def settle_pruning(network: Module) -> Module:
    """Copy a network with its pruning made permanent.

    ``torch.nn.utils.prune`` computes a weight from ``weight_orig`` and ``weight_mask``. What is pruned still stands
    in ``weight_orig``, where distances and means of networks would count it. The copy has plain weights.

    Args:
        network: pruned or not; never changed.

    Example:
        >>> from torch import nn
        >>> layer = nn.Linear(3, 2)
        >>> _ = prune.l1_unstructured(layer, "weight", amount=2)
        >>> plain = settle_pruning(layer)
        >>> int((plain.weight == 0).sum()), sorted(plain.state_dict()), sorted(layer.state_dict())
        (2, ['bias', 'weight'], ['bias', 'weight_mask', 'weight_orig'])

    Source: ``torch.nn.utils.prune.remove``, which changes the network itself.
    """
    twin = standalone_copy(network)
    for module in twin.modules():
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, prune.BasePruningMethod):
                prune.remove(module, hook._tensor_name)
    return twin
