"""Canonical networks: the same function, in the form that theory writes down by hand."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin.errors import SymmetryError
from sinkhorn_rebasin.permutations import (
    Group,
    Layout,
    RescalingSpec,
    Slot,
    identity_permutations,
    random_maps,
)
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec, ContinuousSymmetry, transform_state
from sinkhorn_rebasin.symmetry import discover_rescaling, discover_symmetry
from sinkhorn_rebasin.symmetry.continuous.canonical import canonicalize
from tests.symmetry.continuous.networks import WIDTH, by_hand, gpt, images, spread, symmetries_of_vit, vit
from tests.symmetry.witness import difference

NORMS = ("blocks.0.norm1", "blocks.0.norm2", "norm")


@cache
def canonical_vit() -> tuple[nn.Module, nn.Module]:
    model = vit()
    spec, continuous, rescaling = symmetries_of_vit()
    return model, canonicalize(model, spec, continuous, images(), rescaling=rescaling)


def folded_by_hand(model: nn.Module) -> dict[str, Tensor]:
    """Gains and shifts of norms in their readers, writers centred; the formulas of the norm, written out."""
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    readers = ("blocks.0.attention.qkv", "blocks.0.up", "head")
    for norm, reader in zip(NORMS, readers, strict=True):
        weight = state[f"{reader}.weight"]
        state[f"{reader}.bias"] += weight @ state[f"{norm}.bias"]
        state[f"{reader}.weight"] = weight * state[f"{norm}.weight"]
        state[f"{norm}.weight"].fill_(1)
        state[f"{norm}.bias"].zero_()
    values = state["blocks.0.attention.qkv.bias"][2 * WIDTH :].clone()
    state["blocks.0.attention.out.bias"] += state["blocks.0.attention.out.weight"] @ values
    state["blocks.0.attention.qkv.bias"][WIDTH:] = 0
    for name in ("patches.weight", "patches.bias"):
        state[name] -= state[name].mean(0)
    for name in ("blocks.0.attention.out", "blocks.0.down"):
        state[f"{name}.weight"] -= state[f"{name}.weight"].mean(0)
        state[f"{name}.bias"] -= state[f"{name}.bias"].mean(0)
    for name in ("positions", "blocks.0.attention.qkv.weight", "blocks.0.up.weight", "head.weight"):
        state[name] -= state[name].mean(1, keepdim=True)
    return state


def test_the_function_and_the_class_stay_and_nothing_is_touched() -> None:
    model = vit().train()
    before = copy.deepcopy(model.state_dict())
    spec, continuous, rescaling = symmetries_of_vit()
    canonical = canonicalize(model, spec, continuous, images(), rescaling=rescaling)
    assert type(canonical) is type(model)
    assert canonical.training
    assert all(parameter.requires_grad for parameter in canonical.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert difference(model, canonical.state_dict(), images(7)) < 1e-12


def test_gains_shifts_and_means_go_where_the_formulas_say() -> None:
    model, canonical = canonical_vit()
    expected = folded_by_hand(model)
    assert difference(model, expected, images(7)) < 1e-12
    inside = ("blocks.0.attention.qkv.weight", "blocks.0.attention.qkv.bias", "blocks.0.attention.out.weight")
    for name, tensor in canonical.state_dict().items():
        if name not in inside:
            torch.testing.assert_close(tensor, expected[name], rtol=1e-12, atol=1e-12)


def test_heads_keep_their_circuits_and_are_balanced() -> None:
    model, canonical = canonical_vit()
    ours, expected = canonical.state_dict(), folded_by_hand(model)
    for head in range(2):
        rows = slice(4 * head, 4 * head + 4)
        for state in (ours, expected):
            packed, out = state["blocks.0.attention.qkv.weight"], state["blocks.0.attention.out.weight"]
            bias = state["blocks.0.attention.qkv.bias"]
            queries, keys, values = packed.view(3, WIDTH, WIDTH)[:, rows]
            bias = bias[rows, None]
            state[f"qk {head}"] = torch.cat([queries, bias], 1).T @ keys
            state[f"vo {head}"] = out[:, rows] @ values
            if state is ours:
                torch.testing.assert_close(queries @ queries.T + bias @ bias.T, keys @ keys.T)
                torch.testing.assert_close(values @ values.T, out[:, rows].T @ out[:, rows])
        for circuit in (f"qk {head}", f"vo {head}"):
            torch.testing.assert_close(ours[circuit], expected[circuit], rtol=1e-11, atol=1e-11)


def test_a_second_call_changes_nothing() -> None:
    _, canonical = canonical_vit()
    spec, continuous, rescaling = symmetries_of_vit()
    again = canonicalize(canonical, spec, continuous, images(), rescaling=rescaling)
    for name, tensor in canonical.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=0, atol=1e-12)


def test_weights_in_single_precision_are_rounded_once() -> None:
    model = vit().float()
    spec, continuous, rescaling = symmetries_of_vit()
    canonical = canonicalize(model, spec, continuous, images().float(), rescaling=rescaling)
    exact = canonicalize(copy.deepcopy(model).double(), spec, continuous, images(), rescaling=rescaling)
    for name, tensor in canonical.state_dict().items():
        torch.testing.assert_close(tensor, exact.state_dict()[name].float(), rtol=2e-7, atol=1e-12)


def test_a_gain_with_a_tied_reader_is_refused_by_name() -> None:
    model, tokens = gpt(), torch.randint(7, (3, 5))
    spec = discover_symmetry(model, tokens)
    rescaling = discover_rescaling(model, spec, tokens, signs=False)
    with pytest.raises(SymmetryError, match=r"the gain 'norm.weight'.*untie"):
        canonicalize(model, spec, by_hand(spec, "words"), tokens, rescaling=rescaling)
    with torch.no_grad():
        model.norm.weight.fill_(1)
    canonical = canonicalize(model, spec, by_hand(spec, "words"), tokens, rescaling=rescaling)
    assert difference(model, canonical.state_dict(), tokens) < 1e-12


def test_a_gain_of_zero_is_refused_by_name() -> None:
    model = vit()
    with torch.no_grad():
        model.norm.weight[2] = 0
    spec, continuous, rescaling = symmetries_of_vit()
    with pytest.raises(SymmetryError, match=r"'norm.weight'.*got 1 zeros"):
        canonicalize(model, spec, continuous, images(), rescaling=rescaling)


def test_what_is_no_symmetry_is_refused_with_its_size() -> None:
    spec, continuous, rescaling = symmetries_of_vit()
    wrong = ContinuousSymmetry(
        spec["blocks/0/up"],
        "linear",
        tuple((slot, -1 if slot.axes == (1,) else 1) for slot in spec.slots_of("blocks/0/up")),
    )
    claimed = ContinuousSpec((*continuous.symmetries, wrong))
    with pytest.raises(SymmetryError, match="its output changes by"):
        canonicalize(vit(), spec, claimed, images(), rescaling=rescaling)


class Stream(nn.Module):
    """A stream of linear maps: any invertible matrix turns it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.up, self.down = nn.Linear(5, 4), nn.Linear(4, 9), nn.Linear(9, 4, bias=False)
        self.head = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.down(self.up(x).relu())
        output: Tensor = self.head(x)
        return output


def test_a_linear_stream_is_balanced_and_its_first_bias_moves_on() -> None:
    torch.manual_seed(0)
    model, inputs = Stream().double(), torch.randn(6, 5).double()
    spec = discover_symmetry(model, inputs)
    signed = tuple((slot, -1 if slot.axes == (1,) else 1) for slot in spec.slots_of("stem"))
    continuous = ContinuousSpec((ContinuousSymmetry(spec["stem"], "linear", signed),))
    canonical = canonicalize(model, spec, continuous, inputs)
    assert difference(model, canonical.state_dict(), inputs) < 1e-12
    state = canonical.state_dict()
    assert not bool(state["stem.bias"].any())
    torch.testing.assert_close(state["up.bias"], model.up.bias + model.up.weight @ model.stem.bias)
    writers = torch.cat([state["stem.weight"], state["down.weight"]], 1)
    readers = torch.cat([state["up.weight"], state["head.weight"]])
    torch.testing.assert_close(writers @ writers.T, readers.T @ readers)


def test_pairs_of_rotary_units_get_one_scale_each() -> None:
    class Scores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.queries, self.keys = nn.Linear(6, 4, bias=False), nn.Linear(6, 4, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            angles = torch.outer(torch.arange(x.shape[1]), torch.tensor([1.0, 0.1])).to(x)

            def turn(units: Tensor) -> Tensor:
                first, second = units.chunk(2, -1)
                cos, sin = angles.cos(), angles.sin()
                return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)

            return (turn(self.queries(x)) @ turn(self.keys(x)).mT).softmax(-1)

    torch.manual_seed(0)
    model, inputs = Scores().double(), torch.randn(3, 5, 6).double()
    spec = discover_symmetry(model, inputs)
    group = Group("rotary", 4)
    slots = tuple(
        (Slot("rotary", f"{name}.weight", (0,), Layout(1, 4)), sign)
        for name, sign in (("queries", 1), ("keys", -1))
    )
    rotary = ContinuousSymmetry(group, "rotary", slots, pairs=((0, 2), (1, 3)))
    canonical = canonicalize(model, spec, ContinuousSpec((rotary,)), inputs)
    assert difference(model, canonical.state_dict(), inputs) < 1e-12
    for pair in ((0, 2), (1, 3)):
        ours, theirs = canonical.queries.weight[list(pair)], canonical.keys.weight[list(pair)]
        torch.testing.assert_close(ours.norm(), theirs.norm())


def test_gains_that_move_together_only_are_refused() -> None:
    spec, continuous, rescaling = symmetries_of_vit()
    first, second, *others = rescaling.of("positions")
    joined = replace(first, exponents=(*first.exponents, *second.exponents))
    together = RescalingSpec(rescaling.groups, (joined, *others))
    with pytest.raises(SymmetryError, match="move several of them together"):
        canonicalize(vit(), spec, continuous, images(), rescaling=together)


class Inverted(nn.Module):
    """A linear stream whose writers have a batch norm behind them, as inverted residuals do."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Linear(5, 4), nn.BatchNorm1d(4)
        self.up, self.down, self.norm = nn.Linear(4, 9), nn.Linear(9, 4, bias=False), nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem_norm(self.stem(x))
        x = x + self.norm(self.down(self.up(x).relu()))
        output: Tensor = self.head(x)
        return output


def test_batch_norms_of_a_linear_stream_go_into_the_layers_before_them() -> None:
    torch.manual_seed(0)
    model, inputs = Inverted().double(), torch.randn(64, 5).double()
    spread(model)
    for _ in range(3):
        model(inputs)  # statistics unlike those of a new network
    model.eval()
    spec = discover_symmetry(model, inputs)
    gains = ("stem_norm.weight", "norm.weight")
    group = next(group for group in spec.groups if group.size == 4)
    signed = tuple(
        (slot, -1 if slot.axes == (1,) else 1)
        for slot in spec.slots_of(group.name)
        if "norm" not in slot.tensor or slot.tensor.endswith(".bias")
    )
    continuous = ContinuousSpec((ContinuousSymmetry(group, "linear", signed, gains=gains),))
    canonical = canonicalize(model, spec, continuous, inputs)
    assert difference(model, canonical.state_dict(), inputs) < 1e-12
    state = canonical.state_dict()
    for name in ("stem_norm", "norm"):
        assert torch.equal(state[f"{name}.weight"], torch.ones(4).double())
        assert not bool(state[f"{name}.running_mean"].any())
    maps = random_maps(continuous, generator=torch.Generator().manual_seed(0))
    moved = transform_state(state, spec, continuous, maps, identity_permutations(spec))
    assert difference(canonical, moved, inputs) < 1e-12
    again = canonicalize(canonical, spec, continuous, inputs)
    for name, tensor in state.items():
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=0, atol=1e-12)


class Padded(nn.Module):
    """A stream of which one norm is read by a convolution over zeros beyond the ends."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm1, self.norm2 = nn.Linear(5, 4), nn.LayerNorm(4), nn.LayerNorm(4)
        self.mix, self.head = nn.Conv1d(4, 4, 3, padding=1), nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.mix(self.norm1(x).mT).mT
        output: Tensor = self.head(self.norm2(x))
        return output


def test_a_shift_whose_move_is_not_proven_stays() -> None:
    torch.manual_seed(0)
    model, inputs = spread(Padded().double()), torch.randn(3, 6, 5).double()
    spec = discover_symmetry(model, inputs)
    gains = ("norm1.weight", "norm2.weight")
    slots = tuple((slot, 1) for slot in spec.slots_of("stem") if slot.tensor not in gains)
    continuous = ContinuousSpec((ContinuousSymmetry(spec["stem"], "orthogonal", slots, True, gains),))
    canonical = canonicalize(model, spec, continuous, inputs)
    claimed = ContinuousSpec((replace(continuous.symmetries[0], shifts=("norm1.bias", "norm2.bias")),))
    with pytest.raises(SymmetryError, match=r"the shift 'norm1.bias'.* could not be moved"):
        canonicalize(model, spec, claimed, inputs)
    assert difference(model, canonical.state_dict(), inputs) < 1e-12
    assert bool((canonical.norm1.weight == 1).all())
    torch.testing.assert_close(canonical.norm1.bias, model.norm1.bias / model.norm1.weight)
    assert not bool(canonical.norm2.bias.any())
    torch.testing.assert_close(canonical.head.bias, model.head.bias + model.head.weight @ model.norm2.bias)
