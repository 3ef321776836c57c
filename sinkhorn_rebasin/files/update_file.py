"""A carried update as one file of safetensors: its tensors, and what is known of it as JSON; no code."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from sinkhorn_rebasin._typing import State, StateLike
from sinkhorn_rebasin.errors import CheckpointError
from sinkhorn_rebasin.files.atomic import whole_file
from sinkhorn_rebasin.files.fingerprint import values_digest

FORMAT = "rebasin-update/1"


def write_update(
    path: str | os.PathLike[str], groups: Mapping[str, StateLike], facts: Mapping[str, Any]
) -> None:
    """Write named groups of tensors and facts, whole or not at all.

    Args:
        path: where to; a file that is there is replaced.
        groups: such as ``"state"``, tensors by name; a name may come in several groups.
        facts: as JSON takes them.

    Raises:
        CheckpointError: the file cannot be written.
    """
    tensors = {
        f"{group}/{name}": tensor.detach().cpu().contiguous().clone()
        for group, state in groups.items()
        for name, tensor in state.items()
    }
    header = {"format": FORMAT, "facts": json.dumps(dict(facts))}
    header["checksum"] = _checksum(header, tensors)
    with whole_file(path) as part:
        part.write_bytes(save(tensors, header))


def read_update(path: str | os.PathLike[str]) -> tuple[dict[str, State], dict[str, Any]]:
    """Read the groups and facts that :func:`write_update` wrote.

    Raises:
        CheckpointError: the file is missing, cut short, edited, or something else.

    Example:
        >>> import tempfile, torch
        >>> file = tempfile.mkdtemp() + "/update.safetensors"
        >>> write_update(file, {"state": {"w": torch.ones(1)}}, {"scale": 1.0})
        >>> read_update(file)
        ({'state': {'w': tensor([1.])}}, {'scale': 1.0})
    """
    file = Path(path)
    if not file.is_file():
        raise CheckpointError(f"Expected a carried update in {file} but there is no such file.")
    try:
        with safe_open(file, framework="pt") as opened:
            header = dict(opened.metadata() or {})
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"Expected a carried update in {file} but it does not load ({str(error).splitlines()[0]}): it was cut "
            f"short or is no file of safetensors."
        ) from error
    if header.get("format") != FORMAT or header.get("checksum") != _checksum(header, tensors):
        raise CheckpointError(
            f"Expected a carried update in {file} but its format or checksum does not fit: it was edited, damaged, "
            f"or written by another program."
        )
    groups: dict[str, State] = {}
    for name, tensor in tensors.items():
        group, _, own = name.partition("/")
        groups.setdefault(group, {})[own] = tensor.clone()
    facts: dict[str, Any] = json.loads(header["facts"])
    return groups, facts


def _checksum(header: Mapping[str, str], tensors: StateLike) -> str:
    described = [
        sorted((name, text) for name, text in header.items() if name != "checksum"),
        sorted((name, str(t.dtype), list(t.shape), values_digest(t)) for name, t in tensors.items()),
    ]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()
