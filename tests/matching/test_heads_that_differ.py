"""Networks whose heads differ: the rest is aligned, and each network keeps its own head."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import ArchitectureError, RebasinWarning, SpecError


def network(classes: int, seed: int, width: int = 6) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, width), nn.ReLU(), nn.Linear(width, classes)
    return nn.Sequential(*layers).double()


def planted() -> tuple[nn.Sequential, nn.Sequential, sr.PermutationSpec, Tensor]:
    """A reference of 3 classes, and its hidden layers in another order under a head of 5 classes."""
    reference, target, x = network(3, 0), network(5, 1), torch.randn(16, 4).double()
    spec = sr.discover_symmetry(reference, x, ignore=["4"])
    orders = sr.random_permutations(spec, generator=torch.Generator().manual_seed(2))
    moved = sr.permute_state(reference.state_dict(), spec, orders)
    trunk = {name: value for name, value in moved.items() if not name.startswith("4.")}
    target.load_state_dict(trunk, strict=False)
    return reference, target, spec, x


METHODS: list[Callable[..., sr.Alignment]] = [
    sr.weight_matching,
    sr.greedy_cosine,
    sr.ot_fusion,
    sr.sinkhorn_matching,
    sr.activation_matching,
    sr.simulated_annealing,
    sr.straight_through,
]


@pytest.mark.parametrize("method", METHODS)
def test_the_rest_is_aligned_and_the_target_keeps_its_function(method: Callable[..., sr.Alignment]) -> None:
    reference, target, spec, x = planted()
    labels = torch.randint(3, (16,))
    options = {} if method in (sr.simulated_annealing,) else {"data": [(x, labels)]}
    found = method(reference, target, spec, **options)
    moved = found.apply(target)
    if method not in (sr.simulated_annealing,):
        for name in ("0.weight", "2.weight", "2.bias"):
            torch.testing.assert_close(moved[name], reference.state_dict()[name])
    torch.testing.assert_close(torch.func.functional_call(target, moved, x), target(x))
    assert moved["4.weight"].shape == (5, 6)


def test_last_layers_of_other_shapes_are_found_and_named() -> None:
    reference, target, _, x = planted()
    spec = sr.discover_symmetry(reference, x)
    with pytest.warns(RebasinWarning, match=r"'4.weight', '4.bias' differ, .*ignore=\['4'\]") as told:
        found = sr.weight_matching(reference, target, spec)
    assert told[0].filename == __file__
    assert found.spec.ignored == {"4.weight", "4.bias"}
    torch.testing.assert_close(found.apply(target)["2.weight"], reference[2].weight.detach())


def test_a_head_says_nothing_of_the_order_even_of_equal_width() -> None:
    reference, target, _, x = planted()
    same = network(3, 3)
    same.load_state_dict({n: t for n, t in target.state_dict().items() if n[0] != "4"}, strict=False)
    with torch.no_grad():
        same[4].weight.mul_(1e6)  # it would decide alone
    found = sr.weight_matching(reference, same, sr.discover_symmetry(reference, x), ignore=["4"])
    torch.testing.assert_close(found.apply(same)["2.weight"], reference[2].weight.detach())


def test_hidden_layers_of_other_shapes_are_refused_by_name() -> None:
    reference, wider, x = network(3, 0), network(3, 1, width=7), torch.randn(2, 4).double()
    spec = sr.discover_symmetry(reference, x)
    for attempt in (
        lambda: sr.weight_matching(reference, wider, spec),
        lambda: sr.SinkhornRebasin(reference, wider, x),
        lambda: sr.align(reference, wider, example_inputs=x),
    ):
        with pytest.raises(ArchitectureError, match=r"'2.weight'"):
            attempt()


def test_an_ignored_tensor_is_refused_where_a_group_holds_the_axis() -> None:
    reference, wider, x = network(3, 0), network(5, 1, width=7), torch.randn(2, 4).double()
    with pytest.raises((ArchitectureError, SpecError), match=r"'2.weight'|'4.weight'"):
        sr.weight_matching(reference, wider, sr.discover_symmetry(reference, x, ignore=["4"]))


def test_merges_have_the_head_that_is_asked_for() -> None:
    reference, target, spec, x = planted()
    rebasin = sr.SinkhornRebasin(reference, target, x, spec=spec)
    torch.testing.assert_close(rebasin.eval()(x), target(x))
    torch.testing.assert_close(rebasin.to_model()(x), target(x))
    # The hidden layers are equal once they are aligned, so a mean has the function of whoever lent the head.
    torch.testing.assert_close(rebasin.merge(0.3)(x), reference(x))
    torch.testing.assert_close(rebasin.merge(0.3, heads="target")(x), target(x))
    assert rebasin.merge(0.3)[4].out_features == 3
    assert rebasin.merge(0.3, heads="target")[4].out_features == 5
    with pytest.raises(ArchitectureError, match="'reference' or 'target' but got 'mine'"):
        rebasin.merge(0.3, heads="mine")  # type: ignore[arg-type]


def test_paths_are_refused_until_somebody_says_whose_head_they_have() -> None:
    reference, target, spec, x = planted()
    rebasin = sr.SinkhornRebasin(reference, target, x, spec=spec)
    data = {"reference": [(x, torch.randint(3, (16,)))], "target": [(x, torch.randint(5, (16,)))]}
    with pytest.raises(ArchitectureError, match=r"whose 4.bias, 4.weight .* heads='reference'"):
        sr.evaluate_path(rebasin, data["reference"])
    with pytest.raises(ArchitectureError, match=r"'4.weight' .* heads='reference'"):
        sr.evaluate_path((rebasin.to_model(), reference), data["reference"])
    for whose, network in (("reference", reference), ("target", target)):
        expected = nn.functional.cross_entropy(network(x), data[whose][0][1]).item()
        for path in (rebasin, (rebasin.to_model(), reference)):
            losses = sr.evaluate_path(path, data[whose], points=3, heads=whose).losses  # type: ignore[arg-type]
            assert losses.tolist() == pytest.approx([expected] * 3)


def test_align_keeps_heads_apart() -> None:
    reference, target, _, x = planted()
    with pytest.warns(RebasinWarning, match=r"'4.weight'"):
        result = sr.align(reference, target, example_inputs=x, rescale=False)
    torch.testing.assert_close(result.to_model()(x), target(x))
    torch.testing.assert_close(result.merge(0.5)(x), reference(x))
    assert "each network keeps its own 4.bias, 4.weight" in str(result)


@pytest.mark.parametrize("align", [sr.match_many, partial(sr.align_many, progress=False)])
def test_the_mean_of_several_has_the_head_of_the_first(align: Callable[..., sr.ManyAlignment]) -> None:
    reference, target, _, x = planted()
    spec = sr.discover_symmetry(reference, x)
    with pytest.warns(RebasinWarning, match=r"'4.weight'") as told:
        found = align([reference, target, reference], spec)
    assert told[0].filename == __file__
    merged = sr.merge_many([reference, target, reference], found)
    for name, tensor in reference.state_dict().items():
        torch.testing.assert_close(merged[name], tensor)
    torch.testing.assert_close(torch.func.functional_call(target, found[1].apply(target), x), target(x))


def test_what_is_ignored_is_saved_with_an_alignment(tmp_path: Path) -> None:
    reference, target, spec, _ = planted()
    found = sr.weight_matching(reference, target, spec)
    found.save(tmp_path / "a.safetensors")
    read = sr.Alignment.load(tmp_path / "a.safetensors")
    assert read.spec == spec
    assert read.spec.ignored == {"4.weight", "4.bias"}
    back = found.invert().apply(found.apply(target))
    assert all(torch.equal(back[name], tensor) for name, tensor in target.state_dict().items())


def test_names_that_match_nothing_are_told() -> None:
    with pytest.raises(SpecError, match=r"no tensor matches 'clasifier'"):
        sr.discover_symmetry(network(3, 0), torch.randn(2, 4).double(), ignore=["clasifier"])


def test_groups_inside_of_a_head_stay_in_order() -> None:
    x = torch.randn(2, 4).double()
    spec = sr.discover_symmetry(network(3, 0), x, ignore=["2", "4"])
    assert spec.names == ["0"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sr.verify_symmetry(network(5, 1, width=9), spec, x) < 1e-9
