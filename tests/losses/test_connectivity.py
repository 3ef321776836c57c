from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from sinkhorn_rebasin import MidpointLoss, RandomPointLoss, permute_state
from sinkhorn_rebasin.errors import DataError, LossError
from tests.rebasin.rebasin_problems import built, inputs

LABELS = torch.arange(4) % 3


def lerped_loss(position: float) -> torch.Tensor:
    """The criterion at the mixed weights, put together by hand from the soft permutations."""
    reference, target, rebasin = built()
    start = permute_state(target.state_dict(), rebasin.spec, rebasin.soft_permutations())
    end = reference.state_dict()
    mixed = {name: (1 - position) * start[name] + position * end[name] for name in end}
    return F.cross_entropy(functional_call(reference, mixed, inputs("mlp")), LABELS)


def test_midpoint_loss_is_the_criterion_at_the_mean_of_the_weights() -> None:
    found = MidpointLoss(F.cross_entropy)(built()[2], (inputs("mlp"), LABELS))
    torch.testing.assert_close(found, lerped_loss(0.5))


def test_inputs_by_name() -> None:
    _, _, rebasin = built("keywords")
    batch = inputs("keywords"), torch.arange(4) % 2
    loss = MidpointLoss(F.cross_entropy)(rebasin, batch)
    torch.testing.assert_close(
        loss, F.cross_entropy(rebasin(batch[0], at=0.5), batch[1]), rtol=1e-4, atol=1e-5
    )


def test_random_point_loss_at_a_range_of_one_point() -> None:
    loss = RandomPointLoss(F.cross_entropy, 0.3, 0.3)
    torch.testing.assert_close(loss(built()[2], (inputs("mlp"), LABELS)), lerped_loss(0.3))


@pytest.mark.parametrize(("low", "high"), [(0.4, 0.6), (0.0, 1.0), (0.9, 1.0)])
def test_positions_fill_the_range_and_stay_inside(low: float, high: float) -> None:
    loss = RandomPointLoss(F.cross_entropy, low, high, generator=torch.Generator().manual_seed(0))
    drawn = torch.tensor([loss.position() for _ in range(2000)])
    assert float(drawn.min()) >= low
    assert float(drawn.max()) <= high
    assert float(drawn.min()) < low + 0.01 * (high - low)
    assert float(drawn.max()) > high - 0.01 * (high - low)
    assert float(drawn.mean()) == pytest.approx((low + high) / 2, abs=0.03 * (high - low))


def test_positions_follow_the_generator_and_leave_the_global_state_alone() -> None:
    before = torch.get_rng_state()
    one, other = (RandomPointLoss(F.mse_loss, generator=torch.Generator().manual_seed(4)) for _ in range(2))
    assert [one.position() for _ in range(5)] == [other.position() for _ in range(5)]
    assert len({one.position() for _ in range(5)}) == 5
    assert torch.equal(torch.get_rng_state(), before)


def test_positions_follow_the_global_seed_without_generator() -> None:
    loss = RandomPointLoss(F.mse_loss)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        first = [loss.position() for _ in range(3)]
        torch.manual_seed(3)
        assert [loss.position() for _ in range(3)] == first


@pytest.mark.parametrize(("low", "high"), [(0.6, 0.4), (-0.1, 0.5), (0.5, 1.1), (float("nan"), 1.0)])
def test_ranges_outside_the_segment_are_errors(low: float, high: float) -> None:
    with pytest.raises(LossError, match="low"):
        RandomPointLoss(F.cross_entropy, low, high)


def test_a_batch_that_is_no_pair_is_an_error() -> None:
    with pytest.raises(DataError, match="pair"):
        MidpointLoss(F.cross_entropy)(built()[2], inputs("mlp"))


def test_repr_names_the_criterion() -> None:
    assert repr(RandomPointLoss(F.cross_entropy)) == "RandomPointLoss(cross_entropy)"
    assert "CrossEntropyLoss" in repr(MidpointLoss(torch.nn.CrossEntropyLoss()))
