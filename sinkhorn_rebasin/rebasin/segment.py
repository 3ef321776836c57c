"""The segment between a rebased target and its reference: its states, its networks, and the way to run them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import BatchAdapter, ExampleInputs, Heads, MergedHeads, Permutations, State
from sinkhorn_rebasin.activations import repair as repaired
from sinkhorn_rebasin.connectivity import LinearPath
from sinkhorn_rebasin.connectivity.interpolation import Interpolation, is_mixable, possibly_infinite
from sinkhorn_rebasin.connectivity.statistics import moving_statistics
from sinkhorn_rebasin.errors import ArchitectureError, listed
from sinkhorn_rebasin.networks.architecture import check_heads
from sinkhorn_rebasin.networks.pair import NetworkPair
from sinkhorn_rebasin.networks.separate_heads import with_each_head
from sinkhorn_rebasin.permutations import PermutationSpec
from sinkhorn_rebasin.permutations.action import permute_tensor
from sinkhorn_rebasin.permutations.heads import with_heads
from sinkhorn_rebasin.permutations.merged_weights import MergedWeights
from sinkhorn_rebasin.rebasin.deferring import deferred_weights


class RebasedSegment(NetworkPair):
    """Run and build the networks between a rebased target and the reference.

    A subclass says where the target lies: see :meth:`rebased_state`.

    Args:
        reference, target: networks that differ in the values of their weights alone.
        example_inputs: with them, averages of a user's own layers are told from other buffers.
        spec: the symmetries.
        heads: whose ignored tensors the networks in between have.

    Raises:
        ArchitectureError: ``heads`` is something else.
    """

    spec: PermutationSpec

    @torch.inference_mode(False)
    def __init__(
        self,
        reference: nn.Module,
        target: nn.Module,
        example_inputs: ExampleInputs = None,
        *,
        spec: PermutationSpec,
        heads: Heads | None = None,
    ) -> None:
        check_heads(heads)
        super().__init__(reference, target, apart=spec.ignored)
        self.spec, self.heads = spec, heads
        self._mixing = Interpolation(target, moving_statistics(reference, target, example_inputs))
        self._kept: Any = None

    def rebased_state(
        self, hard: bool | None = None, *, permutations: Permutations | None = None, own_dtype: bool = True
    ) -> State:
        """Return the target's tensors in their new place."""
        raise NotImplementedError

    def acting(self) -> tuple[PermutationSpec, dict[str, Tensor]] | None:
        """Return the soft matrices, and the slots that they act on, where nothing else moves the networks."""
        return None

    def state_at(
        self,
        at: float | Tensor,
        hard: bool | None = None,
        *,
        permutations: Permutations | None = None,
        heads: Heads | None = None,
    ) -> State:
        """Return the tensors at a position of the segment.

        Position 0 is the rebased target, 1 the reference.

        Equal tensors pass through bit for bit. Buffers that are no statistics of norm layers, and have no mean, are
        those of the nearer end. Tensors that the spec ignores are those of one network everywhere.

        Args:
            at: λ, a number or a 0-d tensor.
            hard, permutations: as for :meth:`rebased_state`.
            heads: whose ignored tensors; None: as the re-basin was made with, or else the reference's.

        Raises:
            ArchitectureError: when the position is no number.

        Warns:
            RebasinWarning: Such buffers differ; they are named once.
        """
        if hard is None and permutations is None and (state := self._by_products(at)) is not None:
            return state
        ignored = self.spec.ignored
        rebased, reference = self.rebased_state(hard, permutations=permutations), self.reference_state()
        if not ignored:
            return self._mixing(rebased, reference, at)
        mixed = self._mixing({n: t for n, t in rebased.items() if n not in ignored}, reference, at)
        kept = rebased if self._whose(heads) == "target" else reference
        return {name: kept[name] if name in ignored else mixed[name] for name in rebased}

    def _by_products(self, at: float | Tensor, deferring: bool = False) -> State | None:
        """Mix the networks without a graph through their weights; see :class:`MergedWeights`.

        None where more than soft matrices moves the networks. When ``deferring``, weights of wide linear layers are
        not formed before something asks for them.
        """
        inside = isinstance(at, float) and 0 < at < 1 and not self.spec.ignored
        moving = self.acting() if inside and torch.is_grad_enabled() else None
        if moving is None:
            return None
        (spec, matrices), states = moving, (self.target_state(), self.reference_state())
        merged = self._merged_weights(*states, spec, next(iter(matrices.values())).dtype)
        later = deferred_weights(merged, self.reference, matrices, float(at)) if deferring else {}
        mixed = merged.part(name for name in merged.names if name not in later)(matrices, float(at)) | later
        target, reference = states
        others = [name for name in target if name not in mixed]
        moved = {name: permute_tensor(target[name], spec.slots_on(name), matrices) for name in others}
        moved = {name: tensor.to(target[name].dtype) for name, tensor in moved.items()}
        rest = self._mixing(moved, {name: reference[name] for name in others}, at)
        return {name: mixed[name] if name in mixed else rest[name] for name in target}

    def _merged_weights(
        self, target: State, reference: State, spec: PermutationSpec, dtype: torch.dtype
    ) -> MergedWeights:
        """Lay the networks out for products.

        How they were laid out is kept.
        """
        mixed = [name for name in target if name not in self._mixing.whole and is_mixable(target[name])]
        tensors = [state[name] for state in (target, reference) for name in mixed]
        key = dtype, [(tensor.data_ptr(), tensor._version) for tensor in tensors]
        if self._kept is None or self._kept[0] != key or self._kept[1] is not spec:
            odd = possibly_infinite({name: reference[name] for name in mixed})
            finite = [name for name in mixed if name not in odd]
            # The tensors are held, so that no others get their memory while they are compared by it.
            self._kept = key, spec, MergedWeights(target, reference, spec, finite, dtype), tensors
        merged: MergedWeights = self._kept[2]
        return merged

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_kept": None}

    def forward(self, inputs: ExampleInputs, at: float | Tensor | None = None) -> Any:
        """Run the rebased target, or the network in between.

        Args:
            inputs: a tensor, a tuple of positional or a dict of keyword arguments.
            at: λ; None is the rebased target itself, with its own head.
        """
        if at is None:
            return self.run(self.rebased_state(), inputs, "target" if self.spec.ignored else None)
        state = self._by_products(at, deferring=True)
        return self.run(self.state_at(at) if state is None else state, inputs)

    def run(self, state: State, inputs: ExampleInputs, heads: Heads | None = None) -> Any:
        """Run the architecture at a state.

        Batch norm is in this module's mode. Where heads differ, the network whose head is in the state runs.
        """
        return super().run(state, inputs, self._whose(heads) if self.spec.ignored else "reference")

    def path(self, heads: Heads | None = None) -> LinearPath:
        """Return the segment from the rebased target to the reference.

        Hard permutations at λ = 0, the reference at λ = 1.

        Args:
            heads: whose ignored tensors the networks of the path have, at both ends too. None: as the re-basin was
                made with.

        Raises:
            ArchitectureError: the spec ignores tensors, and nothing says whose are used.
        """
        ends = self.rebased_state(hard=True), self.reference_state()
        if not self.spec.ignored:
            return LinearPath(self.to_model(), *ends, self._mixing.statistics)
        if (heads or self.heads) is None:
            raise ArchitectureError(
                f"Expected to know whose {listed(sorted(self.spec.ignored))} the networks of a path have, as each "
                f"end has its own, but got none: pass heads='reference' or heads='target'."
            )
        whose = self._whose(heads)
        kept = ends[0] if whose == "target" else ends[1]
        start, end = (with_heads(state, kept, self.spec) for state in ends)
        return LinearPath(self.plain(start, whose), start, end, self._mixing.statistics)

    def to_model(self) -> nn.Module:
        """Return the rebased target as a plain network.

        It has hard permutations: the same function in a new place. It has its own head, also where the reference's
        is another.
        """
        return self.plain(self.rebased_state(hard=True))

    def merge(
        self,
        at: float = 0.5,
        *,
        repair: Iterable[Any] | None = None,
        rescale_only: bool = False,
        batch: BatchAdapter | None = None,
        heads: MergedHeads | None = None,
    ) -> nn.Module:
        """Return the network at a position as a plain one.

        It has hard permutations.

        Args:
            at: λ.
            repair: batches of training data on which its activations are put right: see
                :func:`~sinkhorn_rebasin.repair`.
            rescale_only: put standard deviations right, and leave the means.
            batch: a function from a batch to (inputs, labels), for data that yield something else.
            heads: whose ignored tensors it has: ``"reference"`` or ``"target"``, whose head reads the units where
                they are now. ``"each"``: those of both, in :class:`~sinkhorn_rebasin.SeparateHeads` by these names.
                None: as the re-basin was made with, or else the reference's.

        Raises:
            ArchitectureError: when the position is no number, ``heads`` something else, or each has no head of its
                own.
        """
        if heads == "each":
            batches = None if repair is None else list(repair)

            def merged_with(whose: Heads) -> nn.Module:
                """Return the network with the heads of one alone."""
                return self.merge(at, repair=batches, rescale_only=rescale_only, batch=batch, heads=whose)

            return with_each_head(merged_with, self.spec.ignored)
        whose = self._whose(heads)
        state = self.state_at(at, hard=True, heads=whose)
        merged = self.plain(state, whose if self.spec.ignored else "target")
        if repair is None:
            return merged
        networks = merged, self.plain(self.reference_state()), self.to_model()
        return repaired(*networks, self.spec, repair, at=at, rescale_only=rescale_only, batch=batch)

    def _whose(self, heads: Heads | None) -> Heads:
        check_heads(heads)
        return heads or self.heads or "reference"
