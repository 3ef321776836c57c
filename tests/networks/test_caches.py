"""Outputs that a network takes back in its next call are told from outputs."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin.networks.caches import without_caches

X = torch.ones(2)
Result = namedtuple("Result", ["logits", "memory"])


class Store:
    """Keys and values; its name says nothing."""

    def __init__(self) -> None:
        self.keys = torch.ones(3)


class Longer(Store):
    """A store of another kind."""


class KVCache(Store):
    """A store whose name tells what it is."""


@dataclass
class Pair:
    keys: Tensor
    values: Tensor


class Plain(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Annotated(nn.Module):
    def forward(self, x: Tensor, kept: Store | Pair | None = None) -> Tensor:
        return x


class Unannotated(nn.Module):
    def forward(self, x, past=None, features=None):  # type: ignore[no-untyped-def]
        return x


class Inside(nn.Module):
    """What is inside takes the cache back; it has keywords of any kind itself."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = Annotated()

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        return self.inside(*arguments, **keywords)


@pytest.mark.parametrize(
    ("network", "returned", "places"),
    [
        (Annotated, (X, Store()), ("[1]",)),
        (Annotated, (X, Longer()), ("[1]",)),
        (Annotated, (X, Pair(X, X)), ("[1]",)),
        (Annotated, {"logits": X, "any": Store()}, ("any",)),
        (Annotated, {"logits": X, "kept": [X, X]}, ()),
        (Inside, (X, {"more": [Store(), X]}), ("[1]['more'][0]",)),
        (Unannotated, (X, KVCache()), ("[1]",)),
        (Unannotated, (X, Store()), ()),
        (Unannotated, {"logits": X, "past": ((X, X),)}, ("past",)),
        (Unannotated, {"logits": X, "past": X}, ()),
        (Unannotated, {"logits": X, "features": [X, X]}, ()),
        (Unannotated, Result(X, [X, X]), ()),
        (Plain, (X, Store()), ()),
        (Plain, (X, KVCache()), ()),
        (Plain, {"logits": X, "past": ((X, X),)}, ()),
        (Plain, {"logits": X, "past_key_values": ((X, X),)}, ("past_key_values",)),
    ],
)
def test_what_the_network_takes_back_is_a_cache(
    network: type[nn.Module], returned: Any, places: tuple[str, ...]
) -> None:
    assert without_caches(network(), returned)[1] == places


def test_what_is_left_has_the_order_of_what_was_returned() -> None:
    left, places = without_caches(Annotated(), [torch.zeros(1), Store(), {"b": X, "c": Store()}])
    assert [len(part) for part in (left[0], left[1]["b"])] == [1, 2]
    assert list(left[1]) == ["b"]
    assert places == ("[1]", "[2]['c']")


KEYS = torch.ones(2, 3, 4)


class Typed(nn.Module):
    def forward(self, x: Tensor, past: list[tuple[Tensor, Tensor]] | None = None) -> Tensor:
        return x


class OfAnother(nn.Module):
    def forward(self, x: Tensor, past: Tensor | None = None, features: list[Tensor] | None = None) -> Tensor:
        return x


class Holding(nn.Module):
    """A network that takes nothing back, around one that does."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = Typed()

    def forward(self, x: Tensor) -> Tensor:
        return self.inside(x)


@pytest.mark.parametrize(
    ("network", "returned", "places"),
    [
        (Unannotated, (X, [(KEYS, KEYS)]), ("[1]",)),
        (Typed, (X, ((KEYS, KEYS), (KEYS, KEYS))), ("[1]",)),
        (Typed, (X, {0: (KEYS, KEYS)}), ("[1]",)),
        (Typed, ([(KEYS, KEYS)], X), ("[0]",)),
        (Typed, (X, [KEYS, KEYS]), ()),
        (Typed, (X, (KEYS, KEYS)), ()),
        (Typed, (X, [(X, X)]), ()),
        (Typed, (X, [(KEYS, KEYS, KEYS)]), ()),
        (Typed, (X, [(KEYS, KEYS)], [(KEYS, KEYS)]), ()),
        (Typed, ([(KEYS, KEYS)],), ()),
        (OfAnother, (X, [(KEYS, KEYS)]), ()),
        (Plain, (X, [(KEYS, KEYS)]), ()),
        (Holding, (X, [(KEYS, KEYS)]), ()),
    ],
)
def test_keys_and_values_in_a_plain_tuple_are_a_cache_of_what_takes_them_back(
    network: type[nn.Module], returned: Any, places: tuple[str, ...]
) -> None:
    assert without_caches(network(), returned)[1] == places


def test_places_are_those_of_the_whole_tuple() -> None:
    class Both(Annotated):
        def forward(self, x: Tensor, past: Any = None, kept: Store | None = None) -> Tensor:
            return x

    left, places = without_caches(Both(), (X, [(KEYS, KEYS)], Store(), KEYS))
    assert places == ("[1]", "[2]")
    assert [part.shape for part in left if isinstance(part, Tensor)] == [X.shape, KEYS.shape]
