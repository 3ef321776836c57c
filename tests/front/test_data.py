from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, WeightedRandomSampler

from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.front.data import alignment_data, first_batches


class Numbers(Dataset):
    """The numbers below a hundred, or below another."""

    def __init__(self, count: int = 100) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index


class Stream(IterableDataset):
    """The numbers below a hundred, one after the other."""

    def __iter__(self) -> Any:
        return iter(range(100))


def doubled(numbers: list[int]) -> torch.Tensor:
    return 2 * torch.tensor(numbers)


def numbers_in(batches: Any) -> list[int]:
    return [int(number) for batch in batches for number in batch]


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_tenth_of_a_loaders_dataset_is_kept_out(shuffle: bool) -> None:
    loader = DataLoader(Numbers(400), 8, shuffle=shuffle, collate_fn=doubled)
    data = alignment_data(loader, None, 1000, 3, None)
    train, held_out = numbers_in(data.train), numbers_in(data.validation)
    assert len(held_out) == 40
    assert not set(train) & set(held_out)
    assert sorted(train + held_out) == list(range(0, 800, 2))
    assert (train == sorted(train)) is not shuffle
    assert len(data.validation[0]) == 8
    again, other = (alignment_data(loader, None, 1000, seed, None) for seed in (3, 4))
    assert numbers_in(again.validation) == held_out != numbers_in(other.validation)


def test_the_last_tenth_of_a_list_is_kept_out() -> None:
    batches = list(torch.arange(400).split(10))
    data = alignment_data(batches, None, 1000, 0, None)
    assert numbers_in(data.validation) == list(range(360, 400))
    orders = [numbers_in(data.train) for _ in range(2)]
    assert sorted(orders[0]) == list(range(360))
    assert orders[0] != orders[1]
    assert data.kept_out == "last 4 of 40 training batches"


@pytest.mark.parametrize(("total", "held_out"), [(200, 30), (50, 25), (9, 4)])
def test_of_few_samples_more_are_kept_out_up_to_half(total: int, held_out: int) -> None:
    loader = alignment_data(DataLoader(Numbers(total), 8), None, 1000, 0, None)
    assert len(numbers_in(loader.validation)) == held_out
    assert loader.kept_out == f"{held_out} of {total} training samples"
    listed = alignment_data(list(torch.arange(total).split(1)), None, 1000, 0, None)
    assert numbers_in(listed.validation) == list(range(total))[-held_out:]


def test_of_few_large_batches_at_most_half_are_kept_out() -> None:
    data = alignment_data(list(torch.arange(12).split(4)), None, 1000, 0, None)
    assert numbers_in(data.validation) == [8, 9, 10, 11]


def test_given_held_out_data_leave_the_training_data_whole() -> None:
    loader = DataLoader(Numbers(), 8)
    data = alignment_data(loader, [torch.ones(5)] * 4, 12, 0, None)
    assert data.train is loader
    assert len(data.validation) == 3


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(Stream(), 8),
        DataLoader(Numbers(), 8, sampler=WeightedRandomSampler([1.0] * 100, 100)),
        DataLoader(Numbers(), batch_sampler=[[1, 2], [3, 4]]),
        DataLoader(Numbers(), 8, sampler=range(50)),
    ],
    ids=["stream", "weighted", "batches", "range"],
)
def test_what_cannot_be_split_asks_for_held_out_data(loader: Any) -> None:
    with pytest.raises(DataError, match="validation="):
        alignment_data(loader, None, 10, 0, None)


def test_reading_the_first_batches_leaves_a_loader_where_it_was() -> None:
    generator = torch.Generator().manual_seed(0)
    loader = DataLoader(Numbers(), 8, shuffle=True, generator=generator)
    before, state = torch.get_rng_state(), generator.get_state()
    first, second = (numbers_in(first_batches(loader, 20, None)) for _ in range(2))
    assert first == second
    assert len(first) == 24
    assert torch.equal(generator.get_state(), state)
    assert torch.equal(torch.get_rng_state(), before)
