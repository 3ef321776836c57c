"""Every public result shows itself in a few lines, also of large networks."""

from __future__ import annotations

import dataclasses
import functools
import html
import inspect
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.permutations.continuous import ContinuousSymmetry

LONGEST = 600
DEPTH, WIDTH = 24, 32


@functools.cache
def networks() -> tuple[nn.Module, nn.Module]:
    """Two networks with two dozen hidden layers of long names and batch norm."""

    def make() -> nn.Module:
        layers: list[nn.Module] = [nn.Linear(3, WIDTH)]
        for _ in range(DEPTH):
            layers += [nn.BatchNorm1d(WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)]
        net = nn.Sequential(*layers, nn.Linear(WIDTH, 2))
        for _ in range(5):
            net = nn.Sequential(net)
            net.add_module("a_path_that_is_long_for_its_length", net._modules.pop("0"))
        return net.eval()

    torch.manual_seed(0)
    return make(), make()


@functools.cache
def spec() -> sr.PermutationSpec:
    return sr.discover_symmetry(networks()[0], torch.randn(4, 3))


@functools.cache
def results() -> dict[str, Any]:
    """One result of every public class that is one, by the name of the class."""
    (first, second), x = networks(), torch.randn(8, 3)
    small = nn.Sequential(nn.Linear(3, 200), nn.ReLU(), nn.Linear(200, 2))
    data = [(x, torch.randint(2, (8,)))]
    signs = {name: -torch.ones(1, WIDTH) for name in spec().names}
    matched = sr.weight_matching(first, second, spec(), max_passes=2)
    rescaling = sr.RescalingSpec(
        tuple(spec().names),
        tuple(
            sr.permutations.rescaling.ScaleSymmetry(
                name, "sign", tuple((s, 1) for s in spec().slots_of(name))
            )
            for name in spec().names
        ),
    )
    return {
        "Alignment": dataclasses.replace(
            matched, signs=signs, rescaling=rescaling, weight_matched=tuple(spec().names), converged=False
        ),
        "PermutationSpec": spec(),
        "RescalingSpec": rescaling,
        "ContinuousSpec": sr.ContinuousSpec(
            tuple(
                ContinuousSymmetry(
                    group, "orthogonal", tuple((slot, 1) for slot in spec().slots_of(group.name))
                )
                for group in spec().groups
            ),
            dict.fromkeys(spec().names, "no turn of its units leaves the output as it is"),
        ),
        "ScaleSymmetry": rescaling.generators[0],
        "Group": spec().groups[0],
        "Slot": spec().slots[0],
        "Validity": dataclasses.replace(spec().validity, unread=tuple(spec().shapes)),
        "SinkhornResult": sr.sinkhorn(torch.randn(3, 64, 64)),
        "PathEvaluation": sr.evaluate_path((small, small), data, points=101),
        "LinearPath": sr.LinearPath.between(first, second),
        "DiagonalFisher": sr.diagonal_fisher(small, data),
        "KroneckerFisher": sr.kronecker_fisher(small, data),
        "GramMatrices": sr.gram_matrices(first, [x]),
        "FusedState": sr.FusedState(first.state_dict(), "regmean", 2, list(first.state_dict()), ["b"], ["c"]),
        "LayerFactors": next(iter(sr.kronecker_fisher(small, data).layers.values())),
        "SinkhornRebasin": sr.SinkhornRebasin(first, second, x, spec=spec()),
        "RepairAlongPath": sr.RepairAlongPath(first, second, spec(), data),
        "BatchNormReset": sr.BatchNormReset(data),
        "AlignmentResult": sr.align(small, small, example_inputs=x[:, :3]),
        "Adapter": sr.Adapter({"peft_type": "LORA"}, {"0.lora_A.weight": x}),
        "ManyAlignment": sr.ManyAlignment((matched,) * 9, (1.0, 2.0), method="merge_many"),
        "PartialMerge": sr.zipit(first, second, spec(), data=[x]),
        "CarriedUpdate": sr.carry(first, second, first, matched, example_inputs=x),
        "Comparison": sr.compare([small] * 9, small, data),
        "UnitPrior": sr.UnitPrior(sigma=0.1),
        "Recipe": sr.Recipe.transformer(seconds=60),
    }


def public_results() -> list[str]:
    """Public classes that hold what was found, not what trains, judges or draws."""
    found = [name for name in dir(sr) if inspect.isclass(getattr(sr, name))]
    dataclass = [name for name in found if dataclasses.is_dataclass(getattr(sr, name))]
    return sorted({*dataclass, "LinearPath", "SinkhornRebasin", "RepairAlongPath", "BatchNormReset"})


def test_every_public_result_has_an_example() -> None:
    assert set(public_results()) <= results().keys()


@pytest.mark.parametrize("name", [*public_results(), "FusedState", "ScaleSymmetry", "LayerFactors"])
def test_a_result_shows_itself_in_a_few_lines(name: str) -> None:
    shown = repr(results()[name])
    assert len(shown) < LONGEST, shown
    assert shown.count("\n") < 5
    assert "tensor(" not in shown
    if name not in ("BatchNormReset",):
        assert shown.startswith(name)


@pytest.mark.parametrize(
    "name", ["Alignment", "AlignmentResult", "PathEvaluation", "RescalingSpec", "SinkhornResult"]
)
def test_a_notebook_shows_a_table(name: str) -> None:
    shown = results()[name]._repr_html_()
    assert shown.startswith("<table><caption>")
    assert shown.count("<tr>") == shown.count("</tr>") > 1
    assert "tensor(" not in shown


def test_a_notebook_shows_a_spec_in_the_tables_that_are_printed() -> None:
    small = sr.discover_symmetry(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.ones(2, 3))
    for shown_spec in (small, spec()):
        shown, tables = shown_spec._repr_html_(), shown_spec._repr_markdown_().split("\n")
        assert (
            shown.count("<table>") == shown.count("</table>") == sum("|---|" in line for line in tables) == 2
        )
        cells = [html.unescape(cell) for cell in re.findall(r"<td[^>]*>([^<]*)</td>", shown)]
        rows = [line for line in tables if line.startswith("| ") and "`" in line]
        expected = [cell.strip().strip("`") for row in rows for cell in row.strip("|").split(" | ")]
        assert cells == expected
    named = sr.PermutationSpec((sr.Group("<script>", 2),), (), {})._repr_html_()
    assert "<script>" not in named
    assert "&lt;script&gt;" in named


def test_a_notebook_shows_the_curve_of_a_path() -> None:
    path = sr.PathEvaluation(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([1.0, 5.0, 3.0]))
    shown = path._repr_html_()
    assert "barrier 3.0000" in shown
    first, middle, last = re.findall(r"points='([^']*)'", shown)[1].split()
    heights = [float(point.split(",")[1]) for point in (first, middle, last)]
    assert heights[1] < heights[2] < heights[0]  # downwards, as in every picture of the web
    infinite = sr.PathEvaluation(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([1.0, float("inf"), 3.0]))
    assert "<svg" not in infinite._repr_html_()


def test_names_in_notebooks_have_no_effect() -> None:
    group = sr.Group("<script>", 2)
    shown = sr.Alignment(
        {"<script>": torch.tensor([1, 0])}, sr.PermutationSpec((group,), (), {})
    )._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown


def test_tables_break_no_name() -> None:
    names = {part for tensor in spec().shapes for part in tensor.split(".") if not part.isdigit()}
    known = names | {
        "0",
        *re.findall(r"[a-z_]+", "{weight,bias,running_mean,running_var} torch nn modules py"),
    }
    table = str(spec()).partition("slots\n")[2].partition("\n\n")[0]
    shown = set(re.findall(r"[a-z_]+", table))
    assert "a_path_that_is_long_for_its_length" in shown
    assert shown <= known


def test_an_alignment_says_what_moved_how_and_how_well() -> None:
    net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    found = sr.discover_symmetry(net, torch.ones(2, 3))
    order = torch.tensor([1, 0, 2, 3, 4, 5, 6, 7])
    target = sr.permute_state(net.state_dict(), found, {"0": order})
    shown = repr(sr.weight_matching(net, target, found))
    assert "weight_matching" in shown
    assert "0 (8,)" in shown
    assert "2 of 8 units moved" in shown
    assert "objective" in shown
    assert "not converged" not in shown
    assert repr(sr.matching.Alignment({}, found)) == "Alignment(0 groups: ; 0 of 0 units moved)"


METHODS = ("weight_matching", "greedy_cosine", "ot_fusion", "simulated_annealing", "straight_through")


@pytest.mark.parametrize("method", [*METHODS, "activation_matching", "sinkhorn_matching"])
def test_every_method_names_itself(method: str) -> None:
    net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    x = torch.randn(8, 3)
    found = sr.discover_symmetry(net, x)
    data = [(x, torch.randint(2, (8,)))]
    options: dict[str, Any] = {
        "activation_matching": {"data": data},
        "straight_through": {"data": data, "criterion": F.cross_entropy, "epochs": 1},
        "sinkhorn_matching": {"steps": 1},
        "simulated_annealing": {"data": data, "criterion": F.cross_entropy, "steps": 1},
    }
    assert getattr(sr, method)(net, net, found, **options.get(method, {})).method == method
