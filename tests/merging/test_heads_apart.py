"""Networks of other label sets: their trunks are merged, and each keeps its head."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import ArchitectureError, RebasinWarning
from sinkhorn_rebasin.networks.separate_heads import SeparateHeads


def network(classes: int, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, classes)
    ).double()


def of_one_trunk(*classes: int) -> tuple[list[nn.Module], sr.PermutationSpec, Tensor]:
    """Networks with other numbers of classes, whose trunk is the first one's in other orders."""
    nets: list[nn.Module] = [network(count, seed) for seed, count in enumerate(classes)]
    x = torch.randn(16, 4).double()
    spec = sr.discover_symmetry(nets[0], x, ignore=["4"])
    for seed, other in enumerate(nets[1:]):
        orders = sr.random_permutations(spec, generator=torch.Generator().manual_seed(seed))
        moved = sr.permute_state(nets[0].state_dict(), spec, orders)
        other.load_state_dict({n: t for n, t in moved.items() if n[0] != "4"}, strict=False)
    return nets, spec, x


def test_a_pair_has_both_heads_behind_one_trunk() -> None:
    (first, second), spec, x = of_one_trunk(3, 5)
    rebasin = sr.SinkhornRebasin(first, second, x, spec=spec)
    both = rebasin.merge(0.4, heads="each")
    assert isinstance(both, sr.SeparateHeads)
    torch.testing.assert_close(both(x), {"reference": first(x), "target": second(x)})
    fresh = SeparateHeads({"reference": network(3, 8), "target": network(5, 9)}, ["4"])
    fresh.load_state_dict(both.state_dict())
    torch.testing.assert_close(fresh(x), both(x))


def test_the_front_door_finds_heads_of_other_sizes_and_merges_with_each() -> None:
    (first, second), _, x = of_one_trunk(3, 5)
    with pytest.warns(RebasinWarning, match=r"'4.weight', '4.bias' differ"):
        found = sr.align(first, second, example_inputs=x)
    assert "each network keeps its own 4.bias, 4.weight" in str(found)
    torch.testing.assert_close(found.merge(heads="each")(x), {"reference": first(x), "target": second(x)})


@pytest.mark.parametrize("method", ["merge_many", "universe", "frank_wolfe"])
def test_three_networks_keep_three_heads(method: Any) -> None:
    nets, spec, x = of_one_trunk(3, 5, 2)
    found = sr.match_many(nets, spec, method=method)
    merged = found.merge(nets, [0.5, 0.2, 0.3], heads="each")
    torch.testing.assert_close(merged(x), {str(number): net(x) for number, net in enumerate(nets)})
    state = found.merge(nets)
    torch.testing.assert_close(state["4.weight"], nets[0].state_dict()["4.weight"])


def test_several_are_aligned_by_data_of_the_first_ones_labels() -> None:
    nets, _, x = of_one_trunk(3, 5, 5)
    data = [(x, torch.randint(3, (16,)))] * 2
    recipe = sr.Recipe.many(steps=2, closing_steps=0)
    options: dict[str, Any] = {"train": data, "validation": data, "recipe": recipe, "rescale": False}
    found = sr.align_many(nets, ignore=["4"], trainer={"accelerator": "cpu"}, progress=False, **options)
    merged = found.merge(nets, heads="each")
    torch.testing.assert_close(merged(x), {str(number): net(x) for number, net in enumerate(nets)})


def test_equal_numbers_of_other_classes_are_kept_apart_when_told() -> None:
    nets, _, x = of_one_trunk(3, 3, 3)
    with torch.no_grad():
        nets[1][4].weight.mul_(1e6)  # type: ignore[index,operator]  # it would decide alone
    found = sr.align_many(nets, example_inputs=x, ignore=["4"], progress=False)
    merged = found.merge(nets, heads="each")
    torch.testing.assert_close(merged(x), {str(number): net(x) for number, net in enumerate(nets)})


def test_heads_that_are_not_kept_apart_are_refused_by_name() -> None:
    nets, _, x = of_one_trunk(3, 3)
    spec = sr.discover_symmetry(nets[0], x)
    with pytest.raises(ArchitectureError, match=r"heads='each', but all tensors are mixed: .*ignore="):
        sr.SinkhornRebasin(*nets, x, spec=spec).merge(heads="each")
    found = sr.match_many(nets, spec)
    with pytest.raises(ArchitectureError, match=r"heads='each', but all tensors are mixed"):
        found.merge(nets, heads="each")
    apart = sr.match_many(nets, spec.ignoring("4"))
    with pytest.raises(ArchitectureError, match="network 1 is OrderedDict"):
        apart.merge([nets[0], nets[1].state_dict()], heads="each")
    with pytest.raises(ArchitectureError, match="'each' or None but got 'both'"):
        apart.merge(nets, heads="both")  # type: ignore[call-overload]
