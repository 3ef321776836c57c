"""Alignments undone, and one after another: permutations, signs and maps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin.errors import ArchitectureError, SpecError
from sinkhorn_rebasin.matching import Alignment
from sinkhorn_rebasin.permutations import (
    identity_maps,
    identity_permutations,
    random_maps,
    random_permutations,
)
from sinkhorn_rebasin.rebasin import SinkhornRebasin
from sinkhorn_rebasin.symmetry import discover_rescaling, discover_symmetry
from tests.symmetry.continuous.networks import images, symmetries_of_vit, vit, vit_with_unit_gains
from tests.symmetry.witness import difference


def close(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=1e-12, atol=1e-12)


def turned(seed: int) -> Alignment:
    spec, continuous, _ = symmetries_of_vit()
    generator = torch.Generator().manual_seed(seed)
    orders = random_permutations(spec, generator=generator)
    orders["blocks/0/attention/qkv"] = torch.tensor([1, 0])
    return Alignment(orders, spec, maps=random_maps(continuous, generator=generator), continuous=continuous)


def test_maps_are_undone_and_composed_with_heads_that_move() -> None:
    state = vit_with_unit_gains().state_dict()
    first, second = turned(1), turned(2)
    close(first.invert().apply(first.apply(state)), state)
    close(second.compose(first).apply(state), second.apply(first.apply(state)))
    close(first.compose(first.invert()).apply(state), state)
    assert (second.compose(first).apply(state)["head.weight"] - state["head.weight"]).abs().max() > 0.1


def test_apply_turns_a_canonical_network_and_keeps_types() -> None:
    model = vit_with_unit_gains()
    assert difference(model, turned(1).apply(model), images()) < 1e-13
    exact = turned(1).apply(model.half().double())
    halved = turned(1).apply(model.half())
    assert halved["head.weight"].dtype == torch.float16
    torch.testing.assert_close(halved["head.weight"], exact["head.weight"].half(), rtol=0, atol=0)


def test_signs_are_undone_and_composed() -> None:
    torch.manual_seed(0)
    model, inputs = (
        nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double(),
        torch.randn(4, 3).double(),
    )
    spec = discover_symmetry(model, inputs)
    rescaling = discover_rescaling(model, spec, inputs)

    def signed(seed: int) -> Alignment:
        generator = torch.Generator().manual_seed(seed)
        orders = random_permutations(spec, generator=generator)
        signs = torch.randn(1, 5, generator=generator, dtype=torch.float64).sign()
        return Alignment(orders, spec, signs={"0": signs}, rescaling=rescaling)

    first, second = signed(1), signed(2)
    plain = Alignment(random_permutations(spec), spec)
    state = model.state_dict()
    assert difference(model, first.apply(state), inputs) < 1e-14
    close(first.invert().apply(first.apply(state)), state)
    close(second.compose(first).apply(state), second.apply(first.apply(state)))
    close(plain.compose(first).apply(state), plain.apply(first.apply(state)))
    close(first.compose(plain).apply(state), first.apply(plain.apply(state)))


def test_it_shows_its_maps() -> None:
    shown = repr(turned(1))
    assert "maps of positions (8, 8) orthogonal, " in shown


def test_alignments_of_other_symmetries_do_not_compose() -> None:
    alignment = turned(1)
    with pytest.raises(SpecError, match="maps in one alone"):
        alignment.compose(Alignment(alignment.permutations, alignment.spec))
    with pytest.raises(SpecError, match="two specs"):
        alignment.compose(
            Alignment({}, alignment.spec.without("blocks/0/up"), continuous=alignment.continuous)
        )


def scaled() -> tuple[nn.Module, SinkhornRebasin, Tensor]:
    """A re-basin whose scales and order are far from its target's."""
    torch.manual_seed(3)
    first, second = (
        nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).double()
        for _ in range(2)
    )
    x = torch.randn(9, 4, dtype=torch.float64)
    rebasin = SinkhornRebasin(first, second, x, rescale=True, start="identity", noise=2.0).eval()
    with torch.no_grad():
        for scale in rebasin.log_scales.values():
            scale.normal_()
    return second, rebasin, x


def test_an_alignment_carries_scales() -> None:
    target, rebasin, x = scaled()
    alignment = rebasin.alignment()
    state, rebased = alignment.apply(target), rebasin.rebased_state()
    assert all(torch.equal(state[name], rebased[name]) for name in rebased)
    assert not torch.allclose(state["0.bias"].sort().values, target[0].bias.sort().values)
    torch.testing.assert_close(torch.func.functional_call(target, state, x), target(x))


def test_scales_are_undone_and_follow_one_another(tmp_path: Path) -> None:
    target, rebasin, _ = scaled()
    alignment = rebasin.alignment()
    once = alignment.apply(target)
    for name, tensor in alignment.invert().apply(once).items():
        torch.testing.assert_close(tensor, target.state_dict()[name])
    twice = alignment.compose(alignment).apply(target)
    for name, tensor in alignment.apply(once).items():
        torch.testing.assert_close(twice[name], tensor)
    alignment.save(tmp_path / "scaled.safetensors")
    for name, tensor in Alignment.load(tmp_path / "scaled.safetensors").apply(target).items():
        assert torch.equal(tensor, once[name])


def test_a_rebasin_starts_from_scales() -> None:
    target, rebasin, x = scaled()
    alignment = rebasin.alignment()
    again = SinkhornRebasin(target, target, x, rescale=alignment.rescaling, start=alignment).eval()
    assert all(torch.equal(again.rebased_state()[n], t) for n, t in rebasin.rebased_state().items())


def test_maps_refuse_a_network_with_gains() -> None:
    target = vit()
    spec, continuous, _ = symmetries_of_vit()
    alignment = Alignment(
        identity_permutations(spec), spec, maps=identity_maps(continuous), continuous=continuous
    )
    with pytest.raises(ArchitectureError, match=r"'blocks.0.norm1.weight' of the target .* canonicalize"):
        alignment.apply(target)
