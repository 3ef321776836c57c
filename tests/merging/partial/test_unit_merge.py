from __future__ import annotations

import pytest
import torch

from sinkhorn_rebasin.errors import SpecError
from sinkhorn_rebasin.merging import UnitMerge


def test_merging_takes_means_and_unmerging_is_its_right_inverse() -> None:
    merge = UnitMerge(((0, 3, 4), (1,), (2, 5)), 3)
    units = torch.tensor([1.0, 2.0, 3.0, 5.0, 9.0, 7.0], dtype=torch.float64)
    assert (merge.merge_matrix() @ units).tolist() == [5.0, 2.0, 5.0]
    assert torch.equal(merge.merge_matrix() @ merge.unmerge_matrix(), torch.eye(3, dtype=torch.float64))
    assert (merge.unmerge_matrix() @ torch.arange(3.0, dtype=torch.float64)).tolist() == [0, 1, 2, 0, 0, 2]


def test_pairs_unmerge_by_twice_the_transpose() -> None:
    merge = UnitMerge.paired([2, 0, 1])
    assert merge.clusters == ((0, 5), (1, 3), (2, 4))
    assert torch.equal(merge.unmerge_matrix(), 2 * merge.merge_matrix().mT)


def test_units_that_are_not_merged_stand_beside() -> None:
    merge = UnitMerge.paired([2, 0, 1], merged=[1])
    assert merge.clusters == ((0,), (1, 3), (2,), (4,), (5,))
    assert (merge.size, merge.merged) == (5, 2)
    assert UnitMerge.apart(2).clusters == ((0,), (1,), (2,), (3,))


@pytest.mark.parametrize("clusters", [((0,),), ((0,), (0, 1)), ((0, 1), ()), ((0, 2),)])
def test_clusters_that_are_no_partition_are_refused(clusters: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(SpecError, match="each of 2 units once"):
        UnitMerge(clusters, 1)
