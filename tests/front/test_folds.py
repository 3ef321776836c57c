"""Few samples in folds: each is kept out once, and nothing of the caller's changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from sinkhorn_rebasin.front.folds import data_in_folds

NUMBERS = torch.arange(23.0)


def rows(batches: Any) -> list[float]:
    return sorted(float(number) for batch in batches for number in batch[0])


def loader(**options: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(NUMBERS), 4, **options)


@pytest.mark.parametrize(
    "train",
    [[(part,) for part in NUMBERS.split(7)], loader(), loader(shuffle=True)],
    ids=["list", "loader", "shuffled"],
)
def test_every_sample_is_kept_out_of_one_fold_and_trains_in_the_others(train: Any) -> None:
    data = data_in_folds(train, 5, 1000, 3, None)
    assert data is not None
    assert data.kept_out == data.told == "each of 5 folds of 23 training samples"
    assert rows(data.train) == rows(data.validation) == NUMBERS.tolist()
    kept_out = [rows(fold.validation) for fold in data.folds]
    assert sorted(number for out in kept_out for number in out) == NUMBERS.tolist()
    assert sorted(map(len, kept_out)) == sorted(fold.samples for fold in data.folds) == [4, 4, 5, 5, 5]
    for fold, out in zip(data.folds, kept_out, strict=True):
        assert rows(fold.train) == rows(fold.batches) == sorted(set(NUMBERS.tolist()) - set(out))


def test_the_seed_says_what_lies_in_which_fold_and_orders_are_new_every_time() -> None:
    one, same, other = (data_in_folds([(NUMBERS,)], 5, 1000, seed, None) for seed in (3, 3, 4))
    assert rows(one.folds[0].validation) == rows(same.folds[0].validation) != rows(other.folds[0].validation)
    shuffled = data_in_folds(loader(shuffle=True), 5, 1000, 0, None).folds[0].train
    orders = [[float(number) for batch in shuffled for number in batch[0]] for _ in range(2)]
    assert orders[0] != orders[1]


def test_a_loaders_generator_stays() -> None:
    generator = torch.Generator().manual_seed(5)
    before = generator.get_state()
    data_in_folds(loader(shuffle=True, generator=generator), 5, 1000, 0, None)
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize(
    "train",
    [
        [(torch.arange(100.0),)],
        [(torch.arange(9.0),)],
        [(NUMBERS, "text")],
        [torch.zeros(())] * 20,
        DataLoader(TensorDataset(torch.arange(100.0)), 4),
        loader(sampler=list(range(23))),
    ],
    ids=["many", "too few", "text", "no rows", "many in a loader", "own sampler"],
)
def test_what_cannot_be_parted_or_is_not_few_has_no_folds(train: Any) -> None:
    assert data_in_folds(train, 5, 1000, 0, None) is None


def test_one_fold_is_none() -> None:
    assert data_in_folds([(NUMBERS,)], 1, 1000, 0, None) is None
