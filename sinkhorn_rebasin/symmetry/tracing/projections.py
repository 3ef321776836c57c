"""Find the weights that make the queries, keys and values of attention."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from sinkhorn_rebasin.networks.tensor_tables import TensorTable

_PRODUCTS = {"addbmm", "addmm", "baddbmm", "bmm", "convolution", "linear", "matmul", "mm", "mv"}
_SOFTMAX = {"_safe_softmax", "_softmax", "softmax"}
_NOTHING: frozenset[str] = frozenset()


class Projections:
    """Follow matrices to the attention that they feed.

    Attention is the fused operation, or a product of two computed tensors, a softmax, and a product with a third.

    >>> import torch
    >>> weight, x = torch.ones(2, 2), torch.ones(1, 3, 2)
    >>> seen = Projections({"weight": weight})
    >>> seen.note("matmul", [x, weight], [q := x @ weight])
    >>> seen.note("bmm", [q, q], [scores := q @ q.mT])
    >>> seen.note("_softmax", [scores], [shares := scores.softmax(-1)])
    >>> seen.note("bmm", [shares, x], [shares @ x])
    >>> sorted(seen.names)
    ['weight']
    """

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self.names: set[str] = set()
        self._weights: TensorTable[str] = TensorTable()  # tensors made of one matrix alone, and its name
        self._made_by: TensorTable[frozenset[str]] = (
            TensorTable()
        )  # computed tensors, and the matrices of the last products
        self._scores: TensorTable[frozenset[str]] = (
            TensorTable()
        )  # what comes of a product of two computed tensors
        self._shares: TensorTable[frozenset[str]] = TensorTable()  # softmax of that
        for name, tensor in parameters.items():
            if tensor.ndim > 1 and tensor not in self._weights:
                self._weights[tensor] = name

    def note(self, operation: str, operands: Iterable[Tensor], outputs: Iterable[Tensor]) -> None:
        """Take in an operation."""
        given, made = list(operands), list(outputs)
        weights = frozenset(self._weights[tensor] for tensor in given if tensor in self._weights)
        computed = [tensor for tensor in given if tensor not in self._weights]
        is_product = operation in _PRODUCTS
        if "scaled_dot_product" in operation:
            self.names |= self._of(self._made_by, computed)
            return
        if is_product and (shares := self._of(self._shares, computed)):
            self.names |= shares | self._of(self._made_by, [t for t in computed if t not in self._shares])
        behind = self._of(self._made_by, computed)
        if is_product and weights:
            behind = weights
        scores, shares = self._of(self._scores, computed), self._of(self._shares, computed)
        if is_product:
            factors = [tensor for tensor in computed if tensor in self._made_by]
            scores, shares = (behind, _NOTHING) if len(factors) > 1 and not weights else (_NOTHING, _NOTHING)
        elif operation in _SOFTMAX:
            scores, shares = _NOTHING, scores
        for tensor in made:
            if len(weights) == 1 and all(t in self._weights for t in given):
                self._weights[tensor] = next(iter(weights))
                continue
            for table, names in ((self._made_by, behind), (self._scores, scores), (self._shares, shares)):
                if names:
                    table[tensor] = names

    @staticmethod
    def _of(table: TensorTable[frozenset[str]], tensors: Iterable[Tensor]) -> frozenset[str]:
        """Unite what a table has of tensors."""
        return _NOTHING.union(*(table.get(tensor, _NOTHING) for tensor in tensors))
