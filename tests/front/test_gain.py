"""What few held-out samples can tell: gains within their standard error replace nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import t, ttest_rel
from torch import Tensor

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.front.gain import Gain, PartLosses, gain, simplest
from sinkhorn_rebasin.front.parts import parts_for, parts_of
from tests.front.pairs import samples, short, trained

RECIPE = sr.Recipe(
    starts=("weight_matching",),
    steps=20,
    cycles=1,
    trials=1,
    closing_steps=0,
    evaluate_every=2,
    points=3,
    keep="midpoint",
    learning_rate=0.03,
    temperatures=(0.1, 0.05),
    scale_learning_rate=0.03,
)


def drawn(parts: int, weights: Tensor | None = None) -> tuple[PartLosses, PartLosses]:
    """Losses of two alignments, the second a little lower."""
    draw = torch.Generator().manual_seed(0)
    before = torch.rand(parts, generator=draw, dtype=torch.float64)
    after = before - 0.1 + 0.3 * torch.randn(parts, generator=draw, dtype=torch.float64)
    weights = torch.ones(parts, dtype=torch.float64) if weights is None else weights
    return PartLosses(before, weights), PartLosses(after, weights)


def test_equal_parts_give_the_statistic_of_paired_differences() -> None:
    before, after = drawn(12)
    found = gain(before, after)
    assert found.error is not None
    expected = ttest_rel(before.values, after.values, alternative="greater")
    assert found.mean / found.error == pytest.approx(expected.statistic)
    for factor in (0.5, 1.0, 2.0, 4.0):
        spread = Gain(found.mean, factor * found.error, 12)
        assert spread.counts == bool(t.sf(expected.statistic / factor, 11) <= 0.05)
        assert spread.shows == (expected.statistic > factor)


def test_the_error_of_unequal_parts_is_the_spread_of_their_resampled_mean() -> None:
    weights = torch.randint(1, 6, (60,), generator=torch.Generator().manual_seed(1)).double()
    before, after = drawn(60, weights)
    places = torch.randint(60, (20_000, 60), generator=torch.Generator().manual_seed(2))
    differences = weights * (before.values - after.values)
    means = differences[places].sum(1) / weights[places].sum(1)
    found = gain(before, after)
    assert found.mean == pytest.approx(float(differences.sum() / weights.sum()))
    assert found.error == pytest.approx(float(means.std()), rel=0.05)


def test_parts_without_weight_count_for_nothing() -> None:
    before, after = drawn(4)
    nothing = torch.tensor([torch.nan, 9.0], dtype=torch.float64)
    weights = torch.tensor([1.0, 1, 1, 1, 0, 0], dtype=torch.float64)
    padded = (PartLosses(torch.cat([each.values, nothing]), weights) for each in (before, after))
    assert gain(*padded) == gain(before, after)


@pytest.mark.parametrize("lost", [torch.nan, torch.inf])
def test_what_has_no_finite_loss_is_never_taken(lost: float) -> None:
    finite, weights = torch.ones(3), torch.ones(3)
    odd = PartLosses(torch.tensor([lost, 0.0, 0.0]), weights)
    assert simplest([odd, PartLosses(finite, weights)]) == 1
    assert simplest([PartLosses(finite, weights), odd]) == 0
    assert not gain(odd, odd).shows
    assert not gain(odd, odd).counts


def aligned(first: int) -> sr.AlignmentResult:
    """A pair learned on ten samples, of which ten others decide."""
    train, held_out = ([tuple(part[rows] for part in samples(4000))] for rows in _rows(first))
    return short(trained(3), trained(4), train=train, validation=held_out, recipe=RECIPE)


def _rows(first: int) -> tuple[slice, slice]:
    return slice(first, first + 10), slice(first + 10, first + 20)


def loss_elsewhere(result: sr.AlignmentResult) -> float:
    points, labels = (part[500:] for part in samples(4000))
    return float(F.cross_entropy(result.merge()(points), labels).detach())


def test_a_start_that_ten_samples_would_leave_for_something_worse_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = aligned(460)
    assert any("may be chance, so the start is kept" in note for note in kept.notes)
    start = kept.starts[kept.start]
    assert isinstance(start, sr.PathEvaluation)
    assert kept.after is not None
    assert kept.after.midpoint_loss == pytest.approx(start.midpoint_loss, abs=1e-6)
    assert all((scales == 0).all() for scales in kept.rebasin.log_scales.values())
    monkeypatch.setattr(Gain, "counts", property(lambda found: found.mean > 0))
    left = aligned(460)
    assert left.after is not None
    assert left.after.midpoint_loss < start.midpoint_loss - 0.05
    assert loss_elsewhere(left) > loss_elsewhere(kept) + 0.05


def test_a_gain_that_ten_samples_do_tell_is_taken() -> None:
    taken = aligned(480)
    assert not any("kept" in note for note in taken.notes)
    start = short(trained(3), trained(4), recipe=sr.Recipe(steps=0, closing_steps=0, points=3))
    assert loss_elsewhere(taken) < loss_elsewhere(start) - 0.1


def test_batches_are_parted_by_samples_whatever_holds_their_tensors() -> None:
    batch = {"x": (torch.arange(3), None), "y": torch.arange(3)}
    parts = parts_of([batch, [torch.zeros(2, 5)]])
    assert [part["y"].tolist() for part in parts.batches[:3]] == [[0], [1], [2]]
    assert [part[0].shape for part in parts.batches[3:]] == [(1, 5), (1, 5)]
    assert parts.shares.tolist() == pytest.approx([1 / 3] * 3 + [1 / 2] * 2)
    assert len(parts_of([torch.zeros(250)] * 4).batches) == 100


@pytest.mark.parametrize(
    "batch",
    [{"text": ["a", "b"], "y": torch.zeros(2)}, (torch.zeros(2), torch.zeros(3)), torch.zeros(())],
    ids=["text", "lengths", "number"],
)
def test_what_has_no_rows_in_common_stays_whole(batch: Any) -> None:
    assert parts_of([batch]).batches == [batch]


def test_a_criterion_that_contrasts_samples_is_left_its_batches() -> None:
    def contrast(outputs: Tensor, _: Tensor) -> Tensor:
        return F.cross_entropy(outputs @ outputs.T, torch.arange(len(outputs)))

    batches = [tuple(part[rows] for part in samples()) for rows in (slice(0, 20), slice(20, 40))]
    result = short(train=batches[:1] * 2, validation=batches, criterion=contrast)
    assert result.after is not None
    apart = [(torch.eye(4), torch.zeros(4))]
    assert (
        parts_for(apart, lambda parts: sum(float(contrast(*each)) for each in parts.batches)).batches == apart
    )


def test_data_that_parts_cannot_be_run_on_stay_whole() -> None:
    def mean(parts: Any) -> float:
        if len(parts.batches) > 1:
            raise RuntimeError("shapes cannot be multiplied")
        return 1.0

    batches = [(torch.zeros(4, 2), torch.zeros(4))]
    assert parts_for(batches, mean).batches == batches
