"""Distinct values and numbers of integers against NumPy's own."""

import numpy as np
import pytest

from sinkhorn_rebasin.symmetry.labels import numbering
from sinkhorn_rebasin.symmetry.labels.numbering import count_distinct, distinct_values, factorize

ARRAYS = {
    "empty": np.empty(0, dtype=np.int64),
    "one": np.array([4]),
    "ascending": np.arange(5, 900, 3),
    "descending": np.arange(50, 0, -1),
    "narrow": np.random.default_rng(0).integers(-40, 40, 300),
    "wide": np.random.default_rng(1).integers(-(2**62), 2**62, 300),
    "few of many": np.array([2**61, -(2**61), 0, 0, 2**61]),
    "hashes": np.random.default_rng(2).integers(0, 2**63, 100).astype(np.uint64) * np.uint64(2),
    "small and unsigned": np.array([7, 3, 7, 2**3], dtype=np.uint64),
    "near the end of 64 bits": np.array([2**64 - 1, 2**64 - 3, 2**64 - 1], dtype=np.uint64),
    "table": np.array([[3, 1], [1, 9]]),
    "equal": np.full(30, -7),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_they_are_what_numpy_finds(name: str) -> None:
    array = ARRAYS[name]
    values, numbers = np.unique(array.ravel(), return_inverse=True)
    found = distinct_values(array)
    assert found.dtype == array.dtype
    assert found.tolist() == values.tolist()
    assert count_distinct(array) == len(values)
    assert factorize(array).tolist() == numbers.ravel().tolist()


def test_what_is_returned_is_a_copy() -> None:
    array = np.arange(5)
    distinct_values(array)[0] = 9
    assert array[0] == 0


def columns(seed):
    generator = np.random.default_rng(seed)
    size = int(generator.integers(1, 30))
    narrow, wide = generator.integers(-5, 9, size), generator.integers(-(2**61), 2**61, size)
    if seed % 2:
        wide[: size // 2] = wide[size - size // 2 :]
    if seed % 3 == 0:
        narrow = np.unique(narrow)
        wide = wide[: len(narrow)]
    return narrow, wide


@pytest.mark.parametrize("seed", range(60))
def test_numbers_are_those_of_a_dictionary(seed):
    for given in (columns(seed), columns(seed)[:1], columns(seed)[1:]):
        rows = list(zip(*(column.tolist() for column in given), strict=True))
        met = list(dict.fromkeys(rows))
        numbers = numbering.factorize(*given).tolist()
        assert len(set(zip(rows, numbers, strict=True))) == len(met) == max(numbers) + 1
        first, place = numbering.factorize_by_appearance(numbering.keyed(*given))
        assert first.tolist() == [rows.index(row) for row in met]
        assert place.tolist() == [met.index(row) for row in rows]
        distinct = [column.tolist() for column in numbering.distinct(*given)]
        assert list(zip(*distinct, strict=True)) == sorted(met)
        assert numbering.count_distinct(*given) == len(met)


@pytest.mark.parametrize("seed", range(20))
def test_counts_are_those_of_numpy(seed):
    for column in columns(seed):
        values, counts = numbering.counted(column)
        expected, times = np.unique(column, return_counts=True)
        assert values.tolist() == expected.tolist()
        assert counts.tolist() == times.tolist()
