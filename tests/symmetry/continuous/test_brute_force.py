"""The Lie algebra that is found is all there is: as many dimensions as the null space of all generators."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from math import prod

import pytest
import torch
from torch import Tensor, nn

from experiments.models.transformer import ViT
from sinkhorn_rebasin import discover_continuous, discover_rescaling, discover_symmetry
from sinkhorn_rebasin.permutations import Slot
from tests.symmetry.continuous.small_networks import (
    Adapted,
    Attention,
    Block,
    InvertedResidual,
    Language,
    Mixer,
    perceptron,
)

WORDS = torch.tensor([[0, 1, 2, 3, 4], [5, 6, 7, 8, 0]])


def null_dimension(model: nn.Module, slots: Sequence[Slot], held: Sequence[str], inputs: Tensor) -> int:
    """Dimensions of the matrices X, one a slot, whose motion X W leaves the output as it is, for one block."""
    torch.manual_seed(7)
    twin = copy.deepcopy(model).double().eval()
    size = slots[0].layout.size
    unknowns = len(slots) * size**2
    rows = []
    while len(rows) < unknowns + 12:
        state = {name: 0.5 * torch.randn_like(each) for name, each in twin.named_parameters()}
        state.update({name: torch.ones_like(state[name]) for name in held})
        leaves = {name: each.requires_grad_() for name, each in state.items()}
        x = (
            torch.randint(9, inputs.shape)
            if not inputs.is_floating_point()
            else torch.randn(inputs.shape).double()
        )
        output = torch.func.functional_call(twin, leaves, x)
        names = sorted({slot.tensor for slot in slots})
        found = torch.autograd.grad((torch.randn_like(output) * output).sum(), [leaves[n] for n in names])
        gradients = dict(zip(names, found, strict=True))
        row = [block(gradients[s.tensor], s) @ block(leaves[s.tensor].detach(), s).mT for s in slots]
        rows.append(torch.stack(row).flatten())
    matrix = torch.stack(rows)
    matrix = matrix / matrix.norm(dim=1, keepdim=True)
    singular = torch.linalg.svdvals(matrix / matrix.norm(dim=0).clamp_min(1e-12))
    assert not ((singular > 1e-11 * singular[0]) & (singular < 1e-8 * singular[0])).any()
    return int((singular < 1e-9 * singular[0]).sum()) if len(singular) == unknowns else -1


def block(tensor: Tensor, slot: Slot) -> Tensor:
    """The weights of the units of the first block, (units, weights)."""
    front = tensor.movedim(slot.axes, tuple(range(len(slot.axes))))
    flat = front.reshape(prod(tensor.shape[axis] for axis in slot.axes), -1)
    return flat[torch.from_numpy(slot.layout.table()[0])].flatten(1)


def rows(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


Build = Callable[[], nn.Module]
# The last number counts by theory what mixes no units of a group alike, and so is no continuous symmetry of it:
# common factors that a norm takes out, or that two factors of a product share, one each (queries and keys, values
# and their outputs, gates and what they gate); and the mean of each norm's shift, which its reader can make up for,
# one for every unit, as is the mean over the columns of a reader where a norm without shift comes before it.
CASES: dict[str, tuple[Build, Tensor, str, int]] = {
    "ReLU": (lambda: perceptron(nn.ReLU()), rows(4, 5), "0", 0),
    "tanh": (lambda: perceptron(nn.Tanh()), rows(4, 5), "0", 0),
    "GELU": (lambda: perceptron(nn.GELU()), rows(4, 5), "0", 0),
    "bottleneck": (lambda: perceptron(nn.Identity()), rows(4, 5), "0", 0),
    "adapter": (lambda: Adapted(8), rows(9, 5), "down", 0),
    "values": (lambda: Language(Block(Attention(), nn.RMSNorm)), WORDS, "blocks/0/attention/value", 0),
    "queries": (lambda: Language(Block(Attention(), nn.RMSNorm)), WORDS, "blocks/0/attention/query#2", 0),
    "normed queries": (
        lambda: Language(Block(Attention(normed=True), nn.RMSNorm)),
        WORDS,
        "blocks/0/attention/query#2",
        2,
    ),
    "gates": (lambda: Language(Block(Attention(), nn.RMSNorm)), WORDS, "blocks/0/gate", 0),
    "stream without activation": (lambda: InvertedResidual(folded=True), rows(2, 3, 5, 5), "first/0", 0),
    "stream of a mixer": (Mixer, rows(2, 5, 3), "first", 8),
    "RMS norm stream": (lambda: Language(Block(Attention(), nn.RMSNorm)), WORDS, "words", 4),
    "layer norm stream": (
        lambda: ViT(size=8, patch=4, width=8, depth=1, heads=2, hidden=6, classes=5),
        rows(2, 3, 8, 8),
        "positions",
        3 * 8,
    ),
}
SLOW = {"RMS norm stream", "layer norm stream", "gates", "stream of a mixer"}


@pytest.mark.parametrize("name", [pytest.param(c, marks=[pytest.mark.slow] * (c in SLOW)) for c in CASES])
def test_nothing_is_left_out(name: str) -> None:
    torch.manual_seed(0)
    build, inputs, group, extra = CASES[name]
    model = build()
    spec = discover_symmetry(model, inputs)
    continuous = discover_continuous(model, spec, inputs)
    size = spec[group].size
    slots: Sequence[Slot] = [s for s in spec.slots_of(group) if s.tensor in spec.parameters]
    gains: tuple[str, ...] = ()
    if group in continuous:
        symmetry = continuous[group]
        gains, moving = symmetry.gains, size - symmetry.fixes_ones
        dimension = moving**2 if symmetry.kind == "linear" else moving * (moving - 1) // 2
        dimension += size * len(symmetry.centered)
        slots = [slot for slot in slots if slot.tensor not in gains]
    else:
        dimension = size * len(discover_rescaling(model, spec, inputs, signs=False).of(group))
    assert null_dimension(model, slots, gains, inputs) == dimension + extra
