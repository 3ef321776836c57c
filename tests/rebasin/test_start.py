"""How a re-basin is built: the starts it takes, and the networks, specs and starts it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from sinkhorn_rebasin import SinkhornRebasin, discover_symmetry, weight_matching
from sinkhorn_rebasin.errors import ArchitectureError, SpecError, SymmetryError
from sinkhorn_rebasin.permutations import Group, Layout, PermutationSpec, Slot, permutation_matrix
from tests.rebasin.rebasin_problems import TiedLayers, TwoInputs, built, inputs, mlp, planted, relative


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
        for start in (alignment, answer, matrices):
            rebasin = SinkhornRebasin(reference, target, x, start=start)
            assert all(torch.equal(rebasin.hard_permutations()[k], answer[k]) for k in answer)
        identity = SinkhornRebasin(reference, target, x, start="identity")
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
        ("start", "text"),
        [
            ("wieght_matching", "'wieght_matching'"),
            (None, "None"),
            ({"0": torch.eye(8)}, "none of '2'"),
            ({"0": torch.eye(8), "2": torch.eye(7)}, r"'2'.*\(7, 7\)"),
            ({"0": torch.eye(8), "2": torch.zeros(8, dtype=torch.long)}, "'2' to be a permutation"),
        ],
    )
    def test_starts_that_do_not_fit(self, start: Any, text: str) -> None:
        with pytest.raises(SpecError, match=text):
            SinkhornRebasin(mlp(), mlp(), inputs("mlp"), start=start)
