"""The pure functions against plain Python."""

import pytest
import torch

from sinkhorn_rebasin import connectivity
from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.metrics import functional


def test_path_arithmetic_is_that_of_connectivity() -> None:
    assert functional.barrier is connectivity.barrier
    assert functional.area_under_curve is connectivity.area_under_curve


def test_recovery_counts_units_not_groups() -> None:
    estimated = {"wide": torch.arange(8), "narrow": torch.tensor([1, 0])}
    truth = {"narrow": torch.tensor([0, 1]), "wide": torch.arange(8)}
    assert functional.permutation_recovery(estimated, truth).item() == pytest.approx(0.8)
    agreement = functional.permutation_agreement(estimated, truth)
    assert {name: value.item() for name, value in agreement.items()} == {"wide": 1.0, "narrow": 0.0}


def test_soft_matrices_are_read_by_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    indices = torch.stack([torch.randperm(6, generator=generator) for _ in range(3)])
    units = torch.arange(6.0).expand(3, 6)
    matrix = torch.nn.functional.one_hot(indices, 6).float()
    assert torch.equal((matrix @ units.unsqueeze(-1)).squeeze(-1), units.gather(1, indices))
    soft = 0.7 * matrix + 0.3 / 6
    assert functional.permutation_recovery(soft, indices).item() == 1.0
    assert functional.permutation_recovery(soft.mT, indices).item() < 1.0


def test_nothing_to_permute() -> None:
    assert functional.permutation_recovery({}, {}).item() == 1.0


def test_relative_change() -> None:
    x = torch.tensor([[2.0, -8.0], [1.0, 0.0]])
    assert functional.relative_change(x, x).item() == 0.0
    assert functional.relative_change(x, x + torch.tensor([[0.0, 0.0], [0.0, 2.0]])).item() == 0.25
    assert functional.relative_change(torch.zeros(3), torch.zeros(3)).item() == 0.0
    assert functional.relative_change(torch.zeros(3), torch.ones(3)).isinf()
    assert functional.relative_change(x, x * torch.nan).isnan()
    assert functional.relative_change(torch.zeros(0), torch.zeros(0)).item() == 0.0


def test_errors() -> None:
    with pytest.raises(DataError, match=r"groups \['a'\] but got \['b'\]"):
        functional.permutation_recovery({"b": torch.arange(2)}, {"a": torch.arange(2)})
    with pytest.raises(DataError, match=r"shape \(3,\) for the group 'a' but got \(2,\)"):
        functional.permutation_agreement({"a": torch.arange(2)}, {"a": torch.arange(3)})
    with pytest.raises(DataError, match="one shape"):
        functional.relative_change(torch.zeros(2), torch.zeros(2, 1))
