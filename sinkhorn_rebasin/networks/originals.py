"""Which network a copy was made of, so that it is noticed when the copy reads the original's weights."""

from __future__ import annotations

from weakref import ReferenceType, WeakKeyDictionary, ref

from torch import Tensor, nn

_ORIGINALS: WeakKeyDictionary[nn.Module, list[tuple[str, ReferenceType[Tensor]]]] = WeakKeyDictionary()


def note_original(twin: nn.Module, module: nn.Module) -> None:
    """Remember the tensors that a copy must not read.

    So must it not read those that what it was copied from must not read. Its own of now are among them, which it must
    not read any more when others have taken their place.
    """
    named = [(name, ref(t)) for net in (twin, module) for name, t in _named(net)]
    _ORIGINALS[twin] = [*named, *_ORIGINALS.get(module, [])]


def _named(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]


def tensors_of_originals(twin: nn.Module) -> list[tuple[str, Tensor]]:
    """List the originals' tensors that still exist.

    They come by their names in the networks that a copy was made of.

    >>> layer, twin = nn.Linear(1, 2), nn.Linear(1, 2)
    >>> note_original(twin, layer)
    >>> [name for name, _ in tensors_of_originals(twin)]
    ['weight', 'bias', 'weight', 'bias']
    """
    alive = ((name, reference()) for name, reference in _ORIGINALS.get(twin, []))
    return [(name, tensor) for name, tensor in alive if tensor is not None]
