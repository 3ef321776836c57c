from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin import training
from sinkhorn_rebasin.errors import LossError, SpecError
from sinkhorn_rebasin.front.many_fits import ManyFits
from sinkhorn_rebasin.front.many_starts import starts_of
from tests.front.pairs import CPU, batches, loader, owners_of_one_start, samples, trained


def test_starts_are_those_by_weights_and_by_activations() -> None:
    networks = [trained(0), trained(1), trained(2)]
    spec = sr.discover_symmetry(networks[0], batches()[0][0])
    starts = starts_of(networks, spec, None, batches(), None)
    methods = ["merge_many", "frank_wolfe", "activation_matching", "as they are"]
    assert [start.method for start in starts] == methods
    for number in (1, 2):
        expected = sr.activation_matching(networks[0], networks[number], spec, data=batches())
        for name, order in expected.permutations.items():
            assert torch.equal(starts[2][number].permutations[name], order)
    assert [each.method for each in starts_of(networks, spec, "universe", batches(), None)] == ["universe"]


def test_weights_alone_have_no_start_by_activations() -> None:
    networks = [trained(0), trained(1).state_dict()]
    spec = sr.discover_symmetry(trained(0), batches()[0][0])
    starts = starts_of(networks, spec, None, batches(), None)
    assert [start.method for start in starts] == ["merge_many", "frank_wolfe", "as they are"]


def test_owners_of_one_start_stay_as_they_are_where_that_is_best() -> None:
    owners, (points, labels) = owners_of_one_start(), samples()
    recipe = sr.Recipe.many(steps=0, closing_steps=0)
    options = {"train": batches(), "validation": batches(), "recipe": recipe, "progress": False}
    many = sr.align_many(owners, **options)
    assert many.notes[0].startswith("start: as they are ")
    plain = many.alignments[0]  # the identity
    average = sr.ManyAlignment((plain,) * 3).to_model(owners)
    by_weights = sr.match_many(owners, many.spec).to_model(owners)
    with torch.no_grad():
        found, kept, moved = (
            float(F.cross_entropy(each(points), labels))
            for each in (many.to_model(owners), average, by_weights)
        )
    assert found == pytest.approx(kept)
    assert moved > kept + 0.2


def test_each_cycle_begins_at_the_best_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Watched(training.WarmRestarts):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            made.append((self.cycles, self.noise, self.monitor.restore_best))

    monkeypatch.setattr(training, "WarmRestarts", Watched)
    recipe = sr.Recipe.many(steps=20, cycles=2, closing_steps=5, evaluate_every=5, noise=0.05)
    networks = [trained(0), trained(1), trained(2)]
    sr.align_many(networks, train=batches(), recipe=recipe, trainer=CPU, progress=False)
    assert made == [(2, 0.05, True)]


@pytest.mark.parametrize("repair", [False, True])
def test_of_given_rescalings_those_alone_are_learned(repair: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    networks, example = [trained(0), trained(1), trained(2)], batches()[0][0]
    found = sr.discover_rescaling(networks[0], sr.discover_symmetry(networks[0], example), example)
    given = replace(found, generators=found.of("2"))
    assert 0 < len(given.generators) < len(found.generators)
    rebasin, _ = learned_by(monkeypatch, networks, rescale=given, repair=repair)
    assert rebasin.rescaling == given
    assert list(rebasin.log_scales) == ["2"]


@pytest.mark.parametrize("repair", [False, True])
def test_given_signs_are_left_to_repair(repair: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    networks = [nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 4)) for _ in range(2)]
    example = batches()[0][0]
    given = sr.discover_rescaling(networks[0], sr.discover_symmetry(networks[0], example), example)
    assert [each.kind for each in given.generators] == ["sign"]
    (rebasin,) = learned_by(monkeypatch, networks, rescale=given, repair=repair)
    assert bool(rebasin.sign_scores) is not repair


def learned_by(monkeypatch: pytest.MonkeyPatch, networks: Any, **options: Any) -> Any:
    """What would be learned of every network but the first."""
    joints: list[Any] = []
    monkeypatch.setattr(ManyFits, "run", lambda self, joint: joints.append(joint) or ())
    sr.align_many(networks, train=batches(), progress=False, **options)
    return joints[0].rebasins


@pytest.mark.parametrize("repair", [False, True])
def test_what_is_no_rescaling_is_refused(repair: bool) -> None:
    networks = [trained(0), trained(1)]
    spec: Any = sr.discover_symmetry(networks[0], batches()[0][0])
    with pytest.raises(SpecError, match="Expected a RescalingSpec"):
        sr.align_many(networks, train=batches(), rescale=spec, repair=repair, progress=False)


def test_a_seed_gives_the_same_whatever_was_drawn_before() -> None:
    """The loader shuffles by the global random state, here in inference mode too."""
    networks = [trained(0), trained(1), trained(2)]
    recipe = sr.Recipe.many(steps=2, closing_steps=0, start_samples=20, statistics_samples=20)
    found = []
    for drawn in (0, 1):
        torch.manual_seed(drawn)
        with torch.inference_mode(bool(drawn)):
            found.append(sr.align_many(networks, train=loader(), recipe=recipe, progress=False, trainer=CPU))
    for one, other in zip(*found, strict=True):
        assert all(torch.equal(order, other.permutations[name]) for name, order in one.permutations.items())
    assert found[0].notes == found[1].notes


def test_a_mean_without_a_network_is_refused_at_once() -> None:
    networks = [trained(0), trained(1)]
    with pytest.raises(LossError, match=r"Expected shares above 0 .* but got 0"):
        sr.align_many(networks, train=batches(), shares=[1.0, 0.0])
