"""Repaired networks against activations recorded by hand, in float64."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sinkhorn_rebasin import (
    RepairAlongPath,
    discover_symmetry,
    evaluate_path,
    permute_state,
    random_permutations,
    repair,
)
from sinkhorn_rebasin.permutations.algebra import inverse
from tests.activations.repair_problems import (
    CORRECTED,
    NETWORKS,
    attention,
    batches,
    merge,
    mlp,
    pair,
    recorded,
)

# Packed attention stays as it is, which has tests of its own.
pytestmark = pytest.mark.filterwarnings("ignore:Expected to correct every layer")


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
    prepare = RepairAlongPath(reference, target, spec, data, rescale_only=True)
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


def test_prepares_every_position_of_a_path() -> None:
    reference, target = pair(mlp)
    (x,) = batches(64)
    data = [(x, torch.randint(3, (64,), generator=torch.Generator().manual_seed(0)))]
    spec = discover_symmetry(reference, x)
    prepare = RepairAlongPath(reference, target, spec, data)
    path = evaluate_path((target, reference), data, points=5, prepare=prepare)
    for index, at in enumerate((0.0, 0.25, 0.5, 0.75, 1.0)):
        merged = merge(reference, target, at)
        assert prepare.position_of(merged.state_dict()) == pytest.approx(at, abs=1e-12)
        repaired = repair(merged, reference, target, spec, data, at=at)
        with torch.no_grad():
            assert path.losses[index].item() == pytest.approx(F.cross_entropy(repaired(x), data[0][1]).item())
    assert RepairAlongPath(reference, reference, spec, data).position_of(reference.state_dict()) == 0


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
