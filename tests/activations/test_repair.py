"""Repaired networks against activations recorded by hand, in float64."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from sinkhorn_rebasin import (
    LinearPath,
    PermutationSpec,
    Repair,
    discover_symmetry,
    evaluate_path,
    permute_state,
    random_permutations,
    repair,
    reset_batch_norm,
)
from sinkhorn_rebasin.errors import ArchitectureError, DataError, SpecError
from sinkhorn_rebasin.permutations.algebra import inverse
from tests.zoo.case import Function


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 3))


def layer_norm_mlp() -> nn.Module:
    first, second = nn.Linear(5, 12), nn.Linear(12, 9)
    return nn.Sequential(first, nn.LayerNorm(12), nn.ReLU(), second, nn.LayerNorm(9), nn.Linear(9, 3))


def residual() -> nn.Module:
    """The second use of the stream sees what the first block added to it."""

    def run(net: Function, x: Tensor) -> Tensor:
        stream = net.inward(x)
        stream = stream + net.second(net.first(stream).relu())
        return net.outward(stream.relu())

    layers = {"first": nn.Linear(8, 10), "second": nn.Linear(10, 8)}
    return Function(run, inward=nn.Linear(5, 8), outward=nn.Linear(8, 3), **layers)


def attention() -> nn.Module:
    """An encoder layer over three places of eight inputs."""
    return nn.Sequential(
        nn.Linear(5, 24),
        nn.Unflatten(1, (3, 8)),
        nn.TransformerEncoderLayer(8, 2, dim_feedforward=12, batch_first=True),
        nn.Flatten(),
        nn.Linear(24, 3),
    )


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 5)),
        nn.Conv1d(1, 6, 3, padding=1),
        nn.ReLU(),
        nn.Conv1d(6, 8, 3, groups=2),
        nn.ReLU(),
        nn.ConvTranspose1d(8, 6, 2, groups=2),
        nn.ReLU(),
        nn.ConvTranspose1d(6, 4, 2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(20, 3),
    )


NETWORKS = [mlp, layer_norm_mlp, residual, attention, convolutions]
CORRECTED = {
    mlp: ["0", "2"],
    layer_norm_mlp: ["0", "3"],
    residual: ["first", "inward", "second"],
    attention: ["0", "2.linear1", "2.linear2"],
    convolutions: ["1", "3", "5", "7"],
}


def pair(make) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(1)
    reference, target = make().double(), make().double()
    with torch.no_grad():
        for net in (reference, target):
            for parameter in net.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    return reference.eval(), target.eval()


def batches(*sizes: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, 5, generator=generator, dtype=torch.float64) + 0.5 for n in sizes]


def merge(reference: nn.Module, target: nn.Module, at: float = 0.5) -> nn.Module:
    return LinearPath.between(target, reference).module_at(at)


def recorded(net: nn.Module, name: str, data: list[Tensor]) -> Tensor:
    """Outputs of a layer as (units, values), run by the network's own forward."""
    seen: list[Tensor] = []
    handle = net.get_submodule(name).register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.no_grad():
        for x in data:
            net(x)
    handle.remove()
    if isinstance(net.get_submodule(name), nn.Linear):
        return torch.cat([output.flatten(0, -2) for output in seen]).T
    return torch.cat([output.transpose(0, 1).flatten(1) for output in seen], dim=1)


@pytest.mark.parametrize("at", [0.5, 0.2])
@pytest.mark.parametrize("make", NETWORKS)
def test_every_layer_has_the_interpolated_statistics(make, at: float) -> None:
    reference, target = pair(make)
    data = batches(40, 7, 25)
    spec = discover_symmetry(reference, data[0])
    merged = merge(reference, target, at)
    repaired = repair(merged, reference, target, spec, data, at=at)
    assert type(repaired) is type(merged)
    moved = sorted(
        name.removesuffix(".weight")
        for name, tensor in repaired.state_dict().items()
        if name.endswith("weight") and not torch.equal(tensor, merged.state_dict()[name])
    )
    assert moved == CORRECTED[make]
    for name in CORRECTED[make]:
        found, first, second = (recorded(net, name, data) for net in (repaired, target, reference))
        mean = (1 - at) * first.mean(1) + at * second.mean(1)
        deviation = (1 - at) * first.std(1, correction=0) + at * second.std(1, correction=0)
        torch.testing.assert_close(found.mean(1), mean, rtol=0, atol=1e-10)
        torch.testing.assert_close(found.std(1, correction=0), deviation, rtol=0, atol=1e-10)
        before = recorded(merged, name, data)
        assert not torch.allclose(before.std(1, correction=0), deviation, rtol=0.01)


@pytest.mark.parametrize("make", NETWORKS)
def test_rescaling_alone_corrects_deviations_and_keeps_means(make) -> None:
    reference, target = pair(make)
    data, at = batches(40, 7, 25), 0.3
    spec = discover_symmetry(reference, data[0])
    merged = merge(reference, target, at)
    repaired = repair(merged, reference, target, spec, data, at=at, rescale_only=True)
    for name in CORRECTED[make]:
        found, first, second = (recorded(net, name, data) for net in (repaired, target, reference))
        deviation = (1 - at) * first.std(1, correction=0) + at * second.std(1, correction=0)
        torch.testing.assert_close(found.std(1, correction=0), deviation, rtol=0, atol=1e-10)
        # What the layer would give without a correction of its own, all before it corrected.
        without = copy.deepcopy(repaired)
        without.get_submodule(name).load_state_dict(merged.get_submodule(name).state_dict())
        torch.testing.assert_close(found.mean(1), recorded(without, name, data).mean(1), rtol=0, atol=1e-10)
    prepare = Repair(reference, target, spec, data, rescale_only=True)
    state = prepare(merged, merged.state_dict())
    for key, tensor in repaired.state_dict().items():
        torch.testing.assert_close(state[key], tensor, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("make", NETWORKS)
def test_a_network_merged_with_itself_stays_to_the_bit(make) -> None:
    reference, _ = pair(make)
    data = batches(30)
    repaired = repair(reference, reference, reference, discover_symmetry(reference, data[0]), data, at=0.3)
    torch.testing.assert_close(repaired.state_dict(), reference.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("make", NETWORKS)
def test_an_aligned_copy_needs_no_repair_and_an_unaligned_one_does(make) -> None:
    reference, _ = pair(make)
    data = batches(30)
    spec = discover_symmetry(reference, data[0])
    permutations = random_permutations(spec, generator=torch.Generator().manual_seed(3))
    copied, aligned = copy.deepcopy(reference), copy.deepcopy(reference)
    copied.load_state_dict(permute_state(reference.state_dict(), spec, permutations))
    aligned.load_state_dict(permute_state(copied.state_dict(), spec, inverse(spec, permutations)))
    shuffled, merged = merge(reference, copied), merge(reference, aligned)
    with torch.no_grad():
        expected = reference(data[0])
        torch.testing.assert_close(repair(merged, reference, aligned, spec, data)(data[0]), expected)
        unlike = repair(shuffled, reference, copied, spec, data)(data[0])
        assert not torch.allclose(unlike, shuffled(data[0]), atol=1e-3)


def test_nothing_passed_in_changes() -> None:
    reference, target = pair(attention)
    reference.train()
    data = batches(16, 8)
    spec = discover_symmetry(reference, data[0])
    merged = merge(reference, target).train()
    merged[0].requires_grad_(False)
    networks = (merged, reference, target)
    before = copy.deepcopy([net.state_dict() for net in networks])
    kept, hooks = [x.clone() for x in data], [len(child._forward_hooks) for child in merged.modules()]
    torch.manual_seed(4)
    random_state = torch.get_rng_state()
    repaired = repair(merged, reference, target, spec, data)
    assert torch.equal(torch.get_rng_state(), random_state)
    for net, state in zip(networks, before, strict=True):
        torch.testing.assert_close(net.state_dict(), state, rtol=0, atol=0)
    assert all(torch.equal(x, y) for x, y in zip(data, kept, strict=True))
    assert [child.training for child in repaired.modules()] == [child.training for child in merged.modules()]
    assert [p.requires_grad for p in repaired.parameters()] == [p.requires_grad for p in merged.parameters()]
    for net in networks:
        assert [len(child._forward_hooks) for child in net.modules()] == hooks
    assert [net.training for net in networks] == [True, True, False]
    assert not {p.data_ptr() for p in repaired.parameters()} & {p.data_ptr() for p in merged.parameters()}


def test_batch_norm_alone_is_the_statistics_reset() -> None:
    def make() -> nn.Module:
        first, second = nn.Linear(5, 12), nn.Linear(12, 9)
        return nn.Sequential(first, nn.BatchNorm1d(12), nn.ReLU(), second, nn.BatchNorm1d(9), nn.Linear(9, 3))

    reference, target = pair(make)
    data = batches(20, 30)
    merged = merge(reference, target)
    repaired = repair(merged, reference, target, discover_symmetry(reference, data[0]), data)
    torch.testing.assert_close(repaired.state_dict(), reset_batch_norm(merged, data).state_dict())
    assert not torch.equal(repaired[1].running_var, merged[1].running_var)


def test_layers_behind_batch_norm_are_corrected_too() -> None:
    def make() -> nn.Module:
        layers = [nn.Linear(5, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 9), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(9, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))

    reference, target = pair(make)
    data = batches(20, 30)
    spec = discover_symmetry(reference, data[0])
    merged = merge(reference, target)
    repaired = repair(merged, reference, target, spec, data)
    found, first, second = (recorded(net, "3", data) for net in (repaired, target, reference))
    torch.testing.assert_close(found.mean(1), (first.mean(1) + second.mean(1)) / 2)
    torch.testing.assert_close(found.std(1), (first.std(1) + second.std(1)) / 2)
    for layer, norm in (("0", repaired[1]), ("5", repaired[6])):
        torch.testing.assert_close(norm.running_mean, recorded(repaired, layer, data).mean(1))
        torch.testing.assert_close(norm.running_var, recorded(repaired, layer, data).var(1))
    for index in (0, 5):
        torch.testing.assert_close(repaired[index].weight, merged[index].weight, rtol=0, atol=0)


def test_without_a_bias_the_deviation_alone_is_corrected() -> None:
    reference, target = pair(lambda: nn.Sequential(nn.Linear(5, 12, bias=False), nn.ReLU(), nn.Linear(12, 3)))
    data = batches(50)
    spec = discover_symmetry(reference, data[0])
    repaired = repair(merge(reference, target), reference, target, spec, data)
    assert repaired[0].bias is None
    found, first, second = (recorded(net, "0", data).std(1) for net in (repaired, target, reference))
    torch.testing.assert_close(found, (first + second) / 2)


def test_units_that_do_not_vary_are_shifted_and_outputs_of_the_network_stay() -> None:
    reference, target = pair(mlp)
    with torch.no_grad():
        for net in (reference, target):
            net[0].weight[3] = 0.0
    data = batches(50)
    spec = discover_symmetry(reference, data[0])
    merged = merge(reference, target)
    merged[0].bias.data[3] += 1.0
    repaired = repair(merged, reference, target, spec, data)
    assert all(torch.isfinite(tensor).all() for tensor in repaired.state_dict().values())
    assert repaired[0].bias[3].item() == pytest.approx((reference[0].bias[3] + target[0].bias[3]).item() / 2)
    torch.testing.assert_close(repaired[4].state_dict(), merged[4].state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("tokens", [0, 1])
def test_a_layer_that_too_few_values_reach_stays(tokens: int) -> None:
    def make() -> nn.Module:
        def run(net: Function, x: Tensor) -> Tensor:
            hidden = torch.cat([net.few(x[:tokens]), net.many(x[tokens:])])
            return net.last(hidden.relu())

        return Function(run, few=nn.Linear(5, 6), many=nn.Linear(5, 6), last=nn.Linear(6, 3))

    reference, target = pair(make)
    data = batches(20)
    spec = discover_symmetry(reference, data[0])
    merged = merge(reference, target)
    repaired = repair(merged, reference, target, spec, data)
    torch.testing.assert_close(repaired.few.state_dict(), merged.few.state_dict(), rtol=0, atol=0)
    assert not torch.equal(repaired.many.weight, merged.many.weight)


def test_units_outside_of_the_spec_stay() -> None:
    reference, target = pair(mlp)
    data = batches(50)
    spec = discover_symmetry(reference, data[0])
    merged = merge(reference, target)
    second = next(slot.group for slot in spec.slots_on("2.bias"))
    repaired = repair(merged, reference, target, spec.without(second), data)
    assert torch.equal(repaired[2].weight, merged[2].weight)
    assert not torch.equal(repaired[0].weight, merged[0].weight)


def test_tied_weights_of_two_layers_stay_and_a_layer_under_two_names_is_one() -> None:
    def tied() -> nn.Module:
        net = Function(
            lambda n, x: n.c(F.relu(n.b(F.relu(n.a(n.inward(x)))))),
            inward=nn.Linear(5, 6),
            a=nn.Linear(6, 6),
            b=nn.Linear(6, 6),
            c=nn.Linear(6, 3),
        )
        net.b.weight = net.a.weight
        return net

    def twice() -> nn.Module:
        shared = nn.Linear(5, 6)
        return Function(lambda n, x: n.c(n.a(x).relu()), a=shared, again=shared, c=nn.Linear(6, 3))

    data = batches(50)
    reference, target = pair(tied)
    spec = discover_symmetry(reference, data[0])
    merged = merge(reference, target)
    repaired = repair(merged, reference, target, spec, data)
    assert repaired.a.weight is repaired.b.weight
    assert torch.equal(repaired.a.weight, merged.a.weight)
    reference, target = pair(twice)
    spec = discover_symmetry(reference, data[0])
    repaired = repair(merge(reference, target), reference, target, spec, data)
    found, first, second = (recorded(net, "a", data).std(1) for net in (repaired, target, reference))
    torch.testing.assert_close(found, (first + second) / 2)


def test_prepares_every_position_of_a_path() -> None:
    reference, target = pair(mlp)
    (x,) = batches(64)
    data = [(x, torch.randint(3, (64,), generator=torch.Generator().manual_seed(0)))]
    spec = discover_symmetry(reference, x)
    prepare = Repair(reference, target, spec, data)
    path = evaluate_path((target, reference), data, points=5, prepare=prepare)
    for index, at in enumerate((0.0, 0.25, 0.5, 0.75, 1.0)):
        merged = merge(reference, target, at)
        assert prepare.position_of(merged.state_dict()) == pytest.approx(at, abs=1e-12)
        repaired = repair(merged, reference, target, spec, data, at=at)
        with torch.no_grad():
            assert path.losses[index].item() == pytest.approx(F.cross_entropy(repaired(x), data[0][1]).item())
    assert Repair(reference, reference, spec, data).position_of(reference.state_dict()) == 0


def test_trained_networks_merge_better() -> None:
    """Two networks trained on scikit-learn's digits, merged without any alignment, as the worst case."""
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = (torch.from_numpy(part) for part in datasets.load_digits(return_X_y=True))
    images = (images.float() - 4.9) / 6.0
    networks = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 10))
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        for _ in range(80):
            optimizer.zero_grad()
            F.cross_entropy(net(images[:1200]), labels[:1200]).backward()
            optimizer.step()
        networks.append(net)
    reference, target = networks
    data, unseen = [(images[:1200], labels[:1200])], (images[1200:], labels[1200:])
    spec = discover_symmetry(reference, images[:2])
    merged = merge(reference, target)
    repaired = repair(merged, reference, target, spec, data)
    with torch.no_grad():
        losses = [F.cross_entropy(net(unseen[0]), unseen[1]).item() for net in (merged, repaired, reference)]
    assert losses[2] < losses[1] < 0.9 * losses[0], losses


def test_a_shuffling_loader_draws_nothing_from_the_caller_and_shows_all_layers_the_same() -> None:
    reference, target = pair(mlp)
    for net in (reference, target):
        net.register_buffer("unsaved", torch.ones(2), persistent=False)
        net[0].register_buffer("again", net.unsaved, persistent=False)
    (x,) = batches(60)
    loader = DataLoader(TensorDataset(x), batch_size=20, shuffle=True)
    spec = discover_symmetry(reference, x)
    merged = merge(reference, target)
    torch.manual_seed(4)
    before = torch.get_rng_state()
    repaired = repair(merged, reference, target, spec, loader, batches=2)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    shown = [batch for (batch,) in loader][:2]
    for name in CORRECTED[mlp]:
        found, first, second = (recorded(net, name, shown).std(1) for net in (repaired, target, reference))
        torch.testing.assert_close(found, (first + second) / 2)


def test_kinds_of_data_and_their_number() -> None:
    reference, target = pair(mlp)
    x, y = batches(20, 20)
    spec = discover_symmetry(reference, x)
    merged = merge(reference, target)
    plain = repair(merged, reference, target, spec, [x]).state_dict()
    for data in ([(x, torch.zeros(20))], iter([[x]]), [{"input": x}]):
        found = repair(merged, reference, target, spec, data).state_dict()
        torch.testing.assert_close(found, plain, rtol=0, atol=0)
    found = repair(merged, reference, target, spec, [x, y], batches=1).state_dict()
    torch.testing.assert_close(found, plain, rtol=0, atol=0)


def test_inputs_of_two_tensors_stay_inputs() -> None:
    def make() -> nn.Module:
        norm, last = nn.BatchNorm1d(6), nn.Linear(6, 3)
        return Function(lambda n, x, y: n.c(n.norm(n.a(x)).relu() * y), a=nn.Linear(5, 6), norm=norm, c=last)

    reference, target = pair(make)
    (x,) = batches(20)
    inputs = (x, x[:, :1])
    merged = merge(reference, target)
    repaired = repair(merged, reference, target, discover_symmetry(reference, inputs), [(inputs, None)])
    torch.testing.assert_close(repaired.norm.running_var, merged.a(x).var(0))


def other_spec() -> PermutationSpec:
    return discover_symmetry(nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 3)), torch.randn(2, 4))


def test_errors() -> None:
    reference, target = pair(mlp)
    data = batches(20)
    spec = discover_symmetry(reference, data[0])
    merged = merge(reference, target)
    with pytest.raises(DataError, match="at least one batch to measure activations"):
        repair(merged, reference, target, spec, [])
    with pytest.raises(DataError, match="at least two values of every hidden unit but got one"):
        repair(merged, reference, target, spec, [data[0][:1]])
    with pytest.raises(DataError, match="finite activations at layer '0'"):
        repair(merged, reference, target, spec, [data[0] * float("nan")])
    with pytest.raises(DataError, match=r"from 0 \(target\) to 1 \(reference\) but got 1.5"):
        repair(merged, reference, target, spec, data, at=1.5)
    with pytest.raises(SpecError, match=r"Expected tensor '0\.weight' of shape"):
        repair(merged, reference, target, other_spec(), data)
    for networks in ((mlp().float(), reference, target), (merged, reference, layer_norm_mlp().double())):
        with pytest.raises(ArchitectureError):
            repair(*networks, spec, data)
