from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import SpecError, SymmetryError
from sinkhorn_rebasin.networks.pruning import settle_pruning
from sinkhorn_rebasin.permutations import masked_state, masks, masks_of, permute_masks

X = torch.randn(5, 1, 6, 6, generator=torch.Generator().manual_seed(1))


def dense(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    first = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten()
    net = nn.Sequential(*first, nn.Linear(24, 10), nn.ReLU(), nn.Linear(10, 3))
    net[1].running_mean.normal_()
    return net.eval()


def pruned(seed: int, amount: float = 0.8) -> nn.Module:
    net = dense(seed)
    for layer in net:
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            prune.l1_unstructured(layer, "weight", amount=amount)
    return net


def shuffled(spec: sr.PermutationSpec) -> dict[str, torch.Tensor]:
    return sr.random_permutations(spec, generator=torch.Generator().manual_seed(3))


def test_masks_are_read_from_pruned_networks_and_from_zeros_alike() -> None:
    net = pruned(0)
    found = masks_of(net.state_dict())
    assert sorted(found) == ["0.weight", "3.weight", "6.weight", "8.weight"]
    for name, mask in found.items():
        assert mask.dtype == torch.bool
        assert torch.equal(mask, net.state_dict()[f"{name}_mask"] == 1)
    zeros = masks_of(settle_pruning(net).state_dict())
    assert all(torch.equal(found[name], zeros[name]) for name in found)
    assert masks_of(dense(0).state_dict()) == {}


def test_a_masked_network_moved_with_its_mask_is_the_same_function_and_as_sparse() -> None:
    net = dense(0)
    spec = sr.discover_symmetry(net, X)
    kept = masks_of(pruned(0).state_dict())
    order = shuffled(spec)
    sparse = masked_state(net.state_dict(), kept)
    moved = masked_state(sr.permute_state(net.state_dict(), spec, order), permute_masks(kept, spec, order))
    torch.testing.assert_close(
        torch.func.functional_call(net, moved, X), torch.func.functional_call(net, sparse, X)
    )
    assert not torch.equal(moved["6.weight"], sparse["6.weight"])
    for name in kept:
        assert int((moved[name] == 0).sum()) == int((sparse[name] == 0).sum())


def test_masks_go_by_every_name_that_the_spec_or_pytorch_has_for_them() -> None:
    net = pruned(0)
    of_pruned, of_dense = sr.discover_symmetry(net, X), sr.discover_symmetry(dense(0), X)
    assert of_pruned.names == of_dense.names
    order = shuffled(of_dense)
    kept = masks_of(net.state_dict())
    stored = {name: tensor for name, tensor in net.state_dict().items() if name.endswith("_mask")}
    expected = sr.permute_state(net.state_dict(), of_pruned, order)
    for spec in (of_pruned, of_dense):
        moved, named = permute_masks(kept, spec, order), permute_masks(stored, spec, order)
        for name in kept:
            assert torch.equal(moved[name], expected[f"{name}_mask"] == 1)
            assert torch.equal(named[f"{name}_mask"], expected[f"{name}_mask"])


def test_discovery_moves_a_mask_with_its_weight_and_the_pruned_function_stays() -> None:
    net = pruned(0)
    spec = sr.discover_symmetry(net, X)
    for layer in (0, 3, 6, 8):
        groups = [
            {(slot.group, slot.axes) for slot in spec.slots if slot.tensor == f"{layer}.weight_{part}"}
            for part in ("orig", "mask")
        ]
        assert groups[0] == groups[1] != set()
    sr.verify_symmetry(net, spec, X)
    state = sr.permute_state(net.state_dict(), spec, shuffled(spec))
    twin = pruned(0)
    twin.load_state_dict(state)
    torch.testing.assert_close(twin(X), net(X))


def test_matching_recovers_a_planted_permutation_of_a_pruned_network() -> None:
    net = pruned(0, amount=0.5)
    spec = sr.discover_symmetry(net, X)
    twin = pruned(0, amount=0.5)
    twin.load_state_dict(sr.permute_state(net.state_dict(), spec, shuffled(spec)))
    found = sr.weight_matching(net, twin, spec)
    back = sr.permute_state(twin.state_dict(), spec, found.permutations)
    for name, mask in masks_of(net.state_dict()).items():
        weights = net.state_dict()[f"{name}_orig"] * mask
        torch.testing.assert_close(back[f"{name}_orig"] * back[f"{name}_mask"], weights)


def test_align_keeps_function_and_sparsity_of_pruned_networks() -> None:
    reference, target = pruned(0), pruned(1)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    aligned = sr.align(reference, target, example_inputs=X).to_model()
    torch.testing.assert_close(aligned(X), target(X))
    kept, moved = masks_of(target.state_dict()), masks_of(aligned.state_dict())
    assert {name: int(mask.sum()) for name, mask in kept.items()} == {
        name: int(mask.sum()) for name, mask in moved.items()
    }
    assert any(not torch.equal(kept[name], moved[name]) for name in kept)
    assert all(torch.equal(before[name], tensor) for name, tensor in target.state_dict().items())


def test_settled_pruning_is_a_copy_of_the_same_function() -> None:
    net = pruned(0)
    settled = settle_pruning(net)
    assert torch.equal(settled(X), net(X))
    assert "0.weight_mask" in net.state_dict()
    assert "0.weight" in dict(settled.named_parameters())
    whole = settle_pruning(dense(2))
    assert torch.equal(whole(X), dense(2)(X))


def test_what_does_not_belong_together_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    net = dense(0)
    spec = sr.discover_symmetry(net, X)
    order, mask = shuffled(spec), {"0.weight": net[0].weight > 0}
    soft = {name: torch.eye(len(each)) for name, each in order.items()}
    with pytest.raises(SpecError, match="soft permutations"):
        permute_masks(mask, spec, soft)
    with pytest.raises(SpecError, match=r"one of 'stem\.weight'"):
        permute_masks({"stem.weight": mask["0.weight"]}, spec, order)
    with pytest.raises(SpecError, match="shape"):
        permute_masks({"0.weight": mask["0.weight"][:2]}, spec, order)
    with pytest.raises(SpecError, match="no such tensor"):
        masked_state(net.state_dict(), {"stem.weight": mask["0.weight"]})
    monkeypatch.setattr(masks, "permute_tensor", lambda tensor, *_: torch.zeros_like(tensor))
    with pytest.raises(SymmetryError, match=r"'0\.weight' to keep"):
        permute_masks(mask, spec, order)


def test_zeros_of_complex_weights_are_masked() -> None:
    weight = torch.tensor([[0j, 1j], [2 + 0j, 0j]])
    assert masks_of({"w": weight})["w"].tolist() == [[False, True], [True, False]]
