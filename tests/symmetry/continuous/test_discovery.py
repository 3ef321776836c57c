"""What discovery of continuous symmetries says, refuses and leaves alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from experiments.models.transformer import GPT, ViT
from sinkhorn_rebasin import discover_continuous, discover_symmetry, identity_permutations, verify_continuous
from sinkhorn_rebasin.errors import ArchitectureError, SpecError, SymmetryError
from sinkhorn_rebasin.permutations import PermutationSpec
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec, ContinuousSymmetry, transform_state
from sinkhorn_rebasin.permutations.random_maps import random_maps
from sinkhorn_rebasin.symmetry.continuous import search
from tests.symmetry.continuous.small_networks import Attention, Block, Experts, Language, perceptron

WORDS = torch.tensor([[0, 1, 2, 3, 4], [5, 6, 7, 8, 0]])


def vit() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return ViT(size=8, patch=4, width=8, depth=1, heads=2, hidden=12), torch.randn(2, 3, 8, 8)


def bottleneck() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return perceptron(nn.ReLU(), nn.Identity(), nn.GELU()), torch.randn(4, 5)


def found_in(model: nn.Module, inputs: Tensor) -> tuple[PermutationSpec, ContinuousSpec]:
    spec = discover_symmetry(model, inputs)
    return spec, discover_continuous(model, spec, inputs)


def test_gains_shifts_and_centered_slots_of_a_layer_norm_stream() -> None:
    stream = found_in(*vit())[1]["positions"]
    assert stream.gains == ("blocks.0.norm1.weight", "blocks.0.norm2.weight", "norm.weight")
    assert stream.shifts == stream.unfoldable == ()
    turning = {slot.tensor for slot, _ in stream.exponents}
    assert {"blocks.0.norm1.bias", "blocks.0.norm2.bias", "norm.bias", "positions"} <= turning
    assert not turning & set(stream.gains)
    assert [slot.tensor for slot in stream.centered] == [
        "positions",
        "patches.weight",
        "patches.bias",
        "blocks.0.attention.out.weight",
        "blocks.0.attention.out.bias",
        "blocks.0.down.weight",
        "blocks.0.down.bias",
    ]


def test_a_turned_network_computes_the_same() -> None:
    model, inputs = vit()
    spec, continuous = found_in(model, inputs)
    model, inputs = model.double(), inputs.double()
    for name in continuous["positions"].gains:
        nn.init.ones_(model.get_parameter(name))
    generator = torch.Generator().manual_seed(3)
    maps = random_maps(continuous, generator=generator)
    others = identity_permutations(spec)
    state = transform_state(model.state_dict(), spec, continuous, maps, others)
    turned = torch.func.functional_call(model, dict(state), inputs)
    torch.testing.assert_close(turned, model(inputs), rtol=1e-12, atol=1e-12)
    assert float((state["positions"] - model.positions).detach().abs().max()) > 0.01


def test_queries_and_keys_of_one_tensor_have_opposite_signs() -> None:
    inner = found_in(*vit())[1]["blocks/0/attention/qkv#2"]
    signs = {(slot.tensor[-4:], slot.layout.offset): sign for slot, sign in inner.exponents}
    assert signs[("ight", 0)] == -signs[("ight", 8)] == signs[("bias", 0)] == -signs[("bias", 8)]


def test_a_gain_whose_reader_is_tied_is_named() -> None:
    torch.manual_seed(0)
    _, continuous = found_in(GPT(9, context=5, width=8, depth=1, heads=2, hidden=12), WORDS)
    assert continuous["words"].unfoldable == ("norm.weight",)
    assert set(continuous["words"].gains) == {"blocks.0.norm1.weight", "blocks.0.norm2.weight", "norm.weight"}
    assert "no rescaling takes norm.weight into its readers" in continuous.reasons["words"]
    assert "only where gains that cannot be folded are one: norm.weight" in str(continuous)


def test_rotary_pairs_are_those_of_the_frequencies() -> None:
    torch.manual_seed(0)
    _, continuous = found_in(Language(Block(Attention(rotary=True), nn.RMSNorm)), WORDS)
    (rotary,) = (one for one in continuous.symmetries if one.kind == "rotary")
    assert rotary.pairs == ((0, 2), (1, 3))
    assert [(slot.tensor.split(".")[-2], sign) for slot, sign in rotary.exponents] == [
        ("query", 1),
        ("key", -1),
    ]


def test_words_say_why_a_group_is_not_larger() -> None:
    model, inputs = bottleneck()
    text = str(found_in(model, inputs)[1])
    assert "2 (linear): 2.weight[0] +1, 2.bias[0] +1, 4.weight[1] -1" in text.splitlines()
    assert "no turn of its units leaves the output as it is: permutation" in text
    assert str(ContinuousSpec()) == "no continuous symmetries"


def test_json_gives_back_what_was_found() -> None:
    for model, inputs in (vit(), bottleneck()):
        continuous = found_in(model, inputs)[1]
        assert ContinuousSpec.from_json(continuous.to_json()) == continuous


@pytest.mark.parametrize(
    ("old", "new"),
    [('"linear"', '"affine"'), ('"signs"', '"marks"'), ('"size": 8', '"size": "8"'), ("{", "")],
)
def test_json_that_is_none_is_refused(old: str, new: str) -> None:
    text = found_in(*bottleneck())[1].to_json()
    assert old in text
    with pytest.raises(SpecError, match="Expected"):
        ContinuousSpec.from_json(text.replace(old, new, 1))


def test_a_wrong_symmetry_is_refused_by_name_with_its_size() -> None:
    model, inputs = bottleneck()
    spec, continuous = found_in(model, inputs)
    assert verify_continuous(model, spec, continuous, inputs) < 1e-12
    wrong = ContinuousSymmetry(spec["0"], "orthogonal", tuple((slot, 1) for slot in spec.slots_of("0")))
    with pytest.raises(
        SymmetryError, match=r"relative change of .*failing groups: '0' \(.*e[-+]\d+\)"
    ) as caught:
        verify_continuous(
            model, spec, replace(continuous, symmetries=(*continuous.symmetries, wrong)), inputs
        )
    assert list(caught.value.groups) == ["0"]


def test_signs_that_are_wrong_are_refused() -> None:
    model, inputs = bottleneck()
    spec, continuous = found_in(model, inputs)
    flipped = replace(continuous["2"], exponents=tuple((slot, 1) for slot, _ in continuous["2"].exponents))
    with pytest.raises(SymmetryError, match="'2'"):
        verify_continuous(model, spec, ContinuousSpec((flipped,)), inputs)


def test_nothing_of_the_caller_changes() -> None:
    model, inputs = vit()
    model.train()
    model.get_parameter("norm.weight").requires_grad_(False)
    before, example = copy.deepcopy(model), inputs.clone()
    spec = discover_symmetry(model, inputs)
    state = torch.get_rng_state()
    continuous = discover_continuous(model, spec, inputs)
    verify_continuous(model, spec, continuous, inputs)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(inputs, example)
    assert all(module.training for module in model.modules())
    for (name, one), other in zip(model.named_parameters(), before.parameters(), strict=True):
        assert torch.equal(one, other), name
        assert one.requires_grad == other.requires_grad
        assert one.grad is None
    assert continuous == discover_continuous(before.eval(), spec, inputs)


def test_half_precision_is_proven_in_double() -> None:
    model, inputs = bottleneck()
    spec = discover_symmetry(model, inputs)
    halved = copy.deepcopy(model).bfloat16()
    continuous = discover_continuous(halved, spec, inputs.bfloat16())
    assert [one.kind for one in continuous.symmetries] == ["linear"]
    assert continuous.error < 1e-9


def test_too_many_units_are_named_with_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MOST_UNITS", 7)
    continuous = found_in(*bottleneck())[1]
    assert not continuous.symmetries
    assert all("GiB" in reason for reason in continuous.reasons.values())


class Bounded(nn.Module):
    """Linear layers with bounds between them that small units never reach."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.first, self.last, self.bound = nn.Linear(5, 6), nn.Linear(6, 3), bound

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).clamp(-self.bound, self.bound))


class BoundedStream(Bounded):
    """The same after an addition, and before a norm."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x).clamp(-self.bound, self.bound)
        return self.last(nn.functional.rms_norm(hidden, (6,)))


def small_relu() -> nn.Module:
    network = perceptron(nn.ReLU(), nn.ReLU())
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=1e-3)
    return network


@pytest.mark.parametrize(
    "build",
    [lambda: Bounded(50.0), lambda: BoundedStream(50.0), small_relu],
    ids=["bound", "stream", "small"],
)
def test_what_is_linear_near_by_alone_does_not_turn(build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    assert not found_in(build(), torch.randn(4, 5))[1].symmetries


class Branching(nn.Module):
    """Reads its hidden units, and chooses by them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.one, self.other = nn.Linear(5, 6), nn.Linear(6, 4), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        return self.one(hidden) if hidden.max() > 1.0 else self.other(hidden)


def test_a_network_that_branches_on_its_data_is_left_alone() -> None:
    torch.manual_seed(0)
    spec, continuous = found_in(Branching(), torch.randn(4, 5))
    assert not continuous.symmetries
    assert spec.names
    assert all("reads numbers that differ" in continuous.reasons[name] for name in spec.names)


class OverwritesWhatItNeeds(nn.Module):
    """A network that runs, and whose derivatives were lost on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        output: Tensor = self.last(hidden) + hidden.exp().mul_(2.0).sum(-1, keepdim=True)
        return output


def test_a_network_without_derivatives_is_refused() -> None:
    model, inputs = OverwritesWhatItNeeds(), torch.randn(4, 5)
    spec = discover_symmetry(model, inputs)
    with pytest.raises(ArchitectureError, match=r"can be differentiated.*OverwritesWhatItNeeds"):
        discover_continuous(model, spec, inputs)


def mixture(experts: int, used: int, samples: int) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), Experts(experts, used), nn.RMSNorm(8), nn.Linear(8, 3))
    return model, torch.randn(samples, 5, generator=torch.Generator().manual_seed(0))


def test_a_stream_with_experts_that_few_draws_reach_turns() -> None:
    _, continuous = found_in(*mixture(3, 3, samples=8))
    stream = continuous["0"]
    assert (stream.kind, stream.fixes_ones) == ("orthogonal", False)
    turning = {slot.tensor for slot, _ in stream.exponents}
    assert {f"1.experts.{k}.{layer}.weight" for k in range(3) for layer in (0, 2)} <= turning


def test_a_stream_with_an_expert_that_nothing_reaches_says_so() -> None:
    _, continuous = found_in(*mixture(4, 3, samples=16))
    assert "0" not in continuous
    told = "'1.experts.3.0.weight', '1.experts.3.2.weight' took part in the output at no draw"
    assert told in continuous.reasons["0"]
