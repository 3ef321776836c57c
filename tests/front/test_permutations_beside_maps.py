"""Permutations learned beside maps: on request, of networks whose hidden units matching pairs badly."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sinkhorn_rebasin as sr
from tests.front.pairs import batches, samples, short, trained

RECIPE = sr.Recipe(
    trials=1,
    starts=("weight_matching",),
    permutation_steps=40,
    map_steps=10,
    closing_steps=5,
    learning_rate=0.3,
    cycles=1,
    evaluate_every=20,
    points=5,
)
ALONE = sr.Recipe(starts=("weight_matching",), map_steps=50, closing_steps=5, evaluate_every=20, points=5)


@functools.cache
def bottleneck(seed: int) -> nn.Module:
    """A hidden layer of ReLU and a linear stream of three units, trained on the samples."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Linear(2, 12), nn.ReLU(), nn.Linear(12, 3), nn.Linear(3, 4)
        network = nn.Sequential(*layers)
        points, labels = samples()
        optimizer = torch.optim.Adam(network.parameters(), 0.02)
        for _ in range(150):
            optimizer.zero_grad()
            F.cross_entropy(network(points), labels).backward()
            optimizer.step()
    return network.requires_grad_(True).eval()


@functools.cache
def aligned(recipe: sr.Recipe) -> sr.AlignmentResult:
    options = {"recipe": recipe, "example_inputs": samples()[0][:2], "validation": batches(count=1000)[20:]}
    return short(bottleneck(0), bottleneck(5), **options)


def test_a_soft_fit_comes_before_the_maps_alone() -> None:
    result = aligned(RECIPE)
    assert result.steps == {"soft": 40, "maps": 10, "closing": 5}
    assert aligned(ALONE).steps == {"maps": 50, "closing": 5}


def test_permutations_move_in_it_and_are_held_again() -> None:
    learned, held = aligned(RECIPE).rebasin, aligned(ALONE).rebasin
    (hidden,) = [name for name in learned.spec.names if name not in learned.continuous]
    assert not torch.equal(learned.hard_permutations()[hidden], held.hard_permutations()[hidden])
    assert not learned.learn_permutations
    assert not any(scores.requires_grad for scores in learned.scores.values())


def test_a_pair_that_matching_pairs_badly_meets_closer_than_by_maps_alone() -> None:
    result = aligned(RECIPE)
    assert result.after.losses.mean() < aligned(ALONE).after.losses.mean() - 0.1
    points = torch.randn(64, 2, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(result.to_model()(points), bottleneck(5)(points), atol=1e-3, rtol=1e-3)


def test_networks_with_maps_begin_as_they_are_where_that_is_best() -> None:
    tuned = copy.deepcopy(bottleneck(0))
    with torch.no_grad():
        for weight in tuned.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(7)))
    recipe = sr.Recipe(starts=("as_they_are",), trials=1, map_steps=0, cycles=1, closing_steps=0, points=3)
    held_out = batches(count=200)
    rebasin = (result := short(bottleneck(0), tuned, recipe=recipe, validation=held_out)).rebasin
    assert rebasin.continuous
    ends = rebasin.target_state(), rebasin.reference_state()
    middle = copy.deepcopy(tuned)
    middle.load_state_dict({name: (ends[0][name] + ends[1][name]) / 2 for name in ends[0]})
    points, labels = (torch.cat(parts) for parts in zip(*held_out, strict=True))
    expected = F.cross_entropy(middle(points), labels).item()
    assert float(result.starts["as_they_are"].midpoint_loss) == pytest.approx(expected, abs=1e-5)


def test_without_maps_it_takes_no_step() -> None:
    recipe = sr.Recipe(
        trials=1, permutation_steps=9, steps=6, cycles=1, closing_steps=0, evaluate_every=6, points=5
    )
    assert short(trained(0), trained(1), recipe=recipe).steps == {"soft": 6}
