from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import ArchitectureError, CheckpointError, LossError, SpecError
from sinkhorn_rebasin.networks.copying import standalone_copy
from tests.carrying.networks import at, convolutions, difference, farthest, mlp, tuned_from

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(1))


def random_alignment(network: nn.Module, inputs: torch.Tensor, seed: int = 3) -> sr.Alignment:
    """Permutations and, where there are any, signs and scales."""
    generator = torch.Generator().manual_seed(seed)
    spec = sr.discover_symmetry(network, inputs)
    rescaling = sr.discover_rescaling(network, spec, inputs)
    shapes = {kind: rescaling.shapes(spec, kind) for kind in ("positive", "sign")}
    return sr.Alignment(
        sr.random_permutations(spec, generator=generator),
        spec,
        signs={n: torch.randint(2, s, generator=generator) * 2.0 - 1 for n, s in shapes["sign"].items()},
        log_scales={n: 0.3 * torch.randn(s, generator=generator) for n, s in shapes["positive"].items()},
        rescaling=rescaling,
    )


@pytest.mark.parametrize("kind", ["relu", "tanh", "convolutions"])
def test_the_aligned_base_minus_the_new_base_leads_to_the_aligned_network(kind: str) -> None:
    inputs = IMAGES if kind == "convolutions" else X
    make = {"relu": mlp, "tanh": lambda seed: mlp(seed, activation=nn.Tanh), "convolutions": convolutions}[
        kind
    ]
    base, tuned = make(0), tuned_from(make(0))
    alignment = random_alignment(base, inputs)
    new_base = at(base, alignment.apply(base))
    carried = sr.carry(tuned, base, new_base, alignment, scale=1.0, example_inputs=inputs).apply(new_base)
    expected = alignment.apply(tuned)
    for name, parameter in carried.named_parameters():
        assert torch.allclose(parameter, expected[name], atol=1e-6), name
    assert torch.allclose(carried(inputs), tuned(inputs), atol=2e-5)


def test_there_and_back_is_the_update_itself() -> None:
    base, tuned, new_base = mlp(0), tuned_from(mlp(0)), mlp(1)
    alignment = random_alignment(base, X)
    there = sr.carry(tuned, base, new_base, alignment, scale=1.0, example_inputs=X)
    other = at(new_base, {n: t + there.state[n] for n, t in new_base.double().state_dict().items()})
    back = sr.carry(other, new_base, base.double(), alignment.invert(), scale=1.0, example_inputs=X.double())
    assert farthest(back.state, difference(tuned, base)) < 1e-6


def test_a_planted_copy_gets_the_permuted_update_exactly_without_an_alignment() -> None:
    base, tuned = mlp(0), tuned_from(mlp(0))
    spec = sr.discover_symmetry(base, X)
    planted = sr.random_permutations(spec, generator=torch.Generator().manual_seed(1))
    new_base = at(base, sr.permute_state(base.state_dict(), spec, planted))
    update = sr.carry(tuned, base, new_base, way=sr.carrying.ByWeights(), scale=1.0, example_inputs=X)
    assert farthest(update.state, sr.permute_state(difference(tuned, base), spec, planted)) == 0
    assert farthest(update.state, difference(tuned, base)) > 0.05


@pytest.mark.parametrize("scale", [0.0, {"*": 0.0}])
def test_scale_zero_is_the_new_base_to_the_bit(scale: object) -> None:
    base, tuned, new_base = convolutions(0), tuned_from(convolutions(0)), convolutions(1)
    applied = sr.carry(tuned, base, new_base, scale=scale, example_inputs=IMAGES).apply(new_base)
    for name, tensor in new_base.state_dict().items():
        assert torch.equal(applied.state_dict()[name], tensor), name


def test_nothing_that_is_passed_in_changes() -> None:
    networks = tuned_from(mlp(0)), mlp(0), mlp(1)
    before = [{n: t.clone() for n, t in net.state_dict().items()} for net in networks]
    state = torch.get_rng_state()
    sr.carry(*networks, example_inputs=X).apply(networks[2])
    assert torch.equal(state, torch.get_rng_state())
    for network, kept in zip(networks, before, strict=True):
        assert all(torch.equal(kept[n], t) for n, t in network.state_dict().items())


def test_scales_by_group_and_by_pattern() -> None:
    networks = tuned_from(mlp(0)), mlp(0), mlp(1)
    spec = sr.discover_symmetry(networks[1], X)
    update = sr.carry(*networks, scale={"4.*": 0.25, "0": 0.5}, example_inputs=X)
    held = {slot.tensor for slot in spec.slots_of("0")}
    assert held == {"0.weight", "0.bias", "2.weight"}
    expected = {n: 0.5 if n in held else 0.25 if n.startswith("4") else 1.0 for n in update.state}
    assert update.scales == expected
    applied = update.apply(networks[2])
    moved = networks[2][4].weight.double() + 0.25 * update.state["4.weight"]
    assert torch.equal(applied[4].weight, moved.float())
    with pytest.raises(SpecError, match="'nothing' fits none"):
        sr.carry(*networks, scale={"nothing": 1.0}, example_inputs=X)


def test_a_complex_loss_is_refused_where_it_decides_the_scale() -> None:
    base, data = mlp(0), [(X, torch.zeros(len(X)))] * 4
    with pytest.raises(LossError, match=r"real loss but got torch\.complex64"):
        sr.carry(tuned_from(base), base, mlp(1), data=data, criterion=lambda outputs, _: 1j * outputs.mean())


@pytest.mark.parametrize("scale", [math.nan, math.inf, "half", {"0.*": math.nan}])
def test_scales_that_are_no_finite_numbers_are_refused(scale: object) -> None:
    with pytest.raises(SpecError, match="finite number"):
        sr.carry(tuned_from(mlp(0)), mlp(0), mlp(1), scale=scale, example_inputs=X)


def test_a_tuned_network_of_another_architecture_is_refused_by_its_first_difference() -> None:
    with pytest.raises(
        ArchitectureError, match=r"'0.weight' has the shapes \(9, 4\) and \(8, 4\)|'2.weight'"
    ):
        sr.carry(mlp(0, 9), mlp(0), mlp(1), example_inputs=X)
    deeper = nn.Sequential(*mlp(0), nn.ReLU(), nn.Linear(3, 3))
    with pytest.raises(ArchitectureError, match=r"only the tuned network has '6.weight'"):
        sr.carry(deeper, mlp(0), mlp(1), example_inputs=X)
    with pytest.raises(ArchitectureError, match="differs by"):
        sr.carry(tuned_from(mlp(0, activation=nn.GELU)), mlp(0), mlp(1), example_inputs=X)


def test_an_update_of_zeros_is_refused() -> None:
    with pytest.raises(ArchitectureError, match="nothing to carry"):
        sr.carry(mlp(0), mlp(0), mlp(1), example_inputs=X)


def test_integers_are_refused_by_name() -> None:
    networks = [mlp(0), tuned_from(mlp(0)), mlp(1)]
    for network in networks:
        network[2].weight = nn.Parameter(network[2].weight.detach().to(torch.int8), requires_grad=False)
    with pytest.raises(ArchitectureError, match=r"'2.weight' of the tuned network is torch.int8"):
        sr.carry(networks[1], networks[0], networks[2], example_inputs=X)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_quantised_weights_are_refused_by_name() -> None:
    networks = [tuned_from(mlp(0)), mlp(0), mlp(1)]
    for network in networks[:2]:
        weight = torch.quantize_per_tensor(network[2].weight.detach(), 0.1, 0, torch.qint8)
        network[2].weight = nn.Parameter(weight, requires_grad=False)
    with pytest.raises(
        ArchitectureError, match=r"'2.weight' of the tuned network is torch.qint8: .*dequantise"
    ):
        sr.carry(*networks, example_inputs=X)


def test_an_update_that_is_not_finite_is_refused_by_name() -> None:
    tuned = tuned_from(mlp(0))
    with torch.no_grad():
        tuned[2].bias[1] = torch.nan
    with pytest.raises(ArchitectureError, match=r"finite update but '2.bias'"):
        sr.carry(tuned, mlp(0), mlp(1), example_inputs=X)


def test_a_head_of_other_labels_stays_and_is_named() -> None:
    base, new_base = mlp(0), mlp(1)
    tuned = tuned_from(base)
    tuned[4] = nn.Linear(8, 5)
    update = sr.carry(tuned, base, new_base, scale=1.0, example_inputs=X)
    applied = update.apply(new_base)
    assert torch.equal(applied[4].weight, new_base[4].weight)
    assert not torch.equal(applied[2].weight, new_base[2].weight)
    assert any("heads of other labels stay as they are: 4.weight, 4.bias" in note for note in update.notes)
    whole = tuned_from(mlp(0))
    with torch.no_grad():
        whole[0].load_state_dict(tuned[0].state_dict())
        whole[2].load_state_dict(tuned[2].state_dict())
    same = sr.carry(whole, base, new_base, scale=1.0, example_inputs=X)
    assert torch.allclose(same.state["2.weight"], update.state["2.weight"])


@pytest.mark.parametrize("way", [sr.carrying.ByWeights(), None])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_a_new_base_of_other_labels_keeps_its_head(
    activation: type[nn.Module], way: sr.carrying.Way | None
) -> None:
    base, new_base = (mlp(seed, activation=activation, labels=3 + 2 * seed) for seed in (0, 1))
    update = sr.carry(tuned_from(base), base, new_base, scale=1.0, way=way, example_inputs=X)
    applied = update.apply(new_base)
    assert torch.equal(applied[4].weight, new_base[4].weight)
    assert not torch.equal(applied[2].weight, new_base[2].weight)
    assert any("heads of other labels stay as they are: 4.weight, 4.bias" in note for note in update.notes)


def test_running_statistics_are_kept_without_data_and_that_is_said() -> None:
    base, new_base = convolutions(0), convolutions(1)
    tuned = tuned_from(base)
    tuned[1].running_mean += 1.0
    update = sr.carry(tuned, base, new_base, scale=1.0, example_inputs=IMAGES)
    assert torch.equal(update.apply(new_base)[1].running_mean, new_base[1].running_mean)
    assert any("kept as the new base has them: 1.running_mean" in note for note in update.notes)


def test_widths_that_differ_are_padded() -> None:
    base, wide = mlp(0, 5), mlp(1, 9)
    way = sr.carrying.ByWeights()
    update = sr.carry(tuned_from(base), base, wide, way=way, scale=1.0, example_inputs=X)
    assert update.state["2.weight"].shape == (9, 9)
    assert int(update.state["2.weight"].count_nonzero()) == 25
    update.apply(wide)


def test_several_updates_are_summed() -> None:
    base, new_base = mlp(0), mlp(1)
    first, second = (
        sr.carry(tuned_from(base, s), base, new_base, scale=0.5, example_inputs=X) for s in (1, 2)
    )
    both = sr.carry_many([first, second], [1.0, 2.0])
    expected = {n: 0.5 * first.state[n] + second.state[n] for n in first.state}
    assert farthest(both.state, expected) < 1e-12
    with pytest.raises(ArchitectureError, match="two bases"):
        sr.carry_many([first, sr.carry(tuned_from(base), base, mlp(2), scale=0.5, example_inputs=X)])


def test_a_file_gives_the_update_back(tmp_path: Path) -> None:
    networks = tuned_from(mlp(0)), mlp(0), mlp(1)
    update = sr.carry(*networks, scale={"4.*": 0.25}, example_inputs=X)
    update.save(file := tmp_path / "update.safetensors")
    loaded = sr.CarriedUpdate.load(file)
    assert farthest(loaded.state, update.state) == 0
    assert list(loaded.state) == list(update.state)
    assert (loaded.scales, str(loaded)) == (update.scales, str(update))
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="edited, damaged"):
        sr.CarriedUpdate.load(file)


def test_another_new_base_is_refused_by_its_first_tensor() -> None:
    update = sr.carry(tuned_from(mlp(0)), mlp(0), mlp(1), example_inputs=X)
    with pytest.raises(ArchitectureError, match=r"new base of this update .* '0.weight'"):
        update.apply(mlp(2))


def test_the_table_compares_with_the_new_bases_own_fine_tune() -> None:
    base, new_base = mlp(0), mlp(1)
    update = sr.carry(tuned_from(base), base, new_base, scale=1.0, example_inputs=X)
    own = update.apply(new_base, 0.5)
    assert all(value == pytest.approx(1.0, abs=1e-4) for value in update.cosines(own, new_base).values())
    assert update.table(own, new_base).splitlines()[0].split() == ["layer", "norm", "scale", "cosine"]
    flat = torch.cat([update.state["0.weight"].flatten(), update.state["0.bias"]])
    assert update.norms()["0"] == pytest.approx(float(flat.norm()))


def test_tied_tensors_stay_one() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 6, bias=False), nn.Linear(4, 6, bias=False)
            self.last.weight = self.first.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.first(x)) @ self.last.weight

    base = Tied().eval()
    tuned = tuned_from(base)
    spec = sr.discover_symmetry(base, X)
    planted = sr.random_permutations(spec, generator=torch.Generator().manual_seed(1))
    new_base = standalone_copy(base)
    new_base.load_state_dict(sr.permute_state(base.state_dict(), spec, planted))
    applied = sr.carry(tuned, base, new_base, scale=1.0, example_inputs=X).apply(new_base)
    assert applied.first.weight is applied.last.weight
    assert torch.allclose(applied(X), tuned(X), atol=1e-5)


class WithLogits(nn.Module):
    """Return logits in a dict, as networks of Hugging Face do."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.inner = mlp(seed)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the logits."""
        return {"logits": self.inner(x)}


@pytest.mark.parametrize("criterion", [nn.functional.cross_entropy, None])
@pytest.mark.parametrize("way", ["learned", "functional"])
def test_logits_in_a_dict_are_followed_and_given_to_criteria_of_pytorch(way: str, criterion: Any) -> None:
    base, new_base = WithLogits(0), WithLogits(1)
    labelled = [(X, torch.tensor([0, 1, 2, 0, 1, 2]))] * 4
    ways = {"learned": sr.carrying.Learned(steps=2, evaluate_every=1), "functional": sr.carrying.Functional()}
    update = sr.carry(
        *(tuned_from(base), base, new_base),
        way=ways[way],
        data=labelled,
        validation=labelled,
        criterion=criterion,
    )
    assert all(math.isfinite(norm) for norm in update.norms().values())
