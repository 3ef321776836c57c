"""The re-basin as a function of its inputs, and the plain networks it hands out."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sinkhorn_rebasin import SinkhornRebasin, permute_state, repair
from tests.rebasin.rebasin_problems import NETWORKS, built, call, inputs, network, relative, wide


def moved(rebasin: SinkhornRebasin) -> bool:
    """Whether the permutations change the order of any unit."""
    return any(bool((p != torch.arange(p.shape[-1])).any()) for p in rebasin.hard_permutations().values())


class TestHardFunction:
    @pytest.mark.parametrize("name", NETWORKS)
    def test_eval_computes_the_target(self, name: str) -> None:
        _, target, rebasin = built(name, spec=None, check=True)
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
    @pytest.mark.filterwarnings("ignore:Expected to correct every layer")  # tied ones stay
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


def test_repr_names_groups_and_temperature() -> None:
    _, _, rebasin = built(temperature=0.25)
    assert "0: (8,)" in repr(rebasin)
    assert "; temperature=0.25" in repr(rebasin)
