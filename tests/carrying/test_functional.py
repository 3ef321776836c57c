from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.carrying import (
    ByActivations,
    ByWeights,
    Functional,
    FunctionalSymmetry,
    LayerByLayer,
    Way,
)
from sinkhorn_rebasin.carrying.fitted_maps import fitted_map
from sinkhorn_rebasin.errors import DataError, LossError
from tests.carrying.networks import at, convolutions, difference, farthest, mlp, tuned_from

DATA = list(torch.randn(200, 4, generator=torch.Generator().manual_seed(0)).split(50))
IMAGES = list(torch.randn(24, 2, 8, 8, generator=torch.Generator().manual_seed(1)).split(8))


def planted(base: nn.Module, inputs: Tensor) -> tuple[nn.Module, sr.PermutationSpec, dict[str, Tensor]]:
    """A copy in other coordinates."""
    spec = sr.discover_symmetry(base, inputs)
    permutations = sr.random_permutations(spec, generator=torch.Generator().manual_seed(1))
    return at(base, sr.permute_state(base.state_dict(), spec, permutations)), spec, permutations


@pytest.mark.parametrize("way", [ByActivations(), FunctionalSymmetry()])
def test_a_planted_copy_gets_the_permuted_update(way: Way) -> None:
    base, tuned = mlp(0), tuned_from(mlp(0))
    new_base, spec, permutations = planted(base, DATA[0])
    update = sr.carry(tuned, base, new_base, way=way, scale=1.0, data=DATA)
    expected = sr.permute_state(difference(tuned, base), spec, permutations)
    for name, tensor in expected.items():
        assert torch.allclose(update.state[name], tensor, atol=1e-5), name


@pytest.mark.parametrize("way", [Functional(ridge=1e-10), LayerByLayer(ridge=1e-10, map_ridge=1e-10)])
@pytest.mark.parametrize("kind", ["mlp", "convolutions", "batch norm"])
def test_a_planted_copy_computes_what_the_tuned_network_does(way: Way, kind: str) -> None:
    bases = {"mlp": lambda: mlp(0, 4), "convolutions": lambda: _plain_convolutions(0)}
    base = bases.get(kind, lambda: convolutions(0))()
    data = DATA if kind == "mlp" else IMAGES
    tuned = tuned_from(base, size=0.02)
    new_base, _, _ = planted(base, data[0])
    applied = sr.carry(tuned, base, new_base, way=way, scale=1.0, data=data).apply(new_base)
    far = float((new_base(data[0]) - tuned(data[0])).detach().abs().max())
    left = float((applied(data[0]) - tuned(data[0])).detach().abs().max())
    assert left < 0.02 * far


def _plain_convolutions(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Conv2d(2, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 3, padding=1), nn.ReLU()
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)).eval()


def test_widths_may_differ_and_norms_are_carried_by_weights() -> None:
    base, wide = mlp(0, 6), mlp(1, 9)
    for way in (Functional(), Functional("procrustes"), FunctionalSymmetry(), LayerByLayer()):
        update = sr.carry(tuned_from(base), base, wide, way=way, scale=1.0, data=DATA)
        assert update.state["2.weight"].shape == (9, 9)
    networks = tuned_from(convolutions(0)), convolutions(0), convolutions(1)
    update = sr.carry(*networks, way=Functional(), scale=1.0, data=IMAGES)
    assert any("carried by weights" in note and "1.weight" in note for note in update.notes)
    by_weights = sr.carry(*networks, way=ByWeights(), scale=1.0, data=IMAGES)
    assert torch.equal(update.state["1.weight"], by_weights.state["1.weight"])
    assert not torch.allclose(update.state["0.weight"], by_weights.state["0.weight"])


def test_gains_and_shifts_of_norms_are_fitted_layer_by_layer() -> None:
    networks = tuned_from(convolutions(0)), convolutions(0), convolutions(1)
    update = sr.carry(*networks, way=LayerByLayer(ridge=1e-9), scale=1.0, data=IMAGES)
    assert not any("carried by weights" in note for note in update.notes)
    by_weights = sr.carry(*networks, way=ByWeights(), scale=1.0, data=IMAGES)
    assert not torch.allclose(update.state["4.weight"], by_weights.state["4.weight"])

    def hidden(network: nn.Module) -> Tensor:
        return network[:5](torch.cat(IMAGES[:2])).detach().double().movedim(1, -1).reshape(-1, 5)

    tuned, base, new_base = networks
    rows = [hidden(network) for network in (base, new_base)]
    wanted = rows[1] + (hidden(tuned) - rows[0]) @ fitted_map(*rows, "ridge", 0.1).T
    applied = update.apply(new_base)
    before = nn.Sequential(*applied[:4], nn.BatchNorm2d(5, affine=False))
    before[4].load_state_dict(
        {k: v for k, v in applied[4].state_dict().items() if "running" in k}, strict=False
    )
    for channel, column in enumerate(hidden(before.eval()).T):
        design = torch.stack([column, torch.ones_like(column)], 1)
        expected = torch.linalg.lstsq(design, wanted[:, channel, None]).solution.flatten()
        got = torch.stack([applied[4].weight[channel], applied[4].bias[channel]]).double()
        assert torch.allclose(got, expected, rtol=2e-2, atol=1e-3)


def test_norms_are_fitted_with_the_statistics_that_are_measured_on_the_way() -> None:
    tuned, base, new_base = tuned_from(convolutions(0)), convolutions(0), convolutions(1)
    tuned[1].running_mean += 1.0
    update = sr.carry(tuned, base, new_base, way=LayerByLayer(ridge=1e-9), scale=1.0, data=IMAGES)
    assert any("measured anew" in note for note in update.notes)
    inputs = torch.cat(IMAGES[:2])

    def rows(network: nn.Module) -> Tensor:
        return network[:2](inputs).detach().double().movedim(1, -1).reshape(-1, 6)

    outputs = [rows(network) for network in (base, new_base)]
    wanted = outputs[1] + (rows(tuned) - outputs[0]) @ fitted_map(*outputs, "ridge", 0.1).T
    missing = (wanted - rows(update.apply(new_base))).mean(0)
    assert bool((missing.abs() < 1e-3).all())


@pytest.mark.parametrize("data", [IMAGES, None])
def test_networks_with_batch_norm_are_carried_layer_by_layer(data: list[Tensor] | None) -> None:
    networks = tuned_from(convolutions(0)), convolutions(0), convolutions(1)
    update = sr.carry(*networks, scale=1.0, data=data, example_inputs=IMAGES[0])
    assert update.way == "layer by layer"
    assert any("images were drawn" in note for note in update.notes) == (data is None)


def test_ridge_maps_are_least_squares_with_a_penalty() -> None:
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.randn(40, n, generator=generator, dtype=torch.float64) for n in (3, 5))
    centred = u - u.mean(0), v - v.mean(0)
    lift = (0.2 * (centred[0].T @ centred[0]).diagonal().mean()).sqrt()
    stacked = torch.cat([centred[0], lift * torch.eye(3)]), torch.cat([centred[1], torch.zeros(3, 5)])
    expected = torch.linalg.lstsq(*stacked).solution.T
    assert torch.allclose(fitted_map(u, v, "ridge", 0.2), expected)
    turn = fitted_map(u, v, "procrustes")
    assert torch.allclose(turn.T @ turn, turn[:, 0].square().sum() * torch.eye(3, dtype=torch.float64))
    matched = fitted_map(u, torch.stack([-2 * u[:, 2], u[:, 0], 3 * u[:, 1]], 1), "permutation")
    assert torch.allclose(
        matched, torch.tensor([[0, 0, -2.0], [1, 0, 0], [0, 3, 0]], dtype=torch.float64), atol=1e-9
    )


def test_without_data_inputs_are_drawn_from_the_update_and_that_is_said() -> None:
    networks = tuned_from(mlp(0)), mlp(0), mlp(1)
    update = sr.carry(*networks, scale=1.0, example_inputs=DATA[0])
    assert update.way == "layer by layer"
    assert any("drawn from the rows of the first layer's update" in note for note in update.notes)
    again = sr.carry(*networks, scale=1.0, example_inputs=DATA[0])
    assert farthest(update.state, again.state) == 0
    assert sr.carry(*networks, example_inputs=DATA[0]).scales["0.weight"] == 0.75


def test_ways_that_need_data_say_so() -> None:
    networks = tuned_from(mlp(0)), mlp(0), mlp(1)
    with pytest.raises(DataError, match="the way 'functional \\(ridge\\)' looks at"):
        sr.carry(*networks, way=Functional(), example_inputs=DATA[0])


def test_the_scale_is_the_best_on_held_out_data() -> None:
    base, tuned = mlp(0), tuned_from(mlp(0))
    new_base, _, _ = planted(base, DATA[0])
    update = sr.carry(tuned, base, new_base, way=ByActivations(), data=DATA)
    assert set(update.judged) == {0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5}
    assert update.scales["0.weight"] == 1.0
    assert update.judged[1.0] < 1e-6
    logs = [net(DATA[-1]).log_softmax(-1) for net in (new_base, tuned)]
    expected = F.kl_div(logs[0], logs[1], reduction="batchmean", log_target=True)
    assert update.judged[0.0] == pytest.approx(float(expected.detach()), rel=1e-4)


def test_the_new_base_is_kept_where_nothing_is_better_and_that_is_said() -> None:
    base, new_base = mlp(0), mlp(1)
    labelled = [(x, new_base(x).argmax(1)) for x in DATA]

    def only_base(outputs: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(50 * outputs, labels)

    update = sr.carry(tuned_from(base, size=1.0), base, new_base, data=labelled, criterion=only_base)
    assert set(update.scales.values()) == {0.0}
    assert any("which is kept" in note for note in update.notes)
    assert torch.equal(update.apply(new_base)[0].weight, new_base[0].weight)


def test_outputs_that_cannot_be_followed_need_a_criterion() -> None:
    base, new_base = mlp(0), mlp(1)
    tuned = tuned_from(base)
    tuned[4] = nn.Linear(8, 5)
    with pytest.raises(LossError, match="pass criterion="):
        sr.carry(tuned, base, new_base, data=DATA)


def test_running_statistics_are_measured_anew_on_data() -> None:
    base, new_base = convolutions(0), convolutions(1)
    tuned = tuned_from(base)
    tuned[1].running_mean += 1.0
    update = sr.carry(tuned, base, new_base, way=ByWeights(), scale=1.0, data=IMAGES)
    applied = update.apply(new_base)
    inputs = torch.cat(IMAGES[:2])
    assert torch.allclose(applied[1].running_mean, applied[0](inputs).mean((0, 2, 3)), atol=1e-5)
    assert any("measured anew" in note for note in update.notes)
