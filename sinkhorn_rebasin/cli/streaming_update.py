"""A fine-tune carried from folder to folder tensor by tensor, without a model in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sinkhorn_rebasin.carrying.preparation import check_heads
from sinkhorn_rebasin.carrying.update import check_real, differing_heads, wide
from sinkhorn_rebasin.cli.failures import NotMergeableError
from sinkhorn_rebasin.cli.streaming import Facts, check_receipt, finish, moved, shards_of
from sinkhorn_rebasin.errors import ArchitectureError, listed
from sinkhorn_rebasin.files.atomic import whole_folder
from sinkhorn_rebasin.files.fingerprint import Fingerprint, TensorPrint
from sinkhorn_rebasin.files.shards import Shards, rewrite
from sinkhorn_rebasin.matching import Alignment
from sinkhorn_rebasin.permutations.completeness import completed


@dataclass
class StreamedCarry:
    """Carry the difference of two checkpoints to a third.

    Attributes:
        alignment: of the base with the new base, of permutations alone.
        tuned, base, new_base: the checkpoints, with the same names.
        scale: what the update is multiplied by.
        heads: tensors that stay as the new base has them.
    """

    alignment: Alignment
    tuned: Shards
    base: Shards
    new_base: Shards
    scale: float
    heads: tuple[str, ...] = ()
    _changed: bool = field(default=False, init=False)

    @classmethod
    def of(
        cls, alignment: Alignment, tuned: str, base: str, new_base: str, scale: float
    ) -> StreamedCarry | None:
        """Open three folders; return None where they cannot be carried tensor by tensor."""
        opened = [shards_of(text, alignment) for text in (tuned, base, new_base)]
        first, second, third = opened
        if first is None or second is None or third is None or second.keys() != third.keys():
            return None
        return cls(alignment, first, second, third, scale)

    def write(self, out: str, title: str, facts: Facts) -> tuple[str, ...]:
        """Write the new base with the update added; return what to tell.

        Raises:
            NotMergeableError: a checkpoint is of another network; the first difference is named.
            ArchitectureError: nothing was changed by the fine-tune, or a tensor cannot be added to.
            CheckpointError: the folder cannot be written; nothing is left there.
        """
        check_receipt(self.alignment, self.base, "target")
        check_receipt(self.alignment, self.new_base, "reference")
        try:
            heads = differing_heads(self.tuned.outlines(), self.base.outlines(), "tuned network", "base")
            check_heads(tuple(sorted(heads)), self.alignment.spec)
        except ArchitectureError as error:
            raise NotMergeableError(f"{self.tuned.folder} and {self.base.folder}: {error}") from error
        self.heads = tuple(name for name in self.base if name in heads)
        notes = (f"heads of other labels stay as they are: {listed(self.heads)}",) if self.heads else ()
        with whole_folder(out) as part:
            rewrite(self.new_base, part, self._added)
            if not self._changed:
                raise ArchitectureError(
                    f"Expected a tuned network that differs from its base but every tensor of {self.tuned.folder} "
                    f"that both have is equal to that of {self.base.folder}: there is nothing to carry."
                )
            parents = [self.new_base, self.tuned, self.base]
            told = [*facts, *(("note", note) for note in notes)]
            finish(part, self.new_base, title, parents, told, "finetune")
        return notes

    def fingerprints(self) -> list[Fingerprint]:
        """Take the prints of the three networks, tied tensors under each of their names."""
        prints = []
        for shards in (self.tuned, self.base, self.new_base):
            known: Any = {name: TensorPrint.of(shards[name]) for name in shards}
            prints.append(Fingerprint(completed(self.alignment.spec, known)))  # type: ignore[arg-type]
        return prints

    def _added(self, name: str, tensor: Tensor) -> Tensor:
        if name in self.heads:
            return tensor
        first, second = self.tuned[name], self.base[name]
        for role, each in (("tuned network", first), ("base", second), ("new base", tensor)):
            check_real(name, each, role)
        difference = torch.where(first == second, 0.0, wide(first) - wide(second))
        if not bool(difference.abs().sum().isfinite()):
            raise ArchitectureError(
                f"Expected a finite update but {name!r} of the tuned network minus its base is not finite."
            )
        if not self.scale or not bool(difference.any()):
            self._changed |= bool(difference.any())
            return tensor
        self._changed = True
        return (wide(tensor) + self.scale * moved(self.alignment, name, difference)).to(tensor.dtype)
