"""An alignment as one file of safetensors: its permutations, signs and maps; no weights and no code."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.errors import CheckpointError, RebasinError, SpecError, listed
from sinkhorn_rebasin.files.atomic import whole_file
from sinkhorn_rebasin.files.fingerprint import values_digest
from sinkhorn_rebasin.files.receipt import Receipt
from sinkhorn_rebasin.files.rescaling_json import rescaling_from_json, rescaling_to_json
from sinkhorn_rebasin.permutations.algebra import check_permutations
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec
from sinkhorn_rebasin.permutations.spec import PermutationSpec

FORMAT = "rebasin-alignment/1"


@dataclass(frozen=True)
class _Form:
    """How a field that is not made of tensors is written, and read back."""

    write: Callable[[Any], Any]
    read: Callable[[Any], Any]


_FORMS: Mapping[str, _Form] = {
    "spec": _Form(lambda spec: spec.to_json(), PermutationSpec.from_json),
    "rescaling": _Form(rescaling_to_json, rescaling_from_json),
    "continuous": _Form(lambda continuous: continuous.to_json(), ContinuousSpec.from_json),
    "receipt": _Form(lambda receipt: receipt.to_json(), Receipt.from_json),
    "objective": _Form(list, tuple),
    "weight_matched": _Form(list, tuple),
    "converged": _Form(bool, bool),
    "method": _Form(str, str),
}


def write_alignment(path: str | os.PathLike[str], fields: Mapping[str, Any]) -> None:
    """Write the fields of an alignment, whole or not at all.

    Fields that map groups to tensors are written as tensors, permutations as 32-bit integers; all others as JSON
    in the header. A checksum covers every byte.

    Args:
        path: where to; a file that is there is replaced.
        fields: name to value; of other names than an alignment has, tensors alone.

    Raises:
        CheckpointError: the file cannot be written, or a field is of no known kind.
    """
    tensors: State = {}
    order: dict[str, list[str]] = {}
    values: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            order[name] = list(value)
            tensors |= {f"{name}/{group}": _stored(name, tensor) for group, tensor in value.items()}
        elif value is not None and name not in _FORMS:
            raise CheckpointError(f"Expected fields that a file can hold but got {name!r}.")
        else:
            values[name] = None if value is None else _FORMS[name].write(value)
    header = {"format": FORMAT, "tensors": _json(order), "values": _json(values)}
    header["checksum"] = _checksum(header, tensors)
    with whole_file(path) as part:
        part.write_bytes(save(tensors, header))


def read_alignment(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the fields that :func:`write_alignment` wrote.

    Nothing in the file is run.

    Raises:
        CheckpointError: the file is missing, cut short, edited, or something else.
    """
    file = Path(path)
    header, tensors = _content(file)
    if header.get("format") != FORMAT:
        _refuse(file, f"its format is {header.get('format')!r}", "Was it written by another program?")
    if header.get("checksum") != _checksum(header, tensors):
        _refuse(file, "its checksum does not fit its content", "It was edited or damaged: write it anew.")
    try:
        order, values = json.loads(header["tensors"]), json.loads(header["values"])
        fields: dict[str, Any] = {
            name: None if value is None else _FORMS[name].read(value) for name, value in values.items()
        }
        for name, groups in order.items():
            fields[name] = {group: _read(name, tensors[f"{name}/{group}"]) for group in groups}
        _check(fields)
    except RebasinError as error:
        raise CheckpointError(f"Expected an alignment in {file}: {error}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        _refuse(
            file, f"its header is not understood ({error!r})", "Was it written by a newer version?", error
        )
    return fields


def _check(fields: Mapping[str, Any]) -> None:
    """Refuse permutations that are none, although the checksum fits."""
    spec, permutations = fields["spec"], fields["permutations"]
    strangers = [name for name in permutations if name not in spec]
    if strangers:
        raise SpecError(f"Expected permutations of the groups of its spec but got {listed(strangers)}.")
    if permutations.keys() == set(spec.names):
        check_permutations(spec, permutations)


def _content(file: Path) -> tuple[dict[str, str], State]:
    if not file.is_file():
        raise CheckpointError(f"Expected an alignment in {file} but there is no such file.")
    try:
        with safe_open(file, framework="pt") as opened:
            header = dict(opened.metadata() or {})
            return header, {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        _refuse(file, str(error).splitlines()[0], "It was cut short, or is no file of safetensors.", error)


def _refuse(file: Path, found: str, remedy: str, cause: Exception | None = None) -> NoReturn:
    raise CheckpointError(f"Expected an alignment in {file} but {found}. {remedy}") from cause


def _stored(kind: str, tensor: Tensor) -> Tensor:
    narrow = tensor.to(torch.int32) if kind == "permutations" else tensor
    return narrow.detach().cpu().contiguous().clone()


def _read(kind: str, tensor: Tensor) -> Tensor:
    # A copy lies in memory as any new tensor does; products of tensors that do not are rounded otherwise.
    return tensor.long() if kind == "permutations" else tensor.clone()


def _json(value: Any) -> str:
    return json.dumps(value)


def _checksum(header: Mapping[str, str], tensors: State) -> str:
    described = [
        sorted((name, text) for name, text in header.items() if name != "checksum"),
        sorted(
            (name, str(tensor.dtype), list(tensor.shape), values_digest(tensor))
            for name, tensor in tensors.items()
        ),
    ]
    return hashlib.sha256(_json(described).encode()).hexdigest()
