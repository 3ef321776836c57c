"""Re-basins of unusual networks, refused ones, and what the check costs."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from sinkhorn_rebasin import SinkhornRebasin, WeightDistance, discover_symmetry, weight_matching
from sinkhorn_rebasin.errors import ArchitectureError, SymmetryError
from sinkhorn_rebasin.networks.nested_tensors import largest_change, tensors_in
from tests.networks.test_checked_run import run, untouched
from tests.rebasin.odd_networks import ODD, RANDOM, UNSUPPORTED, mlp, tied

HALF = ("float16", "bfloat16", "mixed types")
# deepcopy, which the witness uses, refuses these; sparse products have no symmetry that is found.
NAMES = [name for name in ODD if name not in ("pruned", "old weight norm", "sparse buffer")]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("name", NAMES)
def test_odd_networks_are_re_ordered_and_trained(name: str) -> None:
    make, make_inputs = ODD[name]
    reference, target, given = make().eval(), make().eval(), make_inputs()
    options: dict[str, Any] = {
        "start": "identity",
        "noise": 1.0,
        "generator": torch.Generator().manual_seed(0),
    }
    with untouched(reference, given), untouched(target, given):
        rebasin = SinkhornRebasin(reference, target, given, **options)
        SinkhornRebasin(reference, target, given)
        expected = run(target, given)
        outputs = tensors_in(rebasin.train()(copy.deepcopy(given), at=0.5))
        sum(out.abs().float()[out.isfinite()].sum() for out in outputs).backward()
        gradients = [p.grad for p in rebasin.parameters() if p.grad is not None]
        assert all(bool(gradient.isfinite().all()) for gradient in gradients)
        assert any(bool(gradient.any()) for gradient in gradients)
        rebasin.merge()
    tolerance = 5e-2 if name in HALF else 1e-4
    assert largest_change(expected, rebasin.eval()(copy.deepcopy(given))) < tolerance
    assert largest_change(expected, run(rebasin.to_model().eval(), given)) < tolerance
    other = SinkhornRebasin(target, reference, given, start="identity", check=False)
    other.load_state_dict(rebasin.state_dict())
    assert largest_change(expected, other.eval()(copy.deepcopy(given))) < tolerance


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_is_no_plain_network_is_told(name: str) -> None:
    make, message = UNSUPPORTED[name]
    with pytest.raises(ArchitectureError, match=message):
        SinkhornRebasin(make(), make(), torch.randn(5, 4))


def test_a_random_output_is_told() -> None:
    with pytest.raises(ArchitectureError, match="output is random"):
        SinkhornRebasin(RANDOM["noise"](), RANDOM["noise"](), torch.randn(5, 4))


def test_a_wrong_spec_is_told_with_its_group_unless_unchecked() -> None:
    reference, target, given = mlp(), mlp(), torch.randn(5, 4)
    spec = discover_symmetry(reference, given)
    wrong = replace(spec, slots=tuple(slot for slot in spec.slots if slot.tensor != "0.bias"))
    with pytest.raises(SymmetryError, match="failing groups: '0'"):
        SinkhornRebasin(reference, target, given, spec=wrong)
    SinkhornRebasin(reference, target, given, spec=wrong, check=False)


def test_what_the_check_costs() -> None:
    runs: list[int] = []
    networks = mlp(), mlp()
    for net in networks:
        net.register_forward_hook(lambda *_: runs.append(1))
    SinkhornRebasin(*networks, torch.randn(5, 4), check=False)
    discovery = len(runs)
    assert discovery == 2
    runs.clear()
    SinkhornRebasin(*networks, torch.randn(5, 4))
    assert len(runs) == discovery + 5


def test_a_tied_tensor_counts_once() -> None:
    reference, target, given = tied(), tied(), torch.randint(10, (3, 5))
    spec = discover_symmetry(reference, given)
    assert list(spec.parameters) == ["embed.weight", "inner.weight", "inner.bias"]
    rebasin = SinkhornRebasin(reference, target, given, start="identity").eval()
    parts = [(a - b).flatten() for a, b in zip(reference.parameters(), target.parameters(), strict=True)]
    assert float(WeightDistance("l2")(rebasin)) == pytest.approx(
        float(torch.cat(parts).square().mean().detach())
    )
    found = weight_matching(reference, target, spec)
    rebased = found.apply(target)
    product = sum(
        float((p.double() * rebased[name].double()).sum().detach())
        for name, p in reference.named_parameters()
    )
    assert found.objective[-1] == pytest.approx(product)
    assert type(spec).from_json(spec.to_json()) == spec


def test_networks_made_in_inference_mode_can_be_trained() -> None:
    with torch.inference_mode():
        networks: list[nn.Module] = [mlp(), mlp()]
        rebasin = SinkhornRebasin(*networks, torch.randn(5, 4))
    rebasin(torch.randn(5, 4), at=0.5).sum().backward()
    assert all(p.grad is not None for p in rebasin.parameters())
