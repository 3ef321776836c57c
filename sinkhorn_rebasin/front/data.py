"""What an alignment learns from, and what it is judged on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler, Subset

from sinkhorn_rebasin._typing import BatchAdapter
from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.networks.batches import batches_in, read_batch
from sinkhorn_rebasin.networks.counting import samples_in
from sinkhorn_rebasin.networks.randomness import untouched_randomness
from sinkhorn_rebasin.networks.structures import tensors_in

HELD_OUT = 0.1
FEWEST_HELD_OUT = 30
"""Fewer samples cannot tell a gain from chance: a loss is often that of few samples that are badly wrong."""


@dataclass(frozen=True)
class Fold:
    """Hold one fold, and what is trained without it.

    Attributes:
        train: batches of the samples of the other folds, in a new order every time.
        batches: the same in memory.
        validation: batches of the fold's samples.
        samples: how many the fold has.
    """

    train: Any
    batches: list[Any]
    validation: list[Any]
    samples: int


@dataclass(frozen=True)
class AlignmentData:
    """Hold the batches of one alignment.

    Attributes:
        train: what the fits learn from; empty where only held-out data were given.
        validation: batches in memory that decide what is kept.
        kept_out: where the held-out batches come from, in words.
        folds: of few samples, all of which then train, and are the held-out ones of one fold each.
    """

    train: Any
    validation: list[Any]
    kept_out: str
    folds: tuple[Fold, ...] = ()

    @property
    def told(self) -> str:
        """Say where held-out data come from, and how many batches they are."""
        return self.kept_out if self.folds else f"{self.kept_out}, {len(self.validation)} batches of them"

    def first(self, samples: int, batch: BatchAdapter | None) -> list[Any]:
        """Return training batches with at least so many samples, or all."""
        return first_batches(self.train, samples, batch)


def alignment_data(
    train: Any, validation: Any, samples: int, seed: int, batch: BatchAdapter | None
) -> AlignmentData:
    """Part training from held-out batches.

    Given held-out data are read as they are. Without any, a tenth of the training data is kept out, or 30 samples
    where that is more, or half where that is fewer:

    - of a list of batches the last ones, at least one batch;
    - of a DataLoader samples of its dataset, drawn with the seed; both parts keep its batch size and collate
      function, and the training part its order or shuffling.

    Args:
        train: a DataLoader, a list of batches, or anything that can be read again and again.
        validation: the same, or None.
        samples: held-out batches are kept in memory until they hold so many.
        seed: of the split and of the shuffling.
        batch: a function from a batch to (inputs, labels).

    Raises:
        DataError: no batch; a one-shot iterator; data that cannot be split.

    Example:
        >>> data = alignment_data([torch.ones(20)] * 20, None, 100, 0, None)
        >>> len(data.train), len(data.validation)
        (18, 2)
    """
    check_readable("train", train)
    if validation is None:
        train, held_out, kept_out = split(train, seed, batch)
    else:
        check_readable("validation", validation)
        held_out, kept_out = validation, "validation data"
    batches = first_batches(held_out, samples, batch)
    if not batches:
        raise DataError(f"Expected at least one batch of held-out data, {kept_out}, but got none.")
    return AlignmentData(shuffled(train, seed), batches, kept_out)


def check_readable(name: str, data: Any) -> None:
    """Raise DataError unless data can be read again and again.

    >>> check_readable("train", [1])
    """
    advice = "pass a DataLoader or a list of batches"
    if isinstance(data, Iterator):
        raise DataError(f"Expected {name} to be read more than once but got a one-shot iterator; {advice}.")
    batches_in(data, name)
    if isinstance(data, Sequence) and not data:
        raise DataError(f"Expected {name} to hold at least one batch but it is empty.")


def check_comes_again(name: str, data: Any) -> None:
    """Raise DataError for data that were read and are used up.

    >>> check_comes_again("train", [1])
    """
    if isinstance(data, (DataLoader, Sequence)):
        return
    with untouched_randomness(), kept_order(data):
        if next(iter(data), None) is None:
            raise DataError(
                f"Expected {name} to be read more than once but {type(data).__name__} is used up after one pass; "
                f"pass a DataLoader or a list of batches."
            )


def held_out_of(samples: int, share: float = HELD_OUT) -> int:
    """Return how many of so many samples decide.

    They are a share, but at least 30, or half of fewer than 60.

    >>> held_out_of(1000), held_out_of(200), held_out_of(50), held_out_of(1)
    (100, 30, 25, 1)
    """
    return max(1, round(share * samples), min(FEWEST_HELD_OUT, samples // 2))


def split(train: Any, seed: int, batch: BatchAdapter | None = None) -> tuple[Any, Any, str]:
    """Keep a part of the training data out.

    Returns the rest, the part, and in words what was kept out: see :func:`alignment_data`.

    Raises:
        DataError: the data cannot be split; pass validation= then.

    >>> split([1, 2, 3], 0)
    ([1, 2], [3], 'last 1 of 3 training batches')
    """
    if isinstance(train, DataLoader):
        return _split_loader(train, seed)
    if not isinstance(train, Sequence):
        raise DataError(
            f"Expected held-out data, as {type(train).__name__} cannot be split: pass validation=, or train= as a "
            f"DataLoader or a list of batches."
        )
    if len(train) < 2:
        raise DataError(
            "Expected at least two training batches, of which the last is kept out, but got one: pass validation=, "
            "or smaller batches, such as list(zip(inputs.split(250), labels.split(250)))."
        )
    count = _batches_held_out([_samples(found, batch) for found in train])
    return train[:-count], train[-count:], f"last {count} of {len(train)} training batches"


def _batches_held_out(samples: Sequence[int]) -> int:
    """Return how many of the last batches decide, at most half of them."""
    wanted, count = held_out_of(sum(samples)), max(1, round(HELD_OUT * len(samples)))
    while sum(samples[-count:]) < wanted and count < len(samples) // 2:
        count += 1
    return count


def can_be_parted(loader: DataLoader[Any]) -> bool:
    """Tell whether parts of a loader's dataset can be drawn as the loader draws it.

    >>> can_be_parted(DataLoader(range(9), 3)), can_be_parted(DataLoader(range(9), sampler=[1, 2]))
    (True, False)
    """
    sampler = loader.sampler
    known = type(sampler) in (RandomSampler, SequentialSampler) and loader.batch_sampler is not None
    usual = known and type(loader.batch_sampler) is torch.utils.data.BatchSampler
    plain_random = not isinstance(sampler, RandomSampler) or not (sampler.replacement or sampler._num_samples)
    return not isinstance(loader.dataset, IterableDataset) and usual and plain_random


def loader_of(
    loader: DataLoader[Any], numbers: Sequence[int], seed: int, *, held_out: bool = False
) -> DataLoader[Any]:
    """Return a loader of some samples of a loader's dataset, in batches as it makes them.

    Args:
        loader: that can be parted.
        numbers: of the samples.
        seed: of the order, where the loader shuffles.
        held_out: draw all in the order of their numbers.

    >>> [batch.tolist() for batch in loader_of(DataLoader(range(9), 2), [8, 1, 2], 0, held_out=True)]
    [[1, 2], [8]]
    """
    options: dict[str, Any] = {"collate_fn": loader.collate_fn, "batch_size": loader.batch_size}
    options |= {"num_workers": loader.num_workers, "worker_init_fn": loader.worker_init_fn}
    options |= {"pin_memory": loader.pin_memory, "multiprocessing_context": loader.multiprocessing_context}
    if held_out:
        return DataLoader(Subset(loader.dataset, sorted(numbers)), **options)
    shuffle = isinstance(loader.sampler, RandomSampler)
    options["generator"] = torch.Generator().manual_seed(seed)
    options["drop_last"] = loader.drop_last and len(numbers) >= (loader.batch_size or 1)
    return DataLoader(
        Subset(loader.dataset, list(numbers) if shuffle else sorted(numbers)), shuffle=shuffle, **options
    )


def _split_loader(loader: DataLoader[Any], seed: int) -> tuple[Any, Any, str]:
    if not can_be_parted(loader):
        raise DataError(
            f"Expected held-out data, as a DataLoader with {type(loader.dataset).__name__} and "
            f"{type(loader.sampler).__name__} cannot be split without changing what it draws: pass validation=."
        )
    total: int = len(loader.dataset)  # type: ignore[arg-type]
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed)).tolist()
    count = held_out_of(total)
    if count >= total:
        raise DataError(f"Expected at least two training samples but got {total}: pass validation=.")
    training = loader_of(loader, order[count:], seed)
    held_out = loader_of(loader, order[:count], seed, held_out=True)
    return training, held_out, f"{count} of {total} training samples"


def shuffled(train: Any, seed: int) -> Any:
    """Read a list of batches in a new order every time; leave loaders alone.

    >>> sorted(shuffled([3, 1, 2], 0))
    [1, 2, 3]
    """
    if isinstance(train, DataLoader) or not isinstance(train, Sequence):
        return train
    generator = torch.Generator().manual_seed(seed)
    batches: Any = list(train)
    return DataLoader(batches, batch_size=None, shuffle=True, collate_fn=_as_it_is, generator=generator)


def first_batches(data: Iterable[Any], samples: int, batch: BatchAdapter | None) -> list[Any]:
    """Read batches until they hold so many samples; neither random states nor the data change.

    >>> first_batches([torch.ones(3), torch.ones(3), torch.ones(3)], 4, None)
    [tensor([1., 1., 1.]), tensor([1., 1., 1.])]
    """
    batches, count = [], 0
    with untouched_randomness(), kept_order(data):
        iterator = iter(data)
        while count < samples and (found := list(islice(iterator, 1))):
            batches += found
            count += _samples(found[0], batch)
    return batches


def _samples(found: Any, batch: BatchAdapter | None) -> int:
    read = found if batch is None else read_batch(found, batch, labelled=False)
    return samples_in(read, None) if any(tensor.ndim for tensor in tensors_in(read)) else 1


@contextmanager
def kept_order(data: Any) -> Iterator[None]:
    """Put the generators of a loader back to where they were.

    >>> loader = DataLoader(range(9), shuffle=True, generator=torch.Generator())
    >>> orders = []
    >>> for _ in range(2):
    ...     with kept_order(loader):
    ...         orders.append([int(number) for number in loader])
    >>> orders[0] == orders[1]
    True
    """
    holders = (data, getattr(data, "sampler", None), getattr(data, "batch_sampler", None))
    generators = [getattr(holder, "generator", None) for holder in holders]
    states = [(g, g.get_state()) for g in generators if isinstance(g, torch.Generator)]
    try:
        yield
    finally:
        for generator, state in states:
            generator.set_state(state)


def _as_it_is(batch: Any) -> Any:
    return batch
