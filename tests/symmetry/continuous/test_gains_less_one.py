"""Norms that multiply by 1 + w: found from numbers, folded into their readers, and left at w = 0."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sinkhorn_rebasin.errors import ArchitectureError, SymmetryError
from sinkhorn_rebasin.matching.rotations.canonical_form import check_canonical
from sinkhorn_rebasin.permutations import (
    PermutationSpec,
    ScaleSymmetry,
    random_maps,
    random_permutations,
    transform_state,
)
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec
from sinkhorn_rebasin.symmetry import canonicalize, discover_continuous, discover_rescaling, discover_symmetry
from sinkhorn_rebasin.symmetry.rescaling.trials import Trials
from tests.symmetry.witness import difference


class Norm(nn.Module):
    """A layer norm or RMS norm that multiplies by a gain plus a constant."""

    def __init__(self, width: int, constant: float, shift: bool) -> None:
        super().__init__()
        self.constant = constant
        self.weight = nn.Parameter(0.3 * torch.randn(width))
        self.bias = nn.Parameter(torch.randn(width)) if shift else None

    def forward(self, x: Tensor) -> Tensor:
        if self.bias is None:
            return F.rms_norm(x, x.shape[-1:]) * (self.constant + self.weight)
        return F.layer_norm(x, x.shape[-1:], self.constant + self.weight, self.bias)


def network(constant: float = 1.0, shift: bool = False) -> nn.Sequential:
    """A residual stream with one norm whose gain is stored less a constant, and one as it is."""
    torch.manual_seed(0)
    plain = nn.LayerNorm(8) if shift else nn.RMSNorm(8)
    layers = [nn.Linear(5, 8), Norm(8, constant, shift), nn.Linear(8, 8), plain, nn.Linear(8, 5)]
    nn.init.uniform_(plain.weight, 0.5, 2.0)
    return nn.Sequential(*layers).double()


class Tied(nn.Module):
    """The columns of the embedding read what the norm makes of it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.norm, self.places = nn.Embedding(9, 6), Norm(6, 1.0, False), nn.Embedding(4, 6)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens) + self.places(torch.arange(tokens.shape[-1]))
        return F.linear(self.norm(x), self.words.weight)


INPUTS = torch.randn(4, 5, generator=torch.Generator().manual_seed(1)).double()


def found_in(model: nn.Module, inputs: Tensor = INPUTS) -> tuple[PermutationSpec, ContinuousSpec]:
    spec = discover_symmetry(model, inputs)
    return spec, discover_continuous(model, spec, inputs)


@pytest.mark.parametrize("shift", [False, True])
def test_such_a_gain_is_folded_into_its_reader(shift: bool) -> None:
    model = network(shift=shift)
    spec, continuous = found_in(model)
    first = continuous["0"]
    assert (first.less_one, first.shifts, first.gains) == (("1.weight",), ("1.weight",), ())
    assert continuous["2"].gains == ("3.weight",)
    assert continuous["2"].less_one == ()
    assert "after folding 1 + 1.weight" in str(continuous)
    assert "only where" not in str(continuous)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    twin = canonicalize(model, spec, continuous, INPUTS)
    assert difference(model, twin.state_dict(), INPUTS) < 1e-12
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    state = twin.state_dict()
    assert not state["1.weight"].any()
    if not shift:
        torch.testing.assert_close(state["2.weight"], before["2.weight"] * (1 + before["1.weight"]))
    check_canonical(state, continuous, "target")
    generator = torch.Generator().manual_seed(0)
    maps = random_maps(continuous, generator=generator)
    moved = transform_state(state, spec, continuous, maps, random_permutations(spec, generator=generator))
    assert difference(model, moved, INPUTS) < 1e-12
    again = canonicalize(twin, spec, continuous, INPUTS).state_dict()
    for name, tensor in state.items():
        torch.testing.assert_close(again[name], tensor, rtol=1e-12, atol=1e-12)


def test_the_rescalings_of_the_network_do_not_know_such_gains() -> None:
    model = network()
    spec = discover_symmetry(model, INPUTS)
    rescaling = discover_rescaling(model, spec, INPUTS, signs=False)
    named = {slot.tensor for one in rescaling.generators for slot, _ in one.exponents}
    assert "1.weight" not in named
    assert "3.weight" in named
    given = discover_continuous(model, spec, INPUTS, rescaling=rescaling)
    twin = canonicalize(model, spec, given, INPUTS, rescaling=rescaling)
    assert difference(model, twin.state_dict(), INPUTS) < 1e-12


def test_another_constant_is_not_taken_for_one() -> None:
    _, continuous = found_in(network(constant=2.0))
    assert continuous["0"].less_one == ()
    assert continuous["0"].unfoldable == ("1.weight",)


def test_a_tied_reader_cannot_take_it() -> None:
    tokens = torch.randint(9, (3, 4), generator=torch.Generator().manual_seed(0))
    model = Tied().double()
    spec, continuous = found_in(model, tokens)
    assert continuous["words"].less_one == ()
    assert continuous["words"].unfoldable == ("norm.weight",)
    with pytest.raises(SymmetryError, match=r"moves the gain 'norm\.weight'"):
        canonicalize(model, spec, continuous, tokens)


def test_what_multiplies_by_zero_is_refused_by_name() -> None:
    model = network()
    spec, continuous = found_in(model)
    model[1].weight.data[3] = -1.0  # type: ignore[index, union-attr, operator]
    with pytest.raises(SymmetryError, match=r"'1\.weight'.*1 zeros"):
        canonicalize(model, spec, continuous, INPUTS)


def test_a_network_that_was_not_folded_is_refused_where_maps_act() -> None:
    model = network()
    _, continuous = found_in(model)
    with pytest.raises(ArchitectureError, match=r"shift '1\.weight' of the target to be 0"):
        check_canonical(model.state_dict(), continuous, "target")


def test_json_keeps_them_and_reads_files_that_know_none() -> None:
    _, continuous = found_in(network())
    text = continuous.to_json()
    assert ContinuousSpec.from_json(text) == continuous
    older = ContinuousSpec.from_json(text.replace('"less_one"', '"of another time"'))
    assert older["0"].less_one == ()


def test_gains_that_no_scale_reaches_cost_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    hold = Trials.hold

    def counted(trials: Trials, generators: Sequence[ScaleSymmetry]) -> bool:
        if trials.less_one:
            tried.append(trials.less_one)
        return hold(trials, generators)

    monkeypatch.setattr(Trials, "hold", counted)
    tokens = torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7]])
    assert found_in(Tied().double(), tokens)[1]["words"].unfoldable == ("norm.weight",)
    assert not tried
    assert found_in(network())[1]["0"].less_one == ("1.weight",)
    assert tried == [frozenset(["1.weight"])]
