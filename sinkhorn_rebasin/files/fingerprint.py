"""Fingerprints of networks: what tells one network's tensors from another's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import StateLike
from sinkhorn_rebasin.errors import ArchitectureError, CheckpointError


@dataclass(frozen=True)
class TensorPrint:
    """Describe one tensor: its type, its shape and a hash of its values."""

    dtype: str
    shape: tuple[int, ...]
    digest: str

    @classmethod
    def of(cls, tensor: Tensor) -> TensorPrint:
        """Take the print of a tensor.

        >>> TensorPrint.of(torch.zeros(2, 1)).dtype, TensorPrint.of(torch.zeros(2, 1)).shape
        ('float32', (2, 1))
        """
        dtype = str(tensor.dtype).removeprefix("torch.")
        return cls(dtype, tuple(tensor.shape), values_digest(tensor))


@dataclass(frozen=True)
class Fingerprint:
    """Tell a network from all others by the names, types, shapes and values of its tensors.

    No weight can be computed from it.

    Example:
        >>> layer = torch.nn.Linear(2, 1)
        >>> print_ = Fingerprint.of(layer.state_dict())
        >>> print_ == Fingerprint.of(layer.state_dict()), list(print_.tensors)
        (True, ['weight', 'bias'])
    """

    tensors: Mapping[str, TensorPrint]

    @classmethod
    def of(cls, state: StateLike) -> Fingerprint:
        """Take the fingerprint of a state."""
        return cls({name: TensorPrint.of(tensor) for name, tensor in state.items()})

    @property
    def architecture(self) -> str:
        """Hash names, types and shapes."""
        return _short([[name, each.dtype, list(each.shape)] for name, each in sorted(self.tensors.items())])

    @property
    def contents(self) -> str:
        """Hash names and values."""
        return _short([[name, each.digest] for name, each in sorted(self.tensors.items())])

    def check(self, state: StateLike, role: str) -> None:
        """Raise ArchitectureError naming the first tensor in which a state differs.

        Tensors that one of the two lacks are no difference, as names of tied tensors and buffers may be.
        """
        for name, known in self.tensors.items():
            if name not in state:
                continue
            shape, dtype = tuple(state[name].shape), str(state[name].dtype).removeprefix("torch.")
            if shape != known.shape or dtype != known.dtype:
                raise ArchitectureError(
                    f"Expected the {role} of this alignment, whose {name!r} is {known.dtype} {known.shape}, but got "
                    f"a network in which it is {dtype} {shape}."
                )
            if values_digest(state[name]) != known.digest:
                raise ArchitectureError(
                    f"Expected the {role} of this alignment but got another network: the first tensor with other "
                    f"values is {name!r}. To move it all the same, take the receipt off: "
                    f"dataclasses.replace(alignment, receipt=None)."
                )

    def to_json(self) -> dict[str, Any]:
        """Return what JSON takes."""
        return {name: [each.dtype, list(each.shape), each.digest] for name, each in self.tensors.items()}

    @classmethod
    def from_json(cls, data: Any) -> Fingerprint:
        """Read what :meth:`to_json` gave.

        Raises:
            CheckpointError: it is something else.
        """
        try:
            return cls(
                {
                    str(name): TensorPrint(str(dtype), tuple(map(int, shape)), str(digest))
                    for name, (dtype, shape, digest) in data.items()
                }
            )
        except (AttributeError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"Expected the JSON of a fingerprint but got {str(data)[:40]!r}."
            ) from error


def values_digest(tensor: Tensor) -> str:
    """Hash the values of a tensor, bit by bit.

    >>> values_digest(torch.zeros(2)) == values_digest(torch.zeros(2)), len(values_digest(torch.ones(())))
    (True, 32)
    """
    dense = tensor.detach().to_dense() if tensor.layout != torch.strided else tensor.detach()
    plain = dense.resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
    return hashlib.sha256(plain.view(torch.uint8).numpy().data).hexdigest()[:32]


def _short(described: Any) -> str:
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:32]
