"""Fingerprints tell networks apart, and nothing else."""

from __future__ import annotations

import pytest
import torch

from sinkhorn_rebasin.errors import CheckpointError
from sinkhorn_rebasin.files.fingerprint import Fingerprint, values_digest
from sinkhorn_rebasin.files.receipt import Receipt

TYPES = [torch.float16, torch.bfloat16, torch.float64, torch.complex64, torch.bool, torch.int64]


@pytest.mark.parametrize("dtype", [*TYPES, torch.float8_e4m3fn])
def test_every_type_has_a_digest_of_its_values_alone(dtype: torch.dtype) -> None:
    tensor = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]).to(dtype)
    assert values_digest(tensor) == values_digest(tensor.clone())
    assert values_digest(tensor) != values_digest(tensor.flip(0).contiguous())
    assert values_digest(tensor.t()) == values_digest(tensor.t().contiguous())


def test_scalars_conjugates_and_empty_tensors_have_one() -> None:
    assert values_digest(torch.tensor(1.0)) != values_digest(torch.tensor(2.0))
    value = torch.tensor([1 + 2j])
    assert values_digest(value.conj()) == values_digest(torch.tensor([1 - 2j]))
    assert values_digest(torch.zeros(0, 3)) == values_digest(torch.zeros(3, 0))


def test_architecture_and_contents_are_told_apart() -> None:
    ones, twos = (Fingerprint.of({"w": torch.full((2,), value)}) for value in (1.0, 2.0))
    assert ones.architecture == twos.architecture
    assert ones.contents != twos.contents
    assert ones.architecture != Fingerprint.of({"w": torch.ones(2, 1)}).architecture
    assert ones.architecture != Fingerprint.of({"w": torch.ones(2).double()}).architecture


@pytest.mark.parametrize("data", [3, {"w": 1}, {"w": ["float32", [2], "d", "e"]}])
def test_json_of_another_kind_is_refused(data: object) -> None:
    with pytest.raises(CheckpointError, match="JSON of a fingerprint"):
        Fingerprint.from_json(data)
    with pytest.raises(CheckpointError, match="JSON of a receipt"):
        Receipt.from_json({"reference": None})
