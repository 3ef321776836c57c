"""Folders of Hugging Face written tensor by tensor, without a model in memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from sinkhorn_rebasin.cli.failures import NotMergeableError
from sinkhorn_rebasin.cli.models.hugging_face import check_weights, copy_beside, loading_line
from sinkhorn_rebasin.cli.output_folder import card
from sinkhorn_rebasin.connectivity.interpolation import interpolate
from sinkhorn_rebasin.errors import ArchitectureError, SpecError
from sinkhorn_rebasin.files.atomic import whole_folder
from sinkhorn_rebasin.files.receipt import Receipt
from sinkhorn_rebasin.files.shards import Shards, rewrite
from sinkhorn_rebasin.matching import Alignment
from sinkhorn_rebasin.permutations.action import permute_tensor
from sinkhorn_rebasin.permutations.completeness import completed

Facts = Sequence[tuple[str, str]]


def shards_of(text: str, alignment: Alignment) -> Shards | None:
    """Open a folder whose tensors an alignment moves one by one; None where it cannot.

    It can where the folder has the very names of the network, and permutations are all there is. Buffers are left to
    the network's class, which knows what to do with them.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    folder = Path(text)
    receipt = alignment.receipt
    if not (folder / "config.json").is_file() or receipt is None or receipt.target is None:
        return None
    if alignment.signs or alignment.log_scales or alignment.maps or alignment.continuous is not None:
        return None
    check_weights(folder)
    shards = Shards(folder)
    known, buffers = receipt.target.tensors, alignment.spec.buffers
    whole = completed(alignment.spec, dict.fromkeys(shards))  # type: ignore[arg-type]
    fits = all(name in known and name not in buffers for name in shards)
    return shards if fits and all(slot.tensor in whole for slot in alignment.spec.slots) else None


def stream_apply(alignment: Alignment, target: Shards, out: str, title: str, facts: Facts) -> None:
    """Write a checkpoint with its units in the order of an alignment.

    Raises:
        NotMergeableError: it is of another network; the first difference is named.
        CheckpointError: the folder cannot be written; nothing is left there.
    """
    check_receipt(alignment, target, "target")
    with whole_folder(out) as part:
        rewrite(target, part, lambda name, tensor: moved(alignment, name, tensor))
        finish(part, target, title, [target], facts)


def stream_merge(
    alignment: Alignment, reference: Shards, target: Shards, at: float, out: str, title: str, facts: Facts
) -> None:
    """Write the mixture of a checkpoint and of an aligned one; ignored layers are the reference's.

    Args:
        at: share of the reference.

    Raises:
        NotMergeableError: one is of another network; the first difference is named.
        CheckpointError: the folder cannot be written; nothing is left there.
    """
    check_receipt(alignment, reference, "reference")
    check_receipt(alignment, target, "target")

    def mixed(name: str, tensor: Tensor) -> Tensor:
        if name in alignment.spec.ignored:
            return tensor
        aligned = {name: moved(alignment, name, target[name])}
        return interpolate(aligned, {name: tensor}, at, whole=())[name]

    with whole_folder(out) as part:
        rewrite(reference, part, mixed)
        finish(part, reference, title, [reference, target], facts)


def check_receipt(alignment: Alignment, shards: Shards, role: str) -> None:
    """Raise NotMergeableError unless a checkpoint is the one that an alignment was found for."""
    receipt = alignment.receipt or Receipt()
    try:
        (receipt.check_target if role == "target" else receipt.check_reference)(shards)
        alignment.spec.check_constants(shards)
    except (ArchitectureError, SpecError) as error:
        raise NotMergeableError(f"{shards.folder}: {error}") from error


def moved(alignment: Alignment, name: str, tensor: Tensor) -> Tensor:
    """Move one tensor of a checkpoint by an alignment's permutations."""
    return permute_tensor(tensor, alignment.spec.slots_on(name), alignment.permutations)


def finish(
    part: Path, shards: Shards, title: str, parents: Sequence[Shards], facts: Facts, relation: str = "merge"
) -> None:
    """Write what lies beside the weights."""
    shutil.copyfile(shards.folder / "config.json", part / "config.json")
    copy_beside(shards.folder, part)
    config = json.loads((part / "config.json").read_text())
    load = loading_line(next(iter(config.get("architectures") or ()), "AutoModel"))
    text = card("transformers", load, title, [str(parent.folder) for parent in parents], facts, relation)
    (part / "README.md").write_text(text, encoding="utf-8")
