"""The re-basin's outputs on the segment between the rebased target and the reference."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin import SinkhornRebasin, discover_symmetry, permute_state
from sinkhorn_rebasin.errors import ArchitectureError
from tests.rebasin.rebasin_problems import built, call, inputs, relative, wide


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

    @pytest.mark.parametrize("hard", [True, False])
    def test_given_permutations_are_the_ones_that_move_the_target(self, hard: bool) -> None:
        _, target, rebasin = built("residual")
        permutations = rebasin.permutations(hard)
        other = {name: matrix.flip(0) for name, matrix in permutations.items()}
        moved = rebasin.rebased_state(permutations=other)
        expected = permute_state(target.state_dict(), rebasin.spec, other)
        for name, tensor in rebasin.state_at(0.0, permutations=other).items():
            torch.testing.assert_close(tensor, expected[name], atol=1e-6, rtol=1e-5)
            assert torch.equal(tensor, moved[name])
        usual = rebasin.rebased_state(hard)
        assert any(not torch.equal(moved[name], usual[name]) for name in usual)

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
        rebasin = SinkhornRebasin(reference, target, x, spec=spec, start="identity", check=False)
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
