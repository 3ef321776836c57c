"""Very wide groups are matched in single precision, row by row, with the same result."""

from __future__ import annotations

import pytest
import torch

from sinkhorn_rebasin import weight_matching
from sinkhorn_rebasin.assignment import hungarian
from sinkhorn_rebasin.matching.weights import similarity
from tests.rebasin.test_candidates import planted


def test_very_wide_groups_are_matched_as_others_are(monkeypatch: pytest.MonkeyPatch) -> None:
    net, target, spec, back = planted(40)
    expected = weight_matching(net, target, spec, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(hungarian, "VERY_WIDE", 40)
    monkeypatch.setattr(similarity, "WIDE", 40)
    monkeypatch.setattr(hungarian, "_costs", None)  # what would copy in double precision
    found = weight_matching(net, target, spec, generator=torch.Generator().manual_seed(0))
    for name, order in found.permutations.items():
        assert torch.equal(order, expected.permutations[name])
        assert torch.equal(order, back[name])
    assert found.objective == pytest.approx(expected.objective, rel=1e-5)
