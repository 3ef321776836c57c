"""Data-free losses: how far the rebased target's weights are from the reference's."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from sinkhorn_rebasin.connectivity.interpolation import possibly_infinite
from sinkhorn_rebasin.errors import LossError
from sinkhorn_rebasin.losses.base import Rebasin, compared_weights
from sinkhorn_rebasin.losses.closed_form import ClosedForm
from sinkhorn_rebasin.networks.architecture import real_view, wider
from sinkhorn_rebasin.permutations import PermutationSpec

Kind = Literal["l2", "inner", "l1", "cosine"]

ALL_FROM = 0.9
"""Share of a run from which all columns count."""


class WeightDistance:
    r"""Measure the distance between two networks' parameters.

    They are those of the rebased target and of the reference.

    .. math::
        \mathrm{l2}: \tfrac1N \lVert \pi_P(\theta_T) - \theta_R \rVert_2^2 \qquad
        \mathrm{inner}: \tfrac1N \bigl(\lVert \theta_T \rVert^2 + \lVert \theta_R \rVert^2
        - 2 \langle \pi_P(\theta_T), \theta_R \rangle\bigr) \\
        \mathrm{l1}: \tfrac1N \lVert \pi_P(\theta_T) - \theta_R \rVert_1 \qquad
        \mathrm{cosine}: \tfrac1L \sum_l 1 - \cos(\pi_P(\theta_T)_l, (\theta_R)_l)

    over N parameter elements in L tensors, tied ones once; buffers do not count, nor, for the cosine, tensors that
    are zero in the reference and so have no direction, nor numbers that are infinite in either network. Complex
    numbers count as pairs of real ones. It needs no data: the batch is ignored.

    ``"inner"`` is ``"l2"`` at hard permutations. At soft ones it is not lowered by mixing units, which shrinks the
    weights and so their distance.

    Note:
        - Gradients of ``"l2"`` and ``"inner"`` come in closed form, without a graph through the weights. Autograd
          does the rest: tensors that more than two groups move, learned scales, a reference that turns.
        - What the products need is kept from step to step: a copy of convolutions' weights, and two matrices for
          each group. It is made anew when a weight changes, but through ``.data``, which PyTorch does not count.

    Args:
        kind: ``"l2"``, ``"inner"``, ``"l1"`` or ``"cosine"``.
        fraction: the share of each weight's rows and columns that the gradient of ``"inner"`` comes from, drawn
            anew for each step. It is unbiased, as the value then is, and exact at uniform permutations: only what
            columns differ by is sampled. In the last tenth of a run all count.
        generator: draws them; without it torch's global random state does.

    Attributes:
        progress: the share of the run that is done, which the training loops of this package set.

    Raises:
        LossError: for another kind, for a fraction that is not in (0, 1], or for one of another kind than
            ``"inner"``. When called, for ``"inner"`` of a re-basin with maps that change lengths.

    Example:
        >>> from torch import nn
        >>> from sinkhorn_rebasin import SinkhornRebasin
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
        >>> rebasin = SinkhornRebasin(net, net, torch.randn(2, 4)).eval()
        >>> float(WeightDistance("l2")(rebasin))
        0.0

    Source: Guerrero-Peña et al., "Re-basin via implicit Sinkhorn differentiation" (2023); the inner product: the
    objective of Ainsworth, Hayase, Srinivasa, "Git Re-Basin" (2023), at soft permutations.
    """

    def __init__(
        self, kind: Kind = "l2", *, fraction: float = 1.0, generator: torch.Generator | None = None
    ) -> None:
        if kind not in get_args(Kind):
            raise LossError(f"Expected kind to be 'l2', 'inner', 'l1' or 'cosine' but got {kind!r}.")
        if not 0 < fraction <= 1:
            raise LossError(f"Expected a fraction of the columns above 0 and at most 1 but got {fraction}.")
        if fraction < 1 and kind != "inner":
            raise LossError(
                f"Expected kind='inner' with a fraction of the columns but got {kind!r}, whose gradient needs all."
            )
        self.kind, self.fraction, self.generator = kind, fraction, generator
        self.progress = 0.0
        self._kept: tuple[list[Any], ClosedForm | None] | None = None

    def __call__(self, rebasin: Rebasin, batch: Any = None) -> Tensor:
        """Return the distance at the re-basin's current permutations.

        They are soft in training and hard in eval mode.
        """
        if self.kind == "inner":
            _check_lengths(rebasin)
        acting = getattr(rebasin, "acting", None) if self.kind in ("l2", "inner") else None
        if acting is not None and (moving := acting()) is not None:
            form = self._form(rebasin, *moving)
            if form is not None:
                return form(moving[1], self._picked)
        return self._by_autograd(rebasin)

    def _by_autograd(self, rebasin: Rebasin) -> Tensor:
        reference, rebased = rebasin.reference_state(), rebasin.rebased_state(own_dtype=False)
        compared = compared_weights(rebased, reference, rebasin.spec.compared)
        pairs = [(real_view(first), real_view(second)) for first, second in compared.values()]
        if self.kind == "cosine":
            directed = [(a.flatten(), b.flatten()) for a, b in pairs if bool(b.any())]
            if not directed:
                return torch.stack([a.sum() * 0 for a, _ in pairs]).sum()
            angles = [1 - torch.cosine_similarity(a, b, dim=0) for a, b in directed]
            return torch.stack(angles).mean()
        distance = F.l1_loss if self.kind == "l1" else F.mse_loss
        total = torch.stack([distance(a, b, reduction="sum") for a, b in pairs]).sum()
        if self.kind == "inner" and getattr(rebasin, "training", False):
            # What mixing takes off the squared length of the target.
            scaled = rebasin.scaled_state()
            still = compared_weights({n: scaled[n] for n in compared}, reference, compared)
            for name, (moved, _) in compared.items():
                total = total + (_square(still[name][0]) - _square(moved))
        return total / sum(a.numel() for a, _ in pairs)

    def _form(
        self, rebasin: Rebasin, spec: PermutationSpec, matrices: dict[str, Tensor]
    ) -> ClosedForm | None:
        """Return the products of the two networks as they are now, from the last step where nothing changed."""
        target, reference = rebasin.scaled_state(), rebasin.reference_state()
        names = rebasin.spec.compared
        tensors = [state[name] for state in (target, reference) for name in names]
        dtype = next(iter(matrices.values())).dtype
        # Held, so that no other tensor gets their memory while they are compared by it.
        key = [spec, dtype, tensors, [(t.data_ptr(), t._version) for t in tensors]]
        if self._kept is not None and self._kept[0][0] is spec and self._kept[0][1::2] == key[1::2]:
            return self._kept[1]
        form = None
        if _is_plain(tensors) and not possibly_infinite(dict(enumerate(tensors))):
            wide = dtype
            for tensor in tensors:
                wide = torch.promote_types(wide, wider(tensor.dtype).to_real())
            form = ClosedForm(target, reference, spec, names, wide, self.kind == "inner")
        self._kept = key, form
        return form

    def _picked(self, count: int, device: torch.device) -> Tensor | None:
        """Draw the columns that count in this step; None for all."""
        some = max(1, round(self.fraction * count))
        if some >= count or self.progress >= ALL_FROM:
            return None
        place = device if self.generator is None else self.generator.device
        return torch.randperm(count, generator=self.generator, device=place)[:some].to(device)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_kept": None}

    def __repr__(self) -> str:
        part = f", fraction={self.fraction:g}" if self.fraction < 1 else ""
        return f"{type(self).__name__}({self.kind!r}{part})"


def _square(tensor: Tensor) -> Tensor:
    return real_view(tensor).square().sum()


def _is_plain(tensors: list[Tensor]) -> bool:
    """Tell whether tensors have a mean, and lie on one device."""
    mixable = all(t.is_floating_point() or t.is_complex() for t in tensors)
    return mixable and len({t.device for t in tensors}) == 1


def _check_lengths(rebasin: Any) -> None:
    """Raise LossError where maps change the length of the target."""
    continuous = getattr(rebasin, "continuous", None)
    for symmetry in continuous.symmetries if continuous else ():
        if symmetry.stretches:
            raise LossError(
                f"Expected maps that keep lengths for kind='inner' but those of group {symmetry.group.name!r} "
                f"({symmetry.kind}) do not: use kind='l2'."
            )
