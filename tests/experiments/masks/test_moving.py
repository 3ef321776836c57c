from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune

from experiments.compare_methods.setting import Training
from experiments.masks.moving import MovingMask, Schedule, moved_mask
from experiments.masks.setting import Setting
from experiments.masks.tickets import prunable, retrained, sparsity_of, ticket


def pruned(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        for layer in prunable(network).values():
            prune.custom_from_mask(layer, "weight", torch.rand(layer.weight.shape) < 0.5)
    return network


def test_small_weights_go_and_those_with_large_gradients_of_the_masked_network_come() -> None:
    network, images, labels = pruned(), torch.randn(20, 6), torch.randint(3, (20,))
    masks = {name: layer.weight_mask.bool().clone() for name, layer in prunable(network).items()}
    weights = {name: layer.weight_orig.detach().clone() for name, layer in prunable(network).items()}
    # An independent witness: the gradient of all weights of a plain network with the masked ones.
    plain = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    plain.load_state_dict(
        {f"{name}.weight": layer.weight.detach() for name, layer in prunable(network).items()}
        | {f"{name}.bias": layer.bias.detach() for name, layer in prunable(network).items()}
    )
    F.cross_entropy(plain(images), labels).backward()
    sgd = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    with MovingMask(prunable(network), Schedule()) as moving:
        F.cross_entropy(network(images), labels).backward()
        sgd.step()
        for name, layer in prunable(network).items():
            layer.weight_orig.data = weights[name].clone()
        moving.move(0.3, sgd)
    for name, layer in prunable(network).items():
        before, after, slopes = masks[name], layer.weight_mask.bool(), plain[int(name)].weight.grad.abs()
        count = int(0.3 * int(before.sum()))
        assert int(after.sum()) == int(before.sum())
        went, came = before & ~after, after & ~before
        left = weights[name].abs()
        threshold = left[before].sort().values[count - 1]
        assert bool((left[went] <= threshold).all())
        assert bool((slopes[came].min() >= slopes[~before & ~after].max()).all())
        assert int(came.sum()) > 0
        assert not layer.weight_orig[came].any()
        assert not layer.weight_orig[~after].any()
        momentum = sgd.state[layer.weight_orig]["momentum_buffer"]
        assert not momentum[came].any()
        assert bool(momentum[before & after].any())


def test_a_weight_that_went_may_come_back() -> None:
    mask, weight = torch.tensor([True, True, False]), torch.tensor([0.1, 2.0, 0.0])
    assert moved_mask(mask, weight, torch.tensor([9.0, 0.0, 1.0]), 0.5).tolist() == [True, True, False]


def test_masks_move_ever_less_and_stop() -> None:
    schedule = Schedule(every=5, share=0.4, until=0.5)
    shares = [schedule.at(step, 40) for step in range(40)]
    moves = {step: share for step, share in enumerate(shares) if share}
    assert list(moves) == [5, 10, 15]
    assert 0.4 > moves[5] > moves[10] > moves[15] > 0
    assert moves[10] == pytest.approx(0.2)
    assert not any(Schedule(every=0).at(step, 40) for step in range(40))


def test_a_network_is_trained_while_its_mask_moves() -> None:
    setting = Setting(
        title="tiny",
        data="digits",
        model="mlp",
        arguments={"inputs": 64, "widths": [8]},
        training=Training(epochs=3, learning_rate=0.1, batch_size=50),
        train_images=300,
        moves=Schedule(every=2, until=1.0),
    )
    data, _, tests = setting.load(Path())
    found = ticket(setting, data, tests, seed=0)
    networks = [retrained(found, setting, data, moving) for moving in (False, True)]
    left = [{name: layer.weight != 0 for name, layer in prunable(network).items()} for network in networks]
    assert all(torch.equal(left[0][name], found.mask[f"{name}.weight"]) for name in left[0])
    assert not all(torch.equal(left[1][name], left[0][name]) for name in left[0])
    assert sparsity_of(left[1]) == pytest.approx(sparsity_of(found.mask), abs=0.01)
    still = retrained(found, replace(setting, moves=Schedule(every=0)), data, moving=True)
    pairs = zip(still.parameters(), networks[0].parameters(), strict=True)
    assert all(torch.equal(*both) for both in pairs)
