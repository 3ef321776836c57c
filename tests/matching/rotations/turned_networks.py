"""Small networks with continuous symmetries, written down by hand, and random elements of their groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from experiments.models import ViT
from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.permutations import Group, Layout, PermutationSpec, Slot, random_permutations
from sinkhorn_rebasin.permutations.continuous import (
    ContinuousKind,
    ContinuousSpec,
    ContinuousSymmetry,
    transform_state,
)
from sinkhorn_rebasin.permutations.maps import complement_of_ones
from sinkhorn_rebasin.permutations.slots import parts_of
from sinkhorn_rebasin.symmetry import discover_symmetry


class Residual(nn.Module):
    """A stream that is read and written by linear maps alone."""

    def __init__(self, activation: Callable[[Tensor], Tensor], stream: int = 6, hidden: int = 12) -> None:
        super().__init__()
        self.activation = activation
        self.stem, self.head = nn.Linear(5, stream), nn.Linear(stream, 3)
        self.up = nn.ModuleList(nn.Linear(stream, hidden) for _ in range(2))
        self.down = nn.ModuleList(nn.Linear(hidden, stream) for _ in range(2))

    def forward(self, inputs: Tensor) -> Tensor:
        stream = self.stem(inputs)
        for up, down in zip(self.up, self.down, strict=True):
            stream = stream + down(self.activation(up(stream)))
        output: Tensor = self.head(stream)
        return output


class RotaryScores(nn.Module):
    """Queries and keys that turn with their position, (N, T, 5) -> (N, T, T)."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(5, 4, bias=False), nn.Linear(5, 4, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        angles = torch.arange(tokens.shape[1])[:, None] * torch.tensor([1.0, 0.3], dtype=tokens.dtype)
        turned = []
        for layer in (self.query, self.key):
            real, imaginary = layer(tokens).chunk(2, -1)
            cosine, sine = angles.cos(), angles.sin()
            turned.append(torch.cat([real * cosine - imaginary * sine, real * sine + imaginary * cosine], -1))
        return turned[0] @ turned[1].mT


class Problem(NamedTuple):
    network: nn.Module
    inputs: Tensor
    spec: PermutationSpec
    continuous: ContinuousSpec


def problem(name: str, seed: int = 0) -> Problem:
    """A network in double precision by name, with its symmetries."""
    torch.manual_seed(seed)
    if name == "vit":
        network, inputs = ViT(size=8, patch=4, width=12, depth=2, heads=3, hidden=20), torch.randn(3, 3, 8, 8)
    elif name == "block":  # the same kinds of symmetries in a third of the time
        network, inputs = ViT(size=8, patch=4, width=8, depth=1, heads=2, hidden=12), torch.randn(3, 3, 8, 8)
    elif name == "bottlenecks":
        layers = (nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 3))
        network, inputs = nn.Sequential(*layers, nn.Linear(3, 6)), torch.randn(3, 5)
    elif name == "rotary":
        network, inputs = RotaryScores(), torch.randn(2, 3, 5)
    else:
        network = Residual(torch.tanh if name == "tanh" else torch.relu)
        inputs = torch.randn(3, 5)
    network = network.double().eval()
    for path, parameter in network.named_parameters():
        if not (path.endswith("weight") and "norm" in path):
            parameter.data += 0.3 * torch.randn_like(parameter)
    inputs = inputs.double()
    spec = discover_symmetry(network, inputs)
    if name in ("vit", "block"):
        continuous = _of_vit(spec, 2 if name == "vit" else 1)
    elif name == "rotary":
        slots = [Slot("turned", f"{path}.weight", (0,), Layout(1, 4)) for path in ("query", "key")]
        exponents = ((slots[0], 1), (slots[1], -1))
        turned = ContinuousSymmetry(Group("turned", 4), "rotary", exponents, pairs=((0, 2), (1, 3)))
        continuous = ContinuousSpec((turned,))
    elif name == "bottlenecks":
        continuous = ContinuousSpec(tuple(_linear(spec, group) for group in ("0", "1", "4")))
    else:
        continuous = ContinuousSpec(
            (_linear(spec, "stem", "orthogonal" if name == "orthogonal" else "linear"),)
        )
    return Problem(network, inputs, spec, continuous)


def _linear(spec: PermutationSpec, group: str, kind: ContinuousKind = "linear") -> ContinuousSymmetry:
    exponents = tuple(
        (slot, -1 if slot.axes == (1,) and kind == "linear" else 1) for slot in spec.slots_of(group)
    )
    return ContinuousSymmetry(spec[group], kind, exponents)


def _of_vit(spec: PermutationSpec, blocks: int) -> ContinuousSpec:
    gains = tuple(
        slot.tensor
        for slot in spec.slots_of("positions")
        if "norm" in slot.tensor and slot.tensor.endswith("weight")
    )
    turning = tuple((slot, 1) for slot in spec.slots_of("positions") if slot.tensor not in gains)
    symmetries = [ContinuousSymmetry(spec["positions"], "orthogonal", turning, True, gains)]
    for block in range(blocks):
        name = f"blocks/{block}/attention/qkv"
        queries_and_keys = [parts_of(slot) for slot in spec.slots_of(f"{name}#2")]
        exponents = [
            (part, sign) for parts in queries_and_keys for part, sign in zip(parts, (1, -1), strict=True)
        ]
        symmetries.append(ContinuousSymmetry(spec[f"{name}#2"], "linear", tuple(exponents)))
        symmetries.append(_linear(spec, f"{name}#3"))
    return ContinuousSpec(tuple(symmetries))


def random_maps(continuous: ContinuousSpec) -> dict[str, Tensor]:
    """A random element of every continuous group, in double precision."""
    maps = {}
    for symmetry in continuous.symmetries:
        group = symmetry.group
        matrices = torch.randn(*group.shape, group.size, dtype=torch.float64)
        if symmetry.kind == "orthogonal":
            matrices = torch.linalg.qr(matrices).Q
            if symmetry.fixes_ones:
                basis = complement_of_ones(group.size)
                matrices = basis @ matrices[1:, 1:].contiguous().svd()[0] @ basis.T + 1 / group.size
        elif symmetry.kind == "rotary":
            # A complex number per pair of units, real parts first.
            real, imaginary = torch.diag(matrices[0, :2]), torch.diag(matrices[1, :2])
            matrices = torch.cat([torch.cat([real, -imaginary], 1), torch.cat([imaginary, real], 1)])
        maps[group.name] = matrices
    return maps


def moved_at_random(given: Problem) -> State:
    """The same function elsewhere: random maps of all groups at once, random permutations of the others."""
    state = {name: tensor.detach() for name, tensor in given.network.state_dict().items()}
    maps, orders = random_maps(given.continuous), random_permutations(given.spec)
    return transform_state(state, given.spec, given.continuous, maps, orders)


def largest_difference(one: State, other: State) -> float:
    """The largest absolute difference between two states."""
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def change_of_function(given: Problem, before: State, after: State) -> float:
    """By how much the outputs of two states differ."""
    outputs = [torch.func.functional_call(given.network, state, given.inputs) for state in (before, after)]
    return float((outputs[0] - outputs[1]).abs().max().detach())
