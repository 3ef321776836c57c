"""Constants that hidden units are written into, where no functionalisation takes the writes away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence, unpack_sequence

from sinkhorn_rebasin.permutations import permute_state, random_permutations
from sinkhorn_rebasin.symmetry import discover_symmetry
from tests.cases import randomise
from tests.symmetry.witness import difference
from tests.zoo.case import Function


class Squashed(torch.autograd.Function):
    """A function without ``setup_context``, which no functionalisation follows."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return tensor.tanh()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def filled(h: Tensor) -> Tensor:
    out = h.new_zeros(len(h), 8)
    out[:, 1:7] = h
    return out[:, :7]


def filled_by_a_view_from_before(h: Tensor) -> Tensor:
    out = torch.ones(len(h), 8, dtype=h.dtype)
    left, right = out.chunk(2, 1)
    right.copy_(h[:, :4])
    return torch.cat([left, right, out[:, 5:]], 1)


def added_to_constants(h: Tensor) -> Tensor:
    out = torch.tensor([1.0, 1.0, 1.0, 2.0, 2.0, 2.0], dtype=h.dtype).repeat(len(h), 1)
    out += h
    return out


def scaled_to_nothing(h: Tensor) -> Tensor:
    """What is left in memory looks alike for every unit, and was not."""
    out = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], dtype=h.dtype).repeat(len(h), 1)
    out *= (h.sum(1, keepdim=True) > 1e3).to(h.dtype)
    return out + h.sin()


def written_twice(h: Tensor) -> Tensor:
    out = torch.zeros_like(h) + 1
    out[:, :4] = h[:, :4]
    out[:, 2:] = h[:, 2:].cos()
    return out


def written_on_a_diagonal(h: Tensor) -> Tensor:
    out = torch.ones(len(h), 6, dtype=h.dtype)
    out.diagonal().copy_(h.sum(0))
    return out + h


def written_through_a_transpose(h: Tensor) -> Tensor:
    out = torch.zeros(6, len(h), dtype=h.dtype)
    out.t().copy_(h)
    return out.sin().t()


def unpacked(h: Tensor) -> Tensor:
    packed = pack_padded_sequence(h[:6].view(2, 3, 6), torch.tensor([3, 2]), batch_first=True)
    return torch.cat([steps.sum(0, keepdim=True) for steps in unpack_sequence(packed)])


def packed_and_padded(h: Tensor) -> Tensor:
    packed = pack_padded_sequence(h[:6].view(2, 3, 6), torch.tensor([3, 2]), batch_first=True)
    return pad_packed_sequence(packed, batch_first=True, padding_value=0.3)[0]


KNOWN: dict[str, tuple[Callable[[Tensor], Tensor], tuple[tuple[int, int], ...]]] = {
    "filled": (filled, ((6, 1),)),
    "filled_by_a_view_from_before": (filled_by_a_view_from_before, ((2, 1), (3, 1), (4, 1))),
    "added_to_constants": (added_to_constants, ((3, 1), (3, 1))),
    "scaled_to_nothing": (scaled_to_nothing, ()),
    "written_twice": (written_twice, ((2, 1), (4, 1))),
    "written_through_a_transpose": (written_through_a_transpose, ((6, 1),)),
    "written_on_a_diagonal": (written_on_a_diagonal, ()),
    "padded": (lambda h: pad_sequence([h[:2], h[2:]], batch_first=True, padding_value=0.3), ((6, 1),)),
    "unpacked": (unpacked, ((6, 1),)),
    "packed_and_padded": (packed_and_padded, ((6, 1),)),
}

# Where writes are not taken away, these are sound, and less than all that moves is found.
COARSE = ("written_twice", "written_through_a_transpose")


@pytest.mark.parametrize("functional", [True, False])
@pytest.mark.parametrize("name", KNOWN)
def test_writes_into_constants_are_followed(name: str, functional: bool) -> None:
    torch.manual_seed(0)
    operation, groups = KNOWN[name]
    first: Callable[[Tensor], Tensor] = torch.tanh if functional else Squashed.apply
    outputs = operation(torch.zeros(6, 6)).shape[-1]
    net: nn.Module = Function(
        lambda net, x: net.b(operation(first(net.a(x))).tanh()), a=nn.Linear(3, 6), b=nn.Linear(outputs, 2)
    )
    net = randomise(net).double()
    spec = discover_symmetry(net, torch.randn(6, 3, dtype=torch.float64))
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        state = permute_state(net.state_dict(), spec, random_permutations(spec, generator=generator))
        assert difference(net, state, torch.randn(6, 3, dtype=torch.float64)) < 1e-11, spec
    if functional or name not in COARSE:
        assert Counter((group.size, group.blocks) for group in spec.groups) == Counter(groups), spec
