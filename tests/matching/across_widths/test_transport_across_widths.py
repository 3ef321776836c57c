"""Weights carried to another width, against planted answers and a computation by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from sinkhorn_rebasin.connectivity import LinearPath
from sinkhorn_rebasin.matching import ot_fusion, ot_fusion_across_widths
from sinkhorn_rebasin.matching.across_widths.transport_plan import transport_plan
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.permutations import PermutationSpec, permute_state, random_permutations
from sinkhorn_rebasin.symmetry import discover_symmetry
from tests.matching.networks_of_any_width import FAMILIES, double_network, mlp
from tests.planted import planted_case


def duplicated(
    narrow: nn.Module, narrow_spec: PermutationSpec, wide_spec: PermutationSpec, transposed: tuple[str, ...]
) -> dict[str, Tensor]:
    """Every unit twice, what reads it halved, in a random order of the wide network."""
    theirs = {(slot.group, slot.tensor, slot.axes): slot for slot in wide_spec.slots}
    state = tensors_of(narrow)
    for name, axis in {(slot.tensor, slot.axes[0]) for slot in narrow_spec.slots}:
        length = wide_spec.shapes[name][axis]
        source, scale = torch.full((length,), -1), torch.ones(length, dtype=torch.float64)
        for slot in (slot for slot in narrow_spec.slots_on(name) if slot.axes == (axis,)):
            places = torch.from_numpy(theirs[slot.group, name, (axis,)].layout.table()[0])
            source[places] = torch.from_numpy(slot.layout.table()[0]).repeat(2, 1)
            if (axis == 0) == (name in transposed):
                scale[places] = 0.5
        # What lies between the units stays in its order.
        units = set(source.tolist())
        source[source < 0] = torch.tensor(
            [place for place in range(state[name].shape[axis]) if place not in units], dtype=torch.long
        )
        shape = [-1 if other == axis else 1 for other in range(state[name].dim())]
        state[name] = state[name].index_select(axis, source) * scale.reshape(shape)
    generator = torch.Generator().manual_seed(1)
    return permute_state(state, wide_spec, random_permutations(wide_spec, generator=generator))


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("name", FAMILIES)
def test_duplicated_units_are_merged_and_split_again_exactly(name: str) -> None:
    narrow, inputs, narrow_spec = double_network(name, 4)
    wide, _, wide_spec = double_network(name, 8)
    transposed = FAMILIES[name][2]
    twice = duplicated(narrow, narrow_spec, wide_spec, transposed)
    # The planted network is what it claims to be.
    assert torch.allclose(functional_call(wide, twice, inputs), narrow(inputs), atol=1e-12)
    merged = ot_fusion_across_widths(narrow, twice, narrow_spec, wide_spec)
    assert_equal(merged, tensors_of(narrow))
    wide.load_state_dict(twice)
    split = ot_fusion_across_widths(wide, tensors_of(narrow), wide_spec, narrow_spec)
    assert_equal(split, twice)
    by_name = ot_fusion_across_widths(
        twice, tensors_of(narrow), wide_spec, narrow_spec, transposed=transposed
    )
    assert_equal(by_name, twice)


@pytest.mark.parametrize(
    "name", ["mlp_relu", "reshape_between_conv_and_linear", "resnet_option_a", "glu", "shared_layer", "lstm"]
)
def test_between_equal_widths_it_is_the_permutation_of_ot_fusion(name: str) -> None:
    problem = planted_case(name)
    other = planted_case(name, seed=1)
    for target in (problem.target, tensors_of(other.reference)):
        expected = ot_fusion(problem.reference, target, problem.spec).apply(target)
        assert_equal(ot_fusion_across_widths(problem.reference, target, problem.spec, problem.spec), expected)


@pytest.mark.parametrize("regularization", [None, 0.2])
@pytest.mark.parametrize(("n", "m"), [(6, 10), (10, 6)])
def test_two_hidden_layers_by_hand(n: int, m: int, regularization: float | None) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        nets = [mlp(3, k, k + 1, 2).double() for k in (n, m)]
    specs = [discover_symmetry(net, torch.randn(2, 3).double()) for net in nets]
    found = ot_fusion_across_widths(*nets, *specs, regularization=regularization)
    reference, target = (tensors_of(net) for net in nets)

    def plan_of(layer: str, carried: Tensor) -> Tensor:
        ours = torch.cat([reference[f"{layer}.weight"], reference[f"{layer}.bias"][:, None]], 1)
        theirs = torch.cat([carried, target[f"{layer}.bias"][:, None]], 1)
        plan = transport_plan((ours[:, None] - theirs).norm(dim=2), regularization)
        return plan / plan.sum()

    first = plan_of("0", target["0.weight"])
    read = target["2.weight"] @ (m * first).T
    second = plan_of("2", read)
    expected = {
        "0.weight": n * first @ target["0.weight"],
        "0.bias": n * first @ target["0.bias"],
        "2.weight": (n + 1) * second @ read,
        "2.bias": (n + 1) * second @ target["2.bias"],
        "4.weight": target["4.weight"] @ ((m + 1) * second).T,
        "4.bias": target["4.bias"],
    }
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, atol=1e-3 if regularization else 1e-12), name


def test_what_is_passed_in_stays_and_the_result_can_be_averaged() -> None:
    reference, inputs, reference_spec = double_network("conv", 4)
    target, _, target_spec = double_network("conv", 6, seed=1)
    reference.half()
    target.train().half()
    before = [{k: v.clone() for k, v in net.state_dict().items()} for net in (reference, target)]
    found = ot_fusion_across_widths(reference, target, reference_spec, target_spec)
    for net, state in zip((reference, target), before, strict=True):
        assert_equal(net.state_dict(), state)
        assert all(parameter.requires_grad for parameter in net.parameters())
    assert target.training
    assert found["0.weight"].dtype == torch.float16
    middle = LinearPath(reference, found, tensors_of(reference)).state_at(0.5)
    reference.load_state_dict(middle)
    assert reference.double()(inputs).isfinite().all()


def test_variances_stay_averages_of_variances() -> None:
    reference, _, reference_spec = double_network("conv", 4)
    target, _, target_spec = double_network("conv", 6, seed=1)
    found = ot_fusion_across_widths(reference, target, reference_spec, target_spec)["1.running_var"]
    assert found.mean().item() == pytest.approx(target[1].running_var.mean().item())
    assert found.min() >= target[1].running_var.min()


def test_transposed_convolutions_in_groups_are_carried_group_by_group() -> None:
    def grouped(groups: int) -> nn.Module:
        layer = nn.ConvTranspose2d(2 * groups, groups, 2, groups=groups)
        return nn.Sequential(
            nn.Conv2d(1, 2 * groups, 1), nn.ReLU(), layer, nn.Tanh(), nn.Conv2d(groups, 2, 1)
        )

    narrow, wide = grouped(3).double(), grouped(6).double()
    inputs = torch.randn(2, 1, 4, 4).double()
    specs = [discover_symmetry(net, inputs) for net in (wide, narrow)]
    # What lies inside the groups stays where it is, so that only whole groups are carried.
    specs = [
        spec.without(*(group.name for group in spec.groups if group.parent is not None)) for spec in specs
    ]
    wide.load_state_dict(ot_fusion_across_widths(wide, narrow, *specs))
    assert torch.allclose(wide(inputs), narrow(inputs), atol=1e-12)
