"""The re-basin as a function and as a module: what it computes, and what it leaves alone."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sinkhorn_rebasin import (
    MidpointLoss,
    SinkhornRebasin,
    WeightDistance,
    discover_symmetry,
    permute_state,
    repair,
    weight_matching,
)
from sinkhorn_rebasin.errors import ArchitectureError, CheckpointError, SpecError, SymmetryError
from sinkhorn_rebasin.permutations import Group, Layout, PermutationSpec, Slot, permutation_matrix
from tests.rebasin_problems import (
    NETWORKS,
    Residual,
    TiedLayers,
    TwoInputs,
    built,
    inputs,
    mlp,
    network,
    planted,
)


def call(model: nn.Module, given: Any) -> Tensor:
    if isinstance(given, dict):
        return model(**given)
    return model(*given) if isinstance(given, tuple) else model(given)


def wide(given: Any) -> Any:
    if isinstance(given, dict):
        return {name: tensor.double() for name, tensor in given.items()}
    return tuple(tensor.double() for tensor in given) if isinstance(given, tuple) else given.double()


def leaves(given: Any) -> list[Tensor]:
    if isinstance(given, dict):
        return list(given.values())
    return list(given) if isinstance(given, tuple) else [given]


def relative(found: Tensor, expected: Tensor) -> float:
    return float(((found - expected).abs().max() / expected.abs().max()).detach())


def moved(rebasin: SinkhornRebasin) -> bool:
    """Whether the permutations change the order of any unit."""
    return any(bool((p != torch.arange(p.shape[-1])).any()) for p in rebasin.hard_permutations().values())


class TestHardFunction:
    @pytest.mark.parametrize("name", NETWORKS)
    def test_eval_computes_the_target(self, name: str) -> None:
        _, target, rebasin = built(name)
        assert moved(rebasin)
        rebasin.eval()
        for seed in range(3):
            given = inputs(name, seed)
            assert relative(rebasin(given), call(target, given)) < 1e-5
            assert relative(call(rebasin.to_model(), given), call(target, given)) < 1e-5

    @pytest.mark.parametrize("name", NETWORKS)
    def test_eval_computes_the_target_in_float64(self, name: str) -> None:
        _, target, rebasin = built(name)
        rebasin.eval().double()
        target, given = copy.deepcopy(target).double(), wide(inputs(name))
        assert relative(rebasin(given), call(target, given)) < 1e-12
        model = rebasin.to_model()
        assert {p.dtype for p in model.parameters()} == {torch.float64}
        assert relative(call(model, given), call(target, given)) < 1e-12

    def test_eval_output_carries_no_gradient_and_training_output_does(self) -> None:
        _, _, rebasin = built()
        assert not rebasin.eval()(inputs("mlp")).requires_grad
        assert rebasin.train()(inputs("mlp")).requires_grad

    @pytest.mark.parametrize("name", NETWORKS)
    def test_rebased_state_is_the_permuted_target(self, name: str) -> None:
        _, target, rebasin = built(name)
        expected = permute_state(target.state_dict(), rebasin.spec, rebasin.hard_permutations())
        found = rebasin.eval().rebased_state()
        assert list(found) == list(target.state_dict())
        assert all(torch.equal(found[key], expected[key]) for key in expected)
        soft = rebasin.train().rebased_state()
        assert any(not torch.equal(soft[key], expected[key]) for key in expected)


class TestPlainModels:
    @pytest.mark.parametrize("name", NETWORKS)
    def test_to_model_is_a_plain_network_of_the_target(self, name: str) -> None:
        reference, target = network(name, 1), network(name, 2)
        first = next(iter(target.parameters()))
        first.requires_grad_(False)
        list(target.children())[-1].eval()
        rebasin = SinkhornRebasin(reference, target, inputs(name))
        rebasin.eval()
        model = rebasin.to_model()
        assert type(model) is type(target)
        assert list(model.state_dict()) == list(target.state_dict())
        ours, theirs = dict(model.named_parameters()), dict(target.named_parameters())
        assert {k: p.requires_grad for k, p in ours.items()} == {
            k: p.requires_grad for k, p in theirs.items()
        }
        assert all(type(parameter) is nn.Parameter and parameter.is_leaf for parameter in ours.values())
        assert [m.training for m in model.modules()] == [m.training for m in target.modules()]
        assert not any(isinstance(child, SinkhornRebasin) for child in model.modules())

    def test_models_share_no_memory_with_the_rebasin(self) -> None:
        _, _, rebasin = built("residual")
        kept = {name: tensor.clone() for name, tensor in rebasin.state_dict().items()}
        for model in (rebasin.to_model(), rebasin.merge(0.3)):
            for tensor in [*model.parameters(), *model.buffers()]:
                tensor.data.fill_(7)
        assert all(torch.equal(tensor, kept[name]) for name, tensor in rebasin.state_dict().items())

    @pytest.mark.parametrize("position", [0.0, 0.3, 0.5, 1.0])
    @pytest.mark.parametrize("name", ["mlp", "residual", "tied"])
    def test_merge_is_the_weighted_mean_of_weights(self, name: str, position: float) -> None:
        reference, target, rebasin = built(name)
        moved_target = permute_state(target.state_dict(), rebasin.spec, rebasin.hard_permutations())
        merged = rebasin.merge(position).state_dict()
        for key, tensor in moved_target.items():
            if tensor.is_floating_point():
                expected = (1 - position) * tensor.double() + position * reference.state_dict()[key].double()
                torch.testing.assert_close(merged[key].double(), expected, rtol=1e-6, atol=1e-7)
            else:
                assert torch.equal(merged[key], tensor)

    @pytest.mark.parametrize("name", NETWORKS)
    def test_merge_repairs_on_request(self, name: str) -> None:
        """As the function does on plain networks, and the re-basin stays as it is."""
        reference, _, rebasin = built(name)
        data = [(inputs(name, seed), None) for seed in range(6)]
        before = copy.deepcopy(rebasin.state_dict())
        repaired, target = rebasin.merge(0.3, repair=data), rebasin.to_model()
        expected = repair(rebasin.merge(0.3), reference, target, rebasin.spec, data, at=0.3)
        assert [type(child) for child in repaired.modules()] == [type(child) for child in target.modules()]
        assert dict(repaired.named_parameters()).keys() == dict(target.named_parameters()).keys()
        torch.testing.assert_close(repaired.state_dict(), expected.state_dict())
        torch.testing.assert_close(rebasin.state_dict(), before, rtol=0, atol=0)
        states = repaired.state_dict(), rebasin.merge(0.3).state_dict()
        assert any(not torch.equal(states[0][tensor], states[1][tensor]) for tensor in states[0])

    def test_ties_are_kept(self) -> None:
        _, target, rebasin = built("tied")
        for model in (rebasin.to_model(), rebasin.merge(), rebasin.double().to_model()):
            assert model.third.weight is model.second.weight
            assert len(list(model.parameters())) == len(list(target.parameters()))


class TestSegment:
    @pytest.mark.parametrize("soft", [True, False])
    @pytest.mark.parametrize("as_tensor", [True, False])
    @pytest.mark.parametrize("name", ["mlp", "residual", "keywords", "tied"])
    def test_output_at_a_position_is_that_of_the_lerped_weights(
        self, name: str, as_tensor: bool, soft: bool
    ) -> None:
        reference, target, rebasin = built(name)
        rebasin.train(soft)
        given, position = inputs(name), 0.3
        permutations = rebasin.soft_permutations() if soft else rebasin.hard_permutations()
        start, end = permute_state(target.state_dict(), rebasin.spec, permutations), reference.state_dict()
        manual = {
            key: (1 - position) * start[key] + position * end[key]
            if start[key].is_floating_point()
            else end[key]
            for key in end
        }
        model = copy.deepcopy(reference).eval()
        model.load_state_dict(manual)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.train(soft)
        found = rebasin(given, at=torch.tensor(position) if as_tensor else position)
        assert relative(found, call(model, given)) < (1e-4 if soft else 1e-5)

    def test_a_position_given_as_tensor_gets_a_gradient(self) -> None:
        _, _, rebasin = built()
        rebasin.double()
        position = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
        given = wide(inputs("mlp"))
        rebasin(given, at=position).sum().backward()
        with torch.no_grad():
            above, below = rebasin(given, at=0.4 + 1e-6).sum(), rebasin(given, at=0.4 - 1e-6).sum()
        assert position.grad is not None
        torch.testing.assert_close(position.grad, (above - below) / 2e-6, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize("name", ["mlp", "grouped"])
    def test_the_end_is_the_reference(self, name: str, training: bool) -> None:
        reference, _, rebasin = built(name)
        rebasin.train(training)
        assert torch.equal(rebasin(inputs(name), at=1.0), call(reference, inputs(name)))
        assert torch.equal(rebasin(inputs(name), at=torch.tensor(1.0)), call(reference, inputs(name)))

    def test_the_start_is_the_rebased_target(self) -> None:
        _, _, rebasin = built()
        rebasin.eval()
        assert torch.equal(rebasin(inputs("mlp"), at=0.0), rebasin(inputs("mlp")))

    def test_complex_weights_are_mixed_too(self) -> None:
        class Spectral(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.phase = nn.Parameter(torch.randn(3, dtype=torch.complex64))
                self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

            def forward(self, x: Tensor) -> Tensor:
                return self.second(self.first((x * self.phase).real).relu())

        reference, target, x = Spectral(), Spectral(), torch.randn(5, 3)
        spec = discover_symmetry(reference, x).without()
        rebasin = SinkhornRebasin(reference, target, x, spec=spec, init="identity", check=False)
        assert torch.equal(rebasin.eval()(x, at=1.0), reference(x))

    def test_path_runs_from_rebased_target_to_reference(self) -> None:
        reference, target, rebasin = built("residual")
        path, x = rebasin.path(), inputs("residual")
        assert relative(path(x, at=0.0), target(x)) < 1e-5
        assert torch.equal(path(x, at=1.0), reference(x))

    def test_several_positions_at_once_are_an_error(self) -> None:
        _, _, rebasin = built()
        with pytest.raises(ArchitectureError, match=r"shape \(3,\)"):
            rebasin(inputs("mlp"), at=torch.rand(3))


class TestTrainingMode:
    def test_batch_norm_uses_batch_statistics_and_changes_no_buffer(self) -> None:
        _, _, rebasin = built("residual")
        x, rebasin_before = inputs("residual"), None
        rebasin.train()
        rebasin(x, at=0.5)
        rebasin_before = {name: tensor.clone() for name, tensor in rebasin.state_dict().items()}
        alone, together = rebasin(x[:2], at=0.5), rebasin(x, at=0.5)[:2]
        assert not torch.allclose(alone, together, rtol=1e-3)
        after = rebasin.state_dict()
        assert rebasin_before.keys() == after.keys()
        assert all(torch.equal(rebasin_before[k], after[k]) for k in after if "scalings" not in k)
        rebasin.eval()
        torch.testing.assert_close(rebasin(x[:2], at=0.5), rebasin(x, at=0.5)[:2], rtol=1e-4, atol=1e-5)

    def test_dropout_is_off(self) -> None:
        _, _, rebasin = built("residual", tolerance=1e-7)
        rebasin.train()
        outputs = [rebasin(inputs("residual"), at=0.5) for _ in range(3)]
        torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(outputs[0], outputs[2], rtol=1e-5, atol=1e-6)

    def test_modes_of_its_networks_are_as_they_were_after_a_run(self) -> None:
        _, _, rebasin = built("residual")
        for mode in (True, False):
            rebasin.train(mode)
            rebasin(inputs("residual"))
            assert {module.training for module in rebasin.modules()} == {mode}
        with pytest.raises(RuntimeError):
            rebasin(torch.randn(3, 99))
        assert {module.training for module in rebasin.modules()} == {False}

    def test_soft_tends_to_hard_as_the_temperature_falls(self) -> None:
        _, target, rebasin = built(tolerance=1e-12, max_iterations=10000)
        rebasin.double().train()
        x, gaps = wide(inputs("mlp")), []
        for temperature in (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001):
            rebasin.temperature.fill_(temperature)
            with torch.no_grad():
                gaps.append(float((rebasin(x) - copy.deepcopy(target).double()(x)).abs().max()))
        assert gaps[0] > 1e-2
        assert gaps[-1] < 1e-6
        assert gaps == sorted(gaps, reverse=True)

    def test_iterations_start_where_the_last_one_of_training_ended(self) -> None:
        _, _, rebasin = built(tolerance=1e-6)
        kept = {name: tensor.clone() for name, tensor in rebasin.state_dict().items()}
        rebasin.eval()
        cold = rebasin.soft_assignments()
        assert all(torch.equal(tensor, kept[name]) for name, tensor in rebasin.state_dict().items())
        rebasin.train()
        rebasin.soft_assignments()
        warm = rebasin.soft_assignments()
        assert all(warm[name].iterations < cold[name].iterations for name in warm)
        assert all(result.converged for result in warm.values())

    def test_soft_permutations_are_doubly_stochastic(self) -> None:
        _, _, rebasin = built("grouped")
        for group, matrix in rebasin.soft_permutations().items():
            matrix = matrix.detach()
            assert matrix.shape == (*rebasin.spec[group].shape, rebasin.spec[group].size)
            assert float((matrix.sum(-1) - 1).abs().max()) < 1e-4
            assert float((matrix.sum(-2) - 1).abs().max()) < 1e-4
            assert bool((matrix >= 0).all())


class TestGradient:
    @pytest.mark.parametrize("temperature", [1.0, 0.3])
    @pytest.mark.parametrize("kind", ["l2", "midpoint"])
    @pytest.mark.parametrize("name", ["mlp", "residual", "grouped"])
    def test_scores_against_finite_differences(self, name: str, kind: str, temperature: float) -> None:
        _, _, rebasin = built(name, tolerance=1e-13, max_iterations=10000)
        rebasin.double().train()
        rebasin.temperature.fill_(temperature)
        loss = WeightDistance("l2") if kind == "l2" else MidpointLoss(F.cross_entropy)
        batch = wide(inputs(name)), torch.arange(4) % 3
        loss(rebasin, batch).backward()
        generator, step = torch.Generator().manual_seed(0), 1e-5
        for scores in rebasin.scores.values():
            assert scores.grad is not None
            for _ in range(2):
                direction = torch.randn(scores.shape, generator=generator, dtype=torch.float64)
                start = scores.detach().clone()
                values = []
                for sign in (1, -1):
                    with torch.no_grad():
                        scores.copy_(start + sign * step * direction)
                        values.append(float(loss(rebasin, batch)))
                        scores.copy_(start)
                numeric = (values[0] - values[1]) / (2 * step)
                analytic = float((scores.grad * direction).sum())
                assert analytic == pytest.approx(numeric, rel=1e-5, abs=1e-9)

    def test_a_constant_added_to_rows_or_columns_changes_nothing(self) -> None:
        _, _, rebasin = built()
        MidpointLoss(F.cross_entropy)(rebasin.double(), (wide(inputs("mlp")), torch.arange(4) % 3)).backward()
        for scores in rebasin.scores.values():
            assert scores.grad is not None
            assert float(scores.grad.sum(0).abs().max()) < 1e-6 * float(scores.grad.abs().max()) + 1e-12
            assert float(scores.grad.sum(1).abs().max()) < 1e-6 * float(scores.grad.abs().max()) + 1e-12

    def test_only_scores_are_parameters_and_only_they_get_gradients(self) -> None:
        _, _, rebasin = built("residual")
        assert [name for name, _ in rebasin.named_parameters()] == [
            f"scores.{group.name}" for group in rebasin.spec.groups
        ]
        rebasin(inputs("residual"), at=0.5).sum().backward()
        assert not any(buffer.requires_grad for buffer in rebasin.buffers())


class TestCallersAreLeftAlone:
    @pytest.mark.parametrize("name", NETWORKS)
    def test_networks_inputs_and_random_state_are_bit_identical(self, name: str) -> None:
        reference, target, given = network(name, 1), network(name, 2), inputs(name)
        next(iter(reference.parameters())).requires_grad_(False)
        call(target, given).sum().backward()
        pair = (reference, target)
        before = [copy.deepcopy(net) for net in pair]
        gradients = [None if p.grad is None else p.grad.clone() for net in pair for p in net.parameters()]
        given_before, random_before = copy.deepcopy(given), torch.get_rng_state()
        rebasin = SinkhornRebasin(reference, target, given)
        rebasin(given, at=0.5).sum().backward()
        with torch.no_grad():
            for parameter in rebasin.parameters():
                parameter.add_(1)
        rebasin.eval()
        rebasin.to_model(), rebasin.merge(), rebasin.path(), rebasin.double()
        assert torch.equal(torch.get_rng_state(), random_before)
        for net, kept in zip(pair, before, strict=True):
            for (key, one), (_, other) in zip(
                net.state_dict().items(), kept.state_dict().items(), strict=True
            ):
                assert torch.equal(one, other), key
            assert [m.training for m in net.modules()] == [m.training for m in kept.modules()]
            flags = [[p.requires_grad for p in one.parameters()] for one in (net, kept)]
            assert flags[0] == flags[1]
        for parameter, gradient in zip([p for n in pair for p in n.parameters()], gradients, strict=True):
            assert (parameter.grad is None) == (gradient is None)
            assert gradient is None or torch.equal(parameter.grad, gradient)
        assert all(torch.equal(a, b) for a, b in zip(leaves(given), leaves(given_before), strict=True))

    def test_noise_draws_from_the_generator_or_the_global_state(self) -> None:
        before = torch.get_rng_state()
        one, other = built()[2], built()[2]
        assert torch.equal(torch.get_rng_state(), before)
        assert all(torch.equal(one.scores[k], other.scores[k]) for k in one.scores)
        built(generator=None)
        assert not torch.equal(torch.get_rng_state(), before)

    def test_later_changes_of_the_callers_networks_do_not_reach_the_rebasin(self) -> None:
        reference, target, rebasin = built()
        rebasin.eval()
        before = rebasin(inputs("mlp"), at=0.5)
        with torch.no_grad():
            for parameter in [*reference.parameters(), *target.parameters()]:
                parameter.zero_()
        assert torch.equal(rebasin(inputs("mlp"), at=0.5), before)

    def test_given_scores_are_copied(self) -> None:
        scores = {"0": torch.rand(8, 8), "2": torch.rand(8, 8, requires_grad=True)}
        kept = {name: value.detach().clone() for name, value in scores.items()}
        _, _, rebasin = built(init=scores, noise=0.0)
        assert all(torch.equal(rebasin.scores[name], kept[name]) for name in kept)
        with torch.no_grad():
            for parameter in rebasin.parameters():
                parameter.zero_()
        assert all(torch.equal(scores[name], kept[name]) for name in kept)


class TestSavingAndCopying:
    @pytest.mark.parametrize("name", NETWORKS)
    def test_state_dict_round_trip_into_another_pair(self, name: str, tmp_path: Path) -> None:
        _, _, rebasin = built(name)
        rebasin.train()
        rebasin(inputs(name), at=0.5)
        rebasin.temperature.fill_(0.3)
        torch.save(rebasin.state_dict(), tmp_path / "state.pt")
        other = SinkhornRebasin(network(name, 8), network(name, 9), inputs(name))
        other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        for mode in (True, False):
            rebasin.train(mode), other.train(mode)
            assert torch.equal(other(inputs(name), at=0.5), rebasin(inputs(name), at=0.5))

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))])
    @pytest.mark.parametrize("name", NETWORKS)
    def test_copies_compute_the_same_and_are_independent(self, name: str, copied: Any) -> None:
        _, target, rebasin = built(name)
        rebasin(inputs(name), at=0.5)
        other = copied(rebasin)
        rebasin.eval(), other.eval()
        expected = rebasin(inputs(name), at=0.5)
        assert torch.equal(other(inputs(name), at=0.5), expected)
        assert relative(call(other.to_model(), inputs(name)), call(target, inputs(name))) < 1e-5
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.copy_(torch.eye(parameter.shape[-1]).expand_as(parameter))
        assert torch.equal(rebasin(inputs(name), at=0.5), expected)
        with pytest.raises(CheckpointError):
            other.load_state_dict({})

    def test_dtype_moves_everything_and_back(self) -> None:
        _, _, rebasin = built("residual")
        rebasin.to(torch.float64)
        floats = [t for t in rebasin.state_dict().values() if t.is_floating_point()]
        assert {t.dtype for t in floats} == {torch.float64}
        rebasin(inputs("residual").double(), at=0.5).sum().backward()
        rebasin.float()
        assert rebasin(inputs("residual"), at=0.5).dtype == torch.float32

    def test_extra_state_of_networks_is_carried(self) -> None:
        class Counting(nn.Linear):
            count = 3

            def get_extra_state(self) -> dict[str, int]:
                return {"count": self.count}

            def set_extra_state(self, state: dict[str, int]) -> None:
                self.count = state["count"]

        pair = [nn.Sequential(Counting(4, 6), nn.ReLU(), nn.Linear(6, 2)) for _ in range(2)]
        rebasin = SinkhornRebasin(*pair, torch.randn(3, 4))
        rebasin.load_state_dict(copy.deepcopy(rebasin).state_dict())
        assert list(rebasin.to_model().state_dict()) == list(pair[1].state_dict())

    @pytest.mark.parametrize(
        ("other", "text"),
        [
            (lambda: SinkhornRebasin(mlp(9), mlp(9), inputs("mlp")), r"shape \(8, 5\).*\(9, 5\)"),
            (lambda: SinkhornRebasin(TiedLayers(), TiedLayers(), inputs("tied")), "another network"),
        ],
    )
    def test_a_checkpoint_of_another_network_changes_nothing(self, other: Any, text: str) -> None:
        _, _, rebasin = built()
        kept = {name: tensor.clone() for name, tensor in rebasin.state_dict().items()}
        with pytest.raises(CheckpointError, match=text):
            rebasin.load_state_dict(other().state_dict())
        with pytest.raises(CheckpointError, match="another network"):
            rebasin.load_state_dict({**kept, "temperature": torch.tensor(9.0), "scores.9": torch.rand(3, 3)})
        assert all(torch.equal(tensor, kept[name]) for name, tensor in rebasin.state_dict().items())

    def test_recurrent_layers_keep_no_graph_of_their_last_run(self) -> None:
        class Recurrent(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.rnn, self.hidden, self.out = nn.RNN(3, 4), nn.Linear(4, 5), nn.Linear(5, 2)

            def forward(self, x: Tensor) -> Tensor:
                return self.out(self.hidden(self.rnn(x)[1][0]).relu())

        layouts = [("hidden.weight", (0,)), ("hidden.bias", (0,)), ("out.weight", (1,))]
        target = Recurrent()
        spec = PermutationSpec(
            (Group("hidden", 5),),
            tuple(Slot("hidden", tensor, axes, Layout(1, 5)) for tensor, axes in layouts),
            {name: tuple(p.shape) for name, p in target.named_parameters()},
        )
        x = torch.randn(6, 2, 3)
        rebasin = SinkhornRebasin(Recurrent(), target, x, spec=spec, init="identity", noise=1.0)
        state = {name: tensor.clone().requires_grad_() * 1.0 for name, tensor in target.state_dict().items()}
        used = weakref.ref(state["rnn.weight_hh_l0"])
        rebasin.run(state, x)
        del state
        gc.collect()
        assert used() is None
        other = copy.deepcopy(rebasin).eval()
        assert relative(other(x), target(x)) < 1e-5
        assert relative(other.to_model()(x), target(x)) < 1e-5


class TestStart:
    def test_weight_matching_is_the_default_start(self) -> None:
        reference, target, answer = planted()
        rebasin = SinkhornRebasin(reference, target, inputs("mlp"))
        assert all(torch.equal(rebasin.hard_permutations()[k], answer[k]) for k in answer)
        assert relative(rebasin.merge().state_dict()["2.weight"], reference.state_dict()["2.weight"]) < 1e-6

    def test_alignment_indices_matrices_and_identity(self) -> None:
        reference, target, answer = planted()
        x = inputs("mlp")
        alignment = weight_matching(reference, target, discover_symmetry(reference, x))
        matrices = {name: permutation_matrix(indices) for name, indices in answer.items()}
        for init in (alignment, answer, matrices):
            rebasin = SinkhornRebasin(reference, target, x, init=init)
            assert all(torch.equal(rebasin.hard_permutations()[k], answer[k]) for k in answer)
        identity = SinkhornRebasin(reference, target, x, init="identity")
        assert all(torch.equal(s, torch.eye(8)) for s in identity.scores.values())

    def test_scores_have_the_networks_type(self) -> None:
        wide_pair = mlp().double(), mlp().double()
        rebasin = SinkhornRebasin(*wide_pair, inputs("mlp").double())
        assert {p.dtype for p in rebasin.parameters()} == {torch.float64}
        half = SinkhornRebasin(mlp().bfloat16(), mlp().bfloat16(), inputs("mlp").bfloat16())
        assert {p.dtype for p in half.parameters()} == {torch.float32}

    def test_a_given_spec_needs_no_example_inputs(self) -> None:
        reference, target, _ = built()
        spec = discover_symmetry(reference, inputs("mlp"))
        rebasin = SinkhornRebasin(reference, target, spec=spec.without("0"))
        assert list(rebasin.scores) == ["2"]
        assert relative(rebasin.eval()(inputs("mlp")), target(inputs("mlp"))) < 1e-5


class TestOptimisation:
    def test_a_planted_permutation_is_recovered_from_a_noisy_identity(self) -> None:
        reference, target, answer = planted(width=8, seed=5)
        generator = torch.Generator().manual_seed(1)
        rebasin = SinkhornRebasin(
            reference, target, inputs("mlp"), init="identity", noise=0.1, generator=generator
        )
        assert any(not torch.equal(rebasin.hard_permutations()[k], answer[k]) for k in answer)
        optimizer, loss = torch.optim.Adam(rebasin.parameters(), lr=0.1), WeightDistance("l2")
        for step in range(150):
            rebasin.temperature.fill_(0.1 ** (step / 149))
            optimizer.zero_grad()
            loss(rebasin).backward()
            optimizer.step()
        assert all(torch.equal(rebasin.hard_permutations()[k], answer[k]) for k in answer)
        assert float(loss(rebasin.eval())) == 0.0


class TestBadInput:
    def test_the_first_parameter_that_differs_is_named(self) -> None:
        x = inputs("mlp")
        with pytest.raises(ArchitectureError, match=r"'0.weight'.*\(8, 5\) and \(9, 5\)"):
            SinkhornRebasin(mlp(8), mlp(9), x)
        with pytest.raises(ArchitectureError, match=r"only the first has '0.weight'"):
            SinkhornRebasin(mlp(), TwoInputs(), x)
        longer = nn.Sequential(*mlp(), nn.Linear(3, 3))
        with pytest.raises(ArchitectureError, match=r"only the second has '5.weight'"):
            SinkhornRebasin(mlp(), longer, x)

    def test_networks_of_different_types(self) -> None:
        with pytest.raises(ArchitectureError, match=r"'0.weight' of one type.*float32 and torch.float64"):
            SinkhornRebasin(mlp(), mlp().double(), inputs("mlp"))

    def test_networks_that_differ_in_ties(self) -> None:
        untied = TiedLayers()
        untied.third.weight = nn.Parameter(torch.randn(6, 6))
        for pair, holder in (((TiedLayers(), untied), "first"), ((untied, TiedLayers()), "second")):
            with pytest.raises(ArchitectureError, match=rf"only the {holder} ties.*'third.weight'"):
                SinkhornRebasin(*pair, inputs("tied"))

    def test_networks_that_differ_in_an_activation(self) -> None:
        other = mlp()
        other[1] = nn.GELU()
        with pytest.raises(ArchitectureError, match="weights alone"):
            SinkhornRebasin(mlp(), other, inputs("mlp"))

    def test_no_permutable_unit(self) -> None:
        with pytest.raises(ArchitectureError, match=r"permutable hidden units but Linear(.|\n)*weight\[0\]"):
            SinkhornRebasin(nn.Linear(3, 2), nn.Linear(3, 2), torch.randn(4, 3))

    def test_example_inputs_that_do_not_fit(self) -> None:
        with pytest.raises(ArchitectureError, match=r"\(4, 6\)"):
            SinkhornRebasin(mlp(), mlp(), torch.randn(4, 6))
        with pytest.raises(ArchitectureError, match="example inputs"):
            SinkhornRebasin(TwoInputs(), TwoInputs(), {"left": torch.randn(4, 3)})

    def test_neither_example_inputs_nor_spec(self) -> None:
        with pytest.raises(ArchitectureError, match="neither"):
            SinkhornRebasin(mlp(), mlp())

    def test_spec_of_another_network(self) -> None:
        spec = discover_symmetry(mlp(9), inputs("mlp"))
        with pytest.raises(SpecError, match=r"'0.weight' of shape \(9, 5\).*\(8, 5\)"):
            SinkhornRebasin(mlp(), mlp(), spec=spec)

    def test_spec_that_is_no_symmetry(self) -> None:
        spec = discover_symmetry(mlp(), inputs("mlp"))
        wrong = PermutationSpec(spec.groups, spec.slots[:1], spec.shapes)
        with pytest.raises(SymmetryError):
            SinkhornRebasin(mlp(), mlp(), inputs("mlp"), spec=wrong)

    def test_group_names_that_name_no_parameter(self) -> None:
        for name in ("a.b", "keys", ""):
            slots = [("0.weight", (0,)), ("0.bias", (0,)), ("2.weight", (1,))]
            spec = PermutationSpec(
                (Group(name, 8),),
                tuple(Slot(name, tensor, axes, Layout(1, 8)) for tensor, axes in slots),
                {key: tuple(value.shape) for key, value in mlp().state_dict().items()},
            )
            with pytest.raises(SpecError, match=f"but got '{name}'"):
                SinkhornRebasin(mlp(), mlp(), spec=spec)

    @pytest.mark.parametrize(
        ("init", "text"),
        [
            ("wieght_matching", "'wieght_matching'"),
            (None, "None"),
            ({"0": torch.eye(8)}, "none of '2'"),
            ({"0": torch.eye(8), "2": torch.eye(7)}, r"'2'.*\(7, 7\)"),
            ({"0": torch.eye(8), "2": torch.zeros(8, dtype=torch.long)}, "'2' to be a permutation"),
        ],
    )
    def test_starts_that_do_not_fit(self, init: Any, text: str) -> None:
        with pytest.raises(SpecError, match=text):
            SinkhornRebasin(mlp(), mlp(), inputs("mlp"), init=init)


def test_repr_names_groups_and_temperature() -> None:
    _, _, rebasin = built(temperature=0.25)
    assert "0: (8,)" in repr(rebasin)
    assert "; temperature=0.25" in repr(rebasin)
    assert isinstance(Residual(), nn.Module)
