from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from sinkhorn_rebasin.connectivity import LinearPath
from sinkhorn_rebasin.errors import ArchitectureError, SpecError
from sinkhorn_rebasin.matching import ot_fusion, ot_transport
from sinkhorn_rebasin.matching.transport_plan import transport_plan
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.permutations import PermutationSpec, permute_state, random_permutations
from sinkhorn_rebasin.symmetry import discover_symmetry
from tests.cases import noise, randomise
from tests.planted import planted_case
from tests.zoo.case import Function


def concatenated(net: Function, x: Tensor) -> Tensor:
    first, second = net.a(x).tanh(), net.b(x).relu()
    return net.c(torch.cat([first, x, second, first], 1))


def residual(net: Function, x: Tensor) -> Tensor:
    stream = net.first(x)
    stream = stream + net.out(net.inner(net.norm(stream)).relu())
    return net.last(stream)


# Networks by one width, with the inputs they take and the tensors whose outputs are on the second axis.
FAMILIES: dict[str, tuple[Callable[[int], nn.Module], Callable[[], Tensor], tuple[str, ...]]] = {
    "mlp": (
        lambda n: nn.Sequential(
            nn.Linear(5, n), nn.ReLU(), nn.Linear(n, n + n // 2), nn.Tanh(), nn.Linear(n + n // 2, 3)
        ),
        noise(7, 5),
        (),
    ),
    "conv": (
        lambda n: nn.Sequential(
            *(nn.Conv2d(2, n, 3), nn.BatchNorm2d(n), nn.ReLU(), nn.Conv2d(n, n, 3), nn.ReLU()),
            *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * n, 3)),
        ),
        noise(4, 2, 8, 8),
        (),
    ),
    "concatenated": (
        lambda n: Function(
            concatenated, a=nn.Linear(4, n), b=nn.Linear(4, n // 2), c=nn.Linear(2 * n + 4 + n // 2, 3)
        ),
        noise(6, 4),
        (),
    ),
    "residual": (
        lambda n: Function(
            residual,
            **{"first": nn.Linear(4, n), "norm": nn.LayerNorm(n), "inner": nn.Linear(n, 2 * n)},
            **{"out": nn.Linear(2 * n, n), "last": nn.Linear(n, 3)},
        ),
        noise(6, 4),
        (),
    ),
    "lstm": (lambda n: nn.Sequential(Lstm(3, n), nn.Linear(n, 2)), noise(2, 5, 3), ()),
    "transposed": (
        lambda n: nn.Sequential(
            nn.ConvTranspose2d(1, n, 3), nn.ReLU(), nn.ConvTranspose2d(n, n, 2), nn.Tanh(), nn.Conv2d(n, 2, 1)
        ),
        noise(2, 1, 4, 4),
        ("0.weight", "2.weight"),
    ),
    "depthwise": (
        lambda n: nn.Sequential(
            *(nn.Conv2d(2, n, 3), nn.ReLU(), nn.ConvTranspose2d(n, n, 2, groups=n), nn.Tanh()),
            nn.Conv2d(n, 2, 1),
        ),
        noise(2, 2, 5, 5),
        (),
    ),
    "embedding": (
        lambda n: nn.Sequential(nn.Embedding(9, n), nn.Linear(n, n), nn.ReLU(), nn.Linear(n, 3)),
        lambda: torch.arange(9),
        ("0.weight",),
    ),
}


class Lstm(nn.LSTM):
    """An LSTM that returns its outputs alone."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)[0]


def mlp(*widths: int) -> nn.Module:
    layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
    return nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))


def double_network(name: str, width: int, seed: int = 0) -> tuple[nn.Module, Tensor, PermutationSpec]:
    make, make_inputs, _ = FAMILIES[name]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model, inputs = randomise(make(width)).double().eval(), make_inputs()
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    return model, inputs, discover_symmetry(model, inputs)


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
    merged = ot_transport(narrow, twice, narrow_spec, wide_spec)
    assert_equal(merged, tensors_of(narrow))
    wide.load_state_dict(twice)
    split = ot_transport(wide, tensors_of(narrow), wide_spec, narrow_spec)
    assert_equal(split, twice)
    by_name = ot_transport(twice, tensors_of(narrow), wide_spec, narrow_spec, transposed=transposed)
    assert_equal(by_name, twice)


@pytest.mark.parametrize(
    "name", ["mlp_relu", "reshape_between_conv_and_linear", "resnet_option_a", "glu", "shared_layer", "lstm"]
)
def test_between_equal_widths_it_is_the_permutation_of_ot_fusion(name: str) -> None:
    problem = planted_case(name)
    other = planted_case(name, seed=1)
    for target in (problem.target, tensors_of(other.reference)):
        expected = ot_fusion(problem.reference, target, problem.spec).apply(target)
        assert_equal(ot_transport(problem.reference, target, problem.spec, problem.spec), expected)


@pytest.mark.parametrize("regularisation", [None, 0.2])
@pytest.mark.parametrize(("n", "m"), [(6, 10), (10, 6)])
def test_two_hidden_layers_by_hand(n: int, m: int, regularisation: float | None) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        nets = [mlp(3, k, k + 1, 2).double() for k in (n, m)]
    specs = [discover_symmetry(net, torch.randn(2, 3).double()) for net in nets]
    found = ot_transport(*nets, *specs, regularisation=regularisation)
    reference, target = (tensors_of(net) for net in nets)

    def plan_of(layer: str, carried: Tensor) -> Tensor:
        ours = torch.cat([reference[f"{layer}.weight"], reference[f"{layer}.bias"][:, None]], 1)
        theirs = torch.cat([carried, target[f"{layer}.bias"][:, None]], 1)
        plan = transport_plan((ours[:, None] - theirs).norm(dim=2), regularisation)
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
        assert torch.allclose(found[name], tensor, atol=1e-3 if regularisation else 1e-12), name


def test_what_is_passed_in_stays_and_the_result_can_be_averaged() -> None:
    reference, inputs, reference_spec = double_network("conv", 4)
    target, _, target_spec = double_network("conv", 6, seed=1)
    reference.half()
    target.train().half()
    before = [{k: v.clone() for k, v in net.state_dict().items()} for net in (reference, target)]
    found = ot_transport(reference, target, reference_spec, target_spec)
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
    found = ot_transport(reference, target, reference_spec, target_spec)["1.running_var"]
    assert found.mean().item() == pytest.approx(target[1].running_var.mean().item())
    assert found.min() >= target[1].running_var.min()


def refused(reference: nn.Module, target: nn.Module, inputs: Tensor, other: Tensor | None = None) -> None:
    other = inputs if other is None else other
    ot_transport(reference, target, discover_symmetry(reference, inputs), discover_symmetry(target, other))


def test_more_layers_are_refused() -> None:
    with pytest.raises(ArchitectureError, match="same groups but only one of them has"):
        refused(mlp(3, 4, 2), mlp(3, 4, 4, 2), torch.randn(2, 3))


def test_other_inputs_are_refused() -> None:
    with pytest.raises(ArchitectureError, match=r"'0.weight' .* shapes \(4, 3\) and \(6, 5\)"):
        refused(mlp(3, 4, 2), mlp(5, 6, 2), torch.randn(2, 3), torch.randn(2, 5))


def test_other_pictures_are_refused() -> None:
    nets = [
        nn.Sequential(nn.Conv2d(1, n, 3), nn.Flatten(), nn.Linear(n * side**2, 2))
        for n, side in ((4, 2), (6, 3))
    ]
    with pytest.raises(ArchitectureError, match="4 and 9: are their inputs of one size"):
        refused(*nets, torch.randn(1, 1, 4, 4), torch.randn(1, 1, 5, 5))


def test_another_tensor_is_refused() -> None:
    target = mlp(3, 6, 2)
    target.register_buffer("extra", torch.zeros(1))
    with pytest.raises(ArchitectureError, match=r"same tensors .*extra"):
        refused(mlp(3, 4, 2), target, torch.randn(2, 3))


def test_a_dropped_group_must_keep_its_width() -> None:
    nets, x = (mlp(3, 4, 5, 2), mlp(3, 6, 7, 2)), torch.randn(2, 3)
    specs = [discover_symmetry(net, x).without("2") for net in nets]
    with pytest.raises(ArchitectureError, match=r"'2.weight' to differ"):
        ot_transport(*nets, *specs)


def test_nested_groups_are_refused_by_name() -> None:
    problem = planted_case("grouped")
    nested = next(group for group in problem.spec.groups if group.parent is not None)
    for spec in (problem.spec, problem.spec.without(str(nested.parent))):
        with pytest.raises(SpecError, match="for ot_transport but got"):
            ot_transport(problem.reference, problem.target, spec, spec)


def test_a_state_with_transposed_layers_is_not_guessed() -> None:
    nets = [double_network("transposed", width) for width in (4, 6)]
    states = [tensors_of(net) for net, _, _ in nets]
    with pytest.raises(ArchitectureError, match=r"group '2', .* transposed="):
        ot_transport(*states, *(spec for _, _, spec in nets))
    with pytest.raises(ArchitectureError, match=r"name tensors .* \['typo'\]"):
        ot_transport(*states, *(spec for _, _, spec in nets), transposed=["typo"])


def test_an_embedding_tied_to_the_output_is_refused_where_its_width_differs() -> None:
    def tied(width: int, inner: int) -> nn.Module:
        net = nn.Sequential(
            nn.Embedding(9, width),
            nn.Linear(width, inner),
            nn.Linear(inner, width),
            nn.Linear(width, 9, False),
        )
        net[3].weight = net[0].weight
        return net

    with pytest.raises(ArchitectureError, match=r"0.weight.*3.weight.*its widths cannot change"):
        refused(tied(4, 5), tied(6, 5), torch.arange(9))
    reference, target = tied(4, 5), tied(4, 7)
    specs = [discover_symmetry(net, torch.arange(9)) for net in (reference, target)]
    found = ot_transport(reference, target, *specs)
    assert torch.equal(found["0.weight"], found["3.weight"])


def test_a_spec_of_another_network_is_refused() -> None:
    nets, x = (mlp(3, 4, 2), mlp(3, 6, 2)), torch.randn(2, 3)
    spec = discover_symmetry(nets[0], x)
    with pytest.raises(SpecError, match=r"\(4, 3\) but got \(6, 3\)"):
        ot_transport(*nets, spec, spec)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("norm", [nn.utils.parametrizations.weight_norm, nn.utils.weight_norm])
@pytest.mark.parametrize("layer", [nn.Linear, lambda *widths: nn.ConvTranspose1d(*widths, 2)])
def test_weight_norm_is_refused_where_the_width_differs(
    norm: Callable[[nn.Module], nn.Module], layer: Callable[[int, int], nn.Module]
) -> None:
    def normed(width: int) -> nn.Module:
        return nn.Sequential(norm(layer(3, width)), nn.ReLU(), norm(layer(width, 2)))

    inputs = torch.randn(2, 3) if layer is nn.Linear else torch.randn(2, 3, 4)
    with pytest.raises(ArchitectureError, match=r"group '0' differs but got .* remove the parametrisation"):
        refused(normed(4), normed(8), inputs)
    reference, target = normed(4), normed(4)
    found = ot_transport(reference, target, *(discover_symmetry(net, inputs) for net in (reference, target)))
    target_outputs = target(inputs)
    target.load_state_dict(found)
    assert torch.allclose(target(inputs), target_outputs, atol=1e-6)


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
    wide.load_state_dict(ot_transport(wide, narrow, *specs))
    assert torch.allclose(wide(inputs), narrow(inputs), atol=1e-12)
