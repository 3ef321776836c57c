import gc

import pytest
import torch
from torch.utils.weak import WeakTensorKeyDictionary

from sinkhorn_rebasin.networks.tensor_tables import TensorTable


@pytest.mark.parametrize("kind", [TensorTable, WeakTensorKeyDictionary])
def test_equal_tensors_are_apart_and_the_table_keeps_none_alive(kind):
    table, one, twin = kind(), torch.ones(2), torch.ones(2)
    table[one] = 1
    table[twin] = 2
    table[one] += 2
    assert (table[one], table[twin], len(table)) == (3, 2, 2)
    assert table.get(torch.ones(2)) is None
    assert table.pop(twin) == 2
    assert table.setdefault(twin, 5) == 5
    with pytest.raises(KeyError):
        table[torch.zeros(1)]
    assert {id(tensor) for tensor in table} == {id(one), id(twin)}
    del one
    gc.collect()
    assert len(table) == 1


def test_a_tensor_at_the_place_of_one_that_is_gone_has_no_entry():
    table = TensorTable()
    for _ in range(100):
        tensor = torch.ones(1)
        assert tensor not in table
        table[tensor] = True
        del tensor
    assert len(table) == 0


def test_a_tensor_that_only_a_graph_holds_keeps_its_entry():
    table = TensorTable()
    leaf = torch.ones(2, requires_grad=True)
    square = leaf**2
    table[square] = "square"
    loss = square.exp()
    del square
    saved = loss.grad_fn.next_functions[0][0]._saved_self
    assert saved is leaf
    assert all(tensor.shape == (2,) for tensor in table)
