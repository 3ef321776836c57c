"""Alignments as the dictionaries of Git Re-Basin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from sinkhorn_rebasin.errors import SpecError
from sinkhorn_rebasin.matching import Alignment
from sinkhorn_rebasin.matching.git_rebasin import from_git_rebasin, to_git_rebasin
from sinkhorn_rebasin.permutations import random_permutations
from sinkhorn_rebasin.symmetry import discover_symmetry


def moved_by_git_rebasin(state: dict, axes_to_perm: dict, perm: dict) -> dict[str, np.ndarray]:
    """Git Re-Basin's own ``apply_permutation``, written with NumPy."""
    moved = {}
    for name, tensor in state.items():
        array = tensor.numpy()
        for axis, key in enumerate(axes_to_perm.get(name, ())):
            if key is not None:
                array = np.take(array, perm[key], axis=axis)
        moved[name] = array
    return moved


def test_git_rebasin_moves_a_network_as_the_alignment_does() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.ReLU())
    net.append(nn.AdaptiveAvgPool2d(1)).append(nn.Flatten()).append(nn.Linear(4, 3))
    spec = discover_symmetry(net, torch.randn(2, 2, 7, 7))
    alignment = Alignment(random_permutations(spec), spec)
    expected = alignment.apply(net)
    axes_to_perm, perm = to_git_rebasin(alignment)
    moved = moved_by_git_rebasin(net.state_dict(), axes_to_perm, perm)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(moved[name], tensor.numpy(), err_msg=name)
    assert not torch.equal(expected["0.weight"], net[0].weight)
    again = from_git_rebasin(axes_to_perm, perm, net).apply(net)
    assert all(torch.equal(again[name], tensor) for name, tensor in expected.items())


def test_what_the_dictionaries_cannot_say_is_refused() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    spec = discover_symmetry(net, torch.randn(2, 3))
    alignment = Alignment(random_permutations(spec), spec)
    with pytest.raises(SpecError, match="but got one with signs"):
        to_git_rebasin(replace(alignment, signs={"0": torch.ones(1, 4)}))
    axes_to_perm, _ = to_git_rebasin(alignment)
    with pytest.raises(SpecError, match=r"permutation of 0\.\.3"):
        from_git_rebasin(axes_to_perm, {"0": np.zeros(4, dtype=int)}, net)
    with pytest.raises(SpecError, match="got none of '0'"):
        from_git_rebasin(axes_to_perm, {}, net)
