"""Distinct values and numbers of integers against NumPy's own."""

import numpy as np
import pytest

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
