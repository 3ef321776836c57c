"""Re-basins that learn continuous symmetries: functions stay, gradients are right, what is saved comes back."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sinkhorn_rebasin import SinkhornRebasin
from sinkhorn_rebasin.errors import ArchitectureError, RebasinWarning, SpecError
from sinkhorn_rebasin.matching.base import Alignment
from sinkhorn_rebasin.permutations import permutation_matrix, rescale_state, transform_state
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec
from sinkhorn_rebasin.rebasin import learned_maps
from tests.rebasin.turned_problems import BUILD, WORDS, pair, raw, rebasin_of, scatter
from tests.symmetry.continuous.networks import gpt
from tests.symmetry.witness import difference, outputs_of

EVERY = pytest.mark.parametrize("name", BUILD)


@EVERY
@pytest.mark.parametrize("both_sides", [False, True])
def test_at_random_scores_and_maps_both_functions_stay(name: str, both_sides: bool) -> None:
    given, rebasin = pair(name), rebasin_of(name, both_sides=both_sides).eval()
    moved = rebasin.to_model()
    assert difference(given.target, moved.state_dict(), given.inputs) < 1e-9
    (expected,) = outputs_of(given.target, given.inputs)
    torch.testing.assert_close(rebasin(given.inputs), expected, rtol=1e-9, atol=1e-9)
    end = rebasin.merge(1.0).state_dict()
    assert difference(given.reference, end, given.inputs) < 1e-9
    names = [slot.tensor for symmetry in given.continuous.symmetries for slot, _ in symmetry.exponents]
    before, after = given.target.state_dict(), moved.state_dict()
    assert all(float((before[key] - after[key]).abs().max()) > 1e-3 for key in names if before[key].any())
    far = max(float((given.reference.state_dict()[key] - end[key]).abs().max()) for key in names)
    assert (far > 1e-3) == both_sides


@EVERY
@pytest.mark.parametrize("largest", [2, 256])
def test_maps_are_elements_of_their_groups_and_their_inverse_undoes_them(
    name: str, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learned_maps, "LARGEST_EXPONENTIAL", largest)
    rebasin = rebasin_of(name)
    maps = rebasin.maps()
    assert set(maps) == set(pair(name).continuous.names)
    for symmetry in pair(name).continuous.symmetries:
        matrix = maps[symmetry.group.name].detach()
        size = symmetry.group.size
        eye = torch.eye(size, dtype=torch.float64).expand_as(matrix)
        if symmetry.kind == "orthogonal":
            torch.testing.assert_close(matrix @ matrix.mT, eye, rtol=0, atol=1e-12)
        if symmetry.fixes_ones:
            torch.testing.assert_close(matrix.sum(-1), matrix.new_ones(matrix.shape[:-1]))
            torch.testing.assert_close(matrix.sum(-2), matrix.new_ones(matrix.shape[:-1]))
        if symmetry.kind == "rotary":
            stretch = float((as_complex(matrix, symmetry.pairs).abs() - 1).abs().max())
            assert stretch < 1e-12 if name == "normed rotary" else stretch > 0.05
        assert float((matrix - eye).abs().max()) > 0.05


def as_complex(matrix: Tensor, pairs: tuple[tuple[int, int], ...]) -> Tensor:
    """One complex number a pair, where the matrix is nothing but these."""
    whole, numbers = torch.zeros_like(matrix), []
    for first, second in pairs:
        real, imaginary = matrix[..., first, first], matrix[..., second, first]
        numbers.append(torch.complex(real, imaginary))
        whole[..., first, first] = whole[..., second, second] = real
        whole[..., second, first], whole[..., first, second] = imaginary, -imaginary
    assert torch.equal(matrix, whole)
    return torch.stack(numbers, -1)


@EVERY
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    given, rebasin = pair(name), rebasin_of(name, both_sides=True, tolerance=1e-13, temperature=2.0)
    weights = torch.randn(outputs_of(given.target, given.inputs)[0].shape, dtype=torch.float64)

    def loss() -> Tensor:
        return (weights * rebasin(given.inputs, at=0.4)).mean()

    loss().backward()
    for key, parameter in rebasin.named_parameters():
        direction = torch.randn(parameter.shape, dtype=torch.float64)
        assert parameter.grad is not None, key
        slope = float((parameter.grad * direction).sum())
        with torch.no_grad():
            values = []
            for step in (1e-5, -2e-5):
                parameter.add_(step * direction)
                values.append(float(loss()))
            parameter.add_(1e-5 * direction)
        assert slope == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4, abs=1e-8), key


@pytest.mark.parametrize("name", ["layer norm", "rotary", "mean"])
def test_a_state_is_saved_and_loaded_to_the_bit(name: str, tmp_path: Path) -> None:
    first = rebasin_of(name, 1, both_sides=True)
    second = rebasin_of(name, 2, both_sides=True, start="weight_matching")
    torch.save(first.state_dict(), tmp_path / "state.pt")
    assert not torch.equal(
        first.rebased_state(hard=True)[moving(name)], second.rebased_state(hard=True)[moving(name)]
    )
    second.load_state_dict(torch.load(tmp_path / "state.pt"))
    saved, loaded = first.state_dict(), second.state_dict()
    assert list(saved) == list(loaded)
    assert all(torch.equal(tensor, loaded[key]) for key, tensor in saved.items())
    for state in ("rebased_state", "reference_state"):
        ours, theirs = (getattr(each, state)() for each in (first, second))
        assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())


def moving(name: str) -> str:
    """A tensor that the first symmetry mixes."""
    return pair(name).continuous.symmetries[0].exponents[0][0].tensor


@EVERY
def test_the_alignment_is_the_rebased_network_saved_and_loaded_too(name: str, tmp_path: Path) -> None:
    given, rebasin = pair(name), rebasin_of(name)
    rebasin.alignment().save(tmp_path / "alignment.safetensors")
    loaded = Alignment.load(tmp_path / "alignment.safetensors")
    expected = rebasin.to_model().state_dict()
    for found in (rebasin.alignment(), loaded):
        applied = found.apply(given.target)
        for key, tensor in expected.items():
            torch.testing.assert_close(applied[key], tensor, rtol=1e-12, atol=1e-12)
    again = rebasin_of(name, None, start=loaded).alignment().apply(given.target)
    for key, tensor in expected.items():
        torch.testing.assert_close(again[key], tensor, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["layer norm", "bottleneck", "rotary"])
def test_both_sides_meet_at_the_mean_of_what_they_are_moved_to(name: str) -> None:
    given, rebasin = pair(name), rebasin_of(name, both_sides=True)
    maps, orders = rebasin.reference_maps(), {}
    for group in given.spec.groups:
        orders[group.name] = torch.arange(group.size).expand(group.shape)
    state = {key: tensor.detach() for key, tensor in given.reference.state_dict().items()}
    reference = transform_state(state, given.spec, given.continuous, maps, orders)
    target = rebasin.rebased_state(hard=True)
    merged = rebasin.merge(0.5).state_dict()
    for key in given.spec.parameters:
        torch.testing.assert_close(merged[key], ((reference[key] + target[key]) / 2).detach())
    middle = {
        key: (state[key] + rebasin.alignment().apply(given.target)[key]) / 2 for key in given.spec.parameters
    }
    one, other = copy.deepcopy(given.target), copy.deepcopy(given.target)
    one.load_state_dict({**state, **middle})
    other.load_state_dict(merged)
    assert difference(one, other.state_dict(), given.inputs) < 1e-9


@pytest.mark.parametrize("both_sides", [False, True])
def test_learning_lowers_the_loss_and_keeps_every_map_exact(both_sides: bool) -> None:
    given = pair("RMS norm")
    rebasin = rebasin_of("RMS norm", None, both_sides=both_sides, learn_permutations=None)
    assert not any(scores.requires_grad for scores in rebasin.scores.parameters())
    learned = [parameter for parameter in rebasin.parameters() if parameter.requires_grad]
    optimizer, losses = torch.optim.Adam(learned, 0.05), []
    (wanted,) = outputs_of(given.reference, given.inputs)
    for _ in range(30):
        optimizer.zero_grad()
        loss = (rebasin(given.inputs, at=0.5) - wanted).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        for maps in (rebasin.maps(), rebasin.reference_maps()):
            for turn in (
                matrix for key, matrix in maps.items() if given.continuous[key].kind == "orthogonal"
            ):
                eye = torch.eye(turn.shape[-1], dtype=torch.float64)
                torch.testing.assert_close(turn @ turn.mT, eye, rtol=0, atol=1e-12)
    assert losses[-1] < 0.7 * losses[0]
    assert difference(given.target, rebasin.to_model().state_dict(), given.inputs) < 1e-9


def test_soft_permutations_act_beside_maps() -> None:
    given, rebasin = pair("RMS norm"), rebasin_of("RMS norm")
    soft = {key: matrix.detach() for key, matrix in rebasin.train().soft_permutations().items()}
    assert set(soft) == set(given.spec.names) - set(given.continuous.names)
    maps = {key: matrix.detach() for key, matrix in rebasin.maps().items()}
    orders = {**soft, **{key: permutation_matrix(torch.arange(8)) for key in given.spec.names if key in maps}}
    state = {key: tensor.detach() for key, tensor in given.target.state_dict().items()}
    expected = transform_state(state, given.spec, given.continuous, maps, orders)
    rebased = rebasin.rebased_state(permutations=soft)
    for key, tensor in expected.items():
        torch.testing.assert_close(rebased[key], tensor.to(rebased[key]))


def test_networks_in_half_precision_are_moved_in_single_and_rounded_once() -> None:
    given = pair("bottleneck")
    halves = [copy.deepcopy(each).bfloat16() for each in (given.reference, given.target)]
    rebasin = SinkhornRebasin(
        *halves, spec=given.spec, symmetry=given.continuous, start="identity", check=False
    )
    torch.nn.init.normal_(rebasin.maps.mixtures["2"], std=0.3)
    maps = {key: matrix.detach() for key, matrix in rebasin.maps().items()}
    assert {matrix.dtype for matrix in maps.values()} == {torch.float32}
    state = {key: tensor.float() for key, tensor in halves[1].state_dict().items()}
    orders = rebasin.hard_permutations()
    expected = transform_state(state, given.spec, given.continuous, maps, orders)
    for key, tensor in rebasin.to_model().state_dict().items():
        assert torch.equal(tensor, expected[key].detach().bfloat16())


def test_scales_of_hidden_units_are_learned_beside_maps() -> None:
    given = pair("bottleneck")
    rebasin = rebasin_of("bottleneck", check=True, rescale=True)
    assert set(rebasin.log_scales) == {"0"}
    assert difference(given.target, rebasin.to_model().state_dict(), given.inputs) < 1e-9
    logs = {key: value.detach() for key, value in rebasin.log_scales.items()}
    scaled = rescale_state(rebasin.target_state(), given.spec, rebasin.rescaling, logs)
    assert float((scaled["0.weight"] - rebasin.target_state()["0.weight"]).abs().max()) > 0.1


def test_full_brings_networks_as_they_are_into_canonical_form_and_changes_neither() -> None:
    reference, target, inputs = raw("bottleneck", 0), raw("bottleneck", 1), pair("bottleneck").inputs
    before = copy.deepcopy(target.state_dict())
    rebasin = SinkhornRebasin(reference, target, inputs, symmetry="full").eval()
    assert rebasin.continuous.names == ["2"]
    assert all(torch.equal(tensor, before[key]) for key, tensor in target.state_dict().items())
    assert difference(target, rebasin.to_model().state_dict(), inputs) < 1e-9
    assert difference(reference, rebasin.merge(1.0).state_dict(), inputs) < 1e-9
    first = rebasin.target_state()
    incoming = torch.cat([first["2.weight"], first["2.bias"][:, None]], 1)
    torch.testing.assert_close(incoming @ incoming.mT, first["4.weight"].mT @ first["4.weight"])


def test_full_leaves_out_the_stream_whose_gain_is_tied_and_names_it() -> None:
    network, other, inputs = gpt(), gpt(), WORDS % 7
    with pytest.warns(RebasinWarning, match=r"permutations alone for 'words'.*'norm\.weight'") as warned:
        rebasin = SinkhornRebasin(network, other, inputs, symmetry="full").eval()
    assert warned[0].filename == __file__
    assert {symmetry.kind for symmetry in rebasin.continuous.symmetries} == {"linear"}
    assert "words" in rebasin.scores
    scatter(rebasin, 1)
    assert difference(other, rebasin.to_model().state_dict(), inputs) < 1e-9


def test_what_cannot_be_asked_for_is_told() -> None:
    given = pair("layer norm")
    networks = given.reference, given.target
    with pytest.raises(SpecError, match="'permutation', 'full' or a ContinuousSpec but got 'all'"):
        SinkhornRebasin(*networks, given.inputs, spec=given.spec, symmetry="all")  # type: ignore[arg-type]
    with pytest.raises(ArchitectureError, match="Expected example inputs"):
        SinkhornRebasin(*networks, spec=given.spec, symmetry="full", check=False)
    with pytest.raises(SpecError, match=r"symmetry=alignment\.continuous"):
        SinkhornRebasin(*networks, spec=given.spec, start=rebasin_of("layer norm").alignment(), check=False)
    raws = raw("layer norm", 0), raw("layer norm", 1)
    with pytest.raises(ArchitectureError, match=r"gain 'blocks\.0\.norm1\.weight' of the reference to be 1"):
        SinkhornRebasin(*raws, spec=given.spec, symmetry=given.continuous, start="identity", check=False)
    assert not SinkhornRebasin(*networks, spec=given.spec, symmetry=ContinuousSpec(), check=False).maps()
