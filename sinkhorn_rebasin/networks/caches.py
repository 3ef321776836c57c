"""Caches among the outputs: what a network keeps for its next call, such as keys and values of attention."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from torch import Tensor, nn

# Names of caches in outputs of the transformers library, whose networks may hide their arguments behind others'.
_THEIRS = frozenset({"past_key_values", "past_buckets_states", "cache", "cache_params", "mems"})
_KEPT = frozenset({"past", "cache", "caches", "kv", "mems"})
_CONTAINERS = frozenset({"list", "List", "tuple", "Tuple", "Sequence", "Iterable", "dict", "Dict", "Mapping"})
_OF_MEMORY = frozenset({"past", "cache", "caches", "kv", "mems", "memory", "state"})


class _Argument(NamedTuple):
    """Hold the name and the annotated types of an argument."""

    name: str
    types: frozenset[str]


def without_caches(network: nn.Module, returned: Any) -> tuple[Any, tuple[str, ...]]:
    """Leave out caches at any depth of containers.

    An output is a cache where the network takes it back: some module of it has an argument, None by default, that

    - is annotated with the class of the output, or has no annotation and a name of memory (``cache``, ``past``), as
      has the class of the output; the output is an object that is no tensor and no container;
    - or has the name of the output, which is one of memory; the output is no single tensor;
    - or, for an item of a plain tuple, which has no name, is the network's own argument with the name of a cache.
      The item is a sequence of layers, each a tuple of keys and values: an even number of tensors of three or more
      axes. Were two items such, both would count.

    Returns:
        The outputs that are none, and the places of those that are.

    >>> class Cached(nn.Module):
    ...     def forward(self, x, cache=None):
    ...         return {"logits": x, "cache": [(x, x)]}
    >>> without_caches(Cached(), Cached()(Tensor(2)))[1]
    ('cache',)
    """
    caches: list[str] = []
    place = _place_of_keys_and_values(network, returned)
    if place is not None:
        caches.append(f"[{place}]")
        returned = tuple(() if number == place else item for number, item in enumerate(returned))
    return _kept(returned, _optional_arguments(network), "", caches), tuple(caches)


def _place_of_keys_and_values(network: nn.Module, returned: Any) -> int | None:
    """Find the cache in a plain tuple, if there is just one."""
    if type(returned) not in (tuple, list):
        return None
    takes = any(
        _KEPT.intersection(argument.name.lower().split("_"))
        and (not argument.types or argument.types & _CONTAINERS)
        for argument in _optional_of(getattr(network.forward, "__func__", network.forward))
    )
    places = [number for number, item in enumerate(returned) if takes and _is_of_layers(item)]
    return places[0] if len(places) == 1 and len(returned) > 1 else None


def _is_of_layers(item: Any) -> bool:
    """Tell whether an item is keys and values of layers.

    >>> keys, values = Tensor(2, 3, 4), Tensor(2, 3, 4)
    >>> _is_of_layers([(keys, values)]), _is_of_layers([keys, values]), _is_of_layers((keys, values))
    (True, False, False)
    """
    layers = list(item.values()) if type(item) is dict else item
    return (
        isinstance(layers, (tuple, list))
        and len(layers) > 0
        and all(
            type(layer) in (tuple, list)
            and len(layer) >= 2
            and len(layer) % 2 == 0
            and all(isinstance(tensor, Tensor) and tensor.ndim >= 3 for tensor in layer)
            for layer in layers
        )
    )


def _kept(returned: Any, arguments: list[_Argument], place: str, caches: list[str]) -> Any:
    """Return the items that are no caches, and note the others."""
    if isinstance(returned, tuple) and hasattr(returned, "_fields"):
        returned = dict(zip(returned._fields, returned, strict=True))
    if isinstance(returned, Mapping):
        kept = {}
        for name, value in returned.items():
            inside = f"{place}[{name!r}]" if place else str(name)
            if _is_cache(str(name), value, returned, arguments):
                caches.append(inside)
            else:
                kept[name] = _kept(value, arguments, inside, caches)
        return kept
    if not isinstance(returned, (tuple, list)):
        return returned
    items = []
    for number, value in enumerate(returned):
        inside = f"{place}[{number}]"
        if _is_cache("", value, returned, arguments):
            caches.append(inside)
        else:
            items.append(_kept(value, arguments, inside, caches))
    return items


def _is_cache(name: str, value: Any, holder: Any, arguments: list[_Argument]) -> bool:
    """Tell whether an output is what attention keeps."""
    kinds = type(value).__mro__
    theirs = any(kind.__name__ == "ModelOutput" for kind in type(holder).__mro__)
    if name == "past_key_values" or (theirs and name in _THEIRS):
        return True
    if isinstance(value, (Tensor, str, int, float, type(None))):
        return False
    if isinstance(value, (Mapping, tuple, list)):
        return _is_of_memory(name) and any(argument.name == name for argument in arguments)
    if any(kind.__name__.endswith("Cache") and kind.__module__.startswith("transformers") for kind in kinds):
        return True
    classes = {kind.__name__ for kind in kinds if kind is not object}
    remembers = any(_is_of_memory(_snake_case(kind)) for kind in classes)
    return any(
        classes & argument.types if argument.types else remembers and _is_of_memory(argument.name)
        for argument in arguments
    )


def _is_of_memory(name: str) -> bool:
    """Tell whether a name speaks of what is kept.

    >>> _is_of_memory("kv_cache"), _is_of_memory("hidden_states")
    (True, False)
    """
    return not _OF_MEMORY.isdisjoint(name.lower().split("_")) and not name.endswith("hidden_state")


def _snake_case(name: str) -> str:
    """Write the name of a class with underscores.

    >>> _snake_case("KVCache"), _snake_case("DynamicState")
    ('kv_cache', 'dynamic_state')
    """
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _optional_arguments(network: nn.Module) -> list[_Argument]:
    """List what modules take that is None by default."""
    forwards = {
        getattr(module.forward, "__func__", module.forward): None
        for module in network.modules()
        if not type(module).__module__.startswith("torch.nn.")
    }
    return [argument for forward in forwards for argument in _optional_of(forward)]


@lru_cache(maxsize=1024)
def _optional_of(forward: Callable[..., Any]) -> tuple[_Argument, ...]:
    try:
        parameters = inspect.signature(forward).parameters.values()
    except (TypeError, ValueError):
        return ()
    return tuple(
        _Argument(parameter.name, _types_in(parameter.annotation))
        for parameter in parameters
        if parameter.default is None
    )


def _types_in(annotation: Any) -> frozenset[str]:
    """Name the types in an annotation.

    >>> sorted(_types_in("cache.KVCache | None")), sorted(_types_in(int))
    (['KVCache', 'None', 'cache'], ['int'])
    """
    if annotation in (inspect.Parameter.empty, Any, object, "Any", "object"):
        return frozenset()
    written = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return frozenset(re.findall(r"\w+", written)) or frozenset({"None"})
