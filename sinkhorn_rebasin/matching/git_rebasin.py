"""Alignments as the two dictionaries of Git Re-Basin, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sinkhorn_rebasin._typing import StateLike
from sinkhorn_rebasin.errors import SpecError
from sinkhorn_rebasin.matching.base import Alignment
from sinkhorn_rebasin.permutations import PermutationSpec, check_permutations
from sinkhorn_rebasin.permutations.structure import AxesToPerm


def to_git_rebasin(alignment: Alignment) -> tuple[AxesToPerm, dict[str, NDArray[Any]]]:
    r"""Write an alignment as the dictionaries that Git Re-Basin applies.

    Both packages move a tensor by :math:`W'_i = W_{\pi(i)}`, so the indices are the same.

    Returns:
        per tensor the name of the permutation, or None, of each axis; and per name its indices.

    Raises:
        SpecError: signs, maps, or a group that permutes less or more than whole axes, which they cannot say.

    Example:
        >>> from sinkhorn_rebasin import discover_symmetry, identity_permutations
        >>> net = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))
        >>> spec = discover_symmetry(net, torch.randn(4, 3))
        >>> axes_to_perm, orders = to_git_rebasin(Alignment(identity_permutations(spec), spec))
        >>> axes_to_perm["2.weight"], orders["0"].tolist()
        ((None, '0'), [0, 1])

    Source: Ainsworth, Hayase, Srinivasa, "Git Re-Basin" (2023).
    """
    for kind in ("signs", "maps"):
        if getattr(alignment, kind, None):
            raise SpecError(
                f"Expected an alignment of permutations alone, as Git Re-Basin can apply, but got one with {kind}."
            )
    orders = {name: order.detach().cpu().numpy().copy() for name, order in alignment.permutations.items()}
    return alignment.spec.to_axes_to_perm(), orders


def from_git_rebasin(
    axes_to_perm: AxesToPerm, orders: Mapping[str, Any], network: StateLike | nn.Module
) -> Alignment:
    """Read an alignment from the dictionaries of Git Re-Basin.

    Args:
        axes_to_perm: per tensor the name of the permutation, or None, of each axis.
        orders: per name its indices, in whatever array.
        network: a network they are for, or its state.

    Raises:
        SpecError: they do not fit each other, or the network.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))
        >>> axes = {"0.weight": ("P", None), "0.bias": ("P",), "2.weight": (None, "P"), "2.bias": (None,)}
        >>> moved = from_git_rebasin(axes, {"P": [1, 0]}, net).apply(net)
        >>> bool((moved["0.bias"] == net[0].bias.flip(0)).all())
        True
    """
    spec = PermutationSpec.from_axes_to_perm(axes_to_perm, network)
    permutations = {
        name: torch.from_numpy(np.asarray(order, dtype=np.int64)) for name, order in orders.items()
    }
    check_permutations(spec, permutations)
    return Alignment(permutations, spec)
