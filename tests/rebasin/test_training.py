"""The re-basin while it is trained: soft permutations, batch statistics, gradients, a recovered answer."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from sinkhorn_rebasin import MidpointLoss, SinkhornRebasin, WeightDistance
from tests.rebasin.rebasin_problems import built, inputs, planted, wide


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


class TestOptimisation:
    def test_a_planted_permutation_is_recovered_from_a_noisy_identity(self) -> None:
        reference, target, answer = planted(width=8, seed=5)
        generator = torch.Generator().manual_seed(1)
        rebasin = SinkhornRebasin(
            reference, target, inputs("mlp"), start="identity", noise=0.1, generator=generator
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
