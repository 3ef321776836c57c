"""How much alike two networks are by what their units do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchmetrics import Metric

from sinkhorn_rebasin._typing import BatchAdapter, NetworkLike
from sinkhorn_rebasin.activations.statistics import PairedMoments, paired_units
from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.files.given_networks import module_of
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.networks.copying import evaluation_copy
from sinkhorn_rebasin.permutations import PermutationSpec
from sinkhorn_rebasin.permutations.completeness import check_state


def linear_cka(first: Tensor, second: Tensor) -> Tensor:
    r"""Return the linear CKA of two representations.

    .. math:: \frac{\lVert X^\top Y \rVert_F^2}{\lVert X^\top X \rVert_F\, \lVert Y^\top Y \rVert_F}

    Columns are centred first. Permutations and turns of units, and one scale of all, do not change it; scales of
    single units do.

    Args:
        first: X, (samples, units).
        second: Y, (samples, other units), of the same samples.

    Returns:
        0-d, between 0 and 1; zero where a representation is constant.

    Raises:
        DataError: the representations have different samples, or are no matrices.

    Example:
        >>> x = torch.randn(20, 4)
        >>> round(linear_cka(x, x[:, [2, 0, 3, 1]]).item(), 4)
        1.0

    Source: Kornblith, Norouzi, Lee, Hinton, "Similarity of Neural Network Representations Revisited" (2019).
    """
    x, y = _centred(first, second)
    return _cka((x.T @ y).square().sum(), (x.T @ x).norm(), (y.T @ y).norm()).to(first.dtype)


class LinearCKA(Metric):
    r"""Measure the linear CKA batch by batch.

    It is exactly that of all batches at once: sums of products are kept, in double precision, which takes memory for
    the square of the number of units.

    Args:
        kwargs: passed to :class:`torchmetrics.Metric`.

    Raises:
        DataError: representations that do not fit, or no update before compute.

    Example:
        >>> metric, x = LinearCKA(), torch.randn(20, 4)
        >>> metric.update(x[:10], -2 * x[:10])
        >>> metric.update(x[10:], -2 * x[10:])
        >>> round(metric.compute().item(), 4)
        1.0

    Source: Kornblith, Norouzi, Lee, Hinton, "Similarity of Neural Network Representations Revisited" (2019).
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    samples: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("samples", "first", "second", "first_square", "second_square", "cross"):
            # They take the shape of what arrives.
            self.add_state(name, default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, first: Tensor, second: Tensor) -> None:
        """Add one batch.

        Args:
            first: (samples, units).
            second: (samples, other units).
        """
        x, y = _matrices(first, second)
        self.samples = self.samples + len(x)
        added = {
            "first": x.sum(0),
            "second": y.sum(0),
            "first_square": x.T @ x,
            "second_square": y.T @ y,
            "cross": x.T @ y,
        }
        for name, value in added.items():
            setattr(self, name, getattr(self, name) + value.to(getattr(self, name)))

    def compute(self) -> Tensor:
        """Return the CKA, 0-d, between 0 and 1."""
        if self.samples == 0:
            raise DataError("Expected LinearCKA to see a batch before it is computed.")

        def centred(square: str, left: str, right: str) -> Tensor:
            """Return a sum of products of centred columns."""
            return (
                getattr(self, square) - torch.outer(getattr(self, left), getattr(self, right)) / self.samples
            )

        cross = centred("cross", "first", "second").square().sum()
        own = (centred(f"{one}_square", one, one).norm() for one in ("first", "second"))
        return _cka(cross, *own).to(torch.get_default_dtype())


class UnitSimilarity(NamedTuple):
    """Hold how alike a group is in two networks.

    Attributes:
        cka: linear CKA, which no permutation changes.
        correlation: mean correlation of unit i of one with unit i of the other, which alignment raises.
    """

    cka: float
    correlation: float


def unit_similarity(
    reference: NetworkLike,
    target: NetworkLike,
    spec: PermutationSpec,
    data: Iterable[Any],
    *,
    batch: BatchAdapter | None = None,
) -> dict[str, UnitSimilarity]:
    """Compare what the units of two networks do.

    Call it with the target and with the aligned target: the correlation says what the alignment changed, and the CKA
    stays where only permutations and signs moved units.

    Args:
        reference, target: networks of one architecture; neither is changed. One may be weights alone.
        spec: its symmetries, whose groups are compared.
        data: batches of (inputs, labels) or of inputs alone.
        batch: a function from a batch to (inputs, labels), for data that yield something else.

    Returns:
        By group, for those that a layer or an operation shows.

    Raises:
        ArchitectureError, SpecError: the networks differ, or the spec is of another one.
        DataError: there is no batch.

    Example:
        >>> from torch import nn
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> net, x = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)), torch.randn(16, 3)
        >>> found = unit_similarity(net, net, discover_symmetry(net, x), [x])["0"]
        >>> round(found.cka, 3), round(found.correlation, 3)
        (1.0, 1.0)

    Source: Kornblith et al. (2019); correlation of units: Li, Yosinski, Clune, Lipson, Hopcroft, "Convergent
    learning" (2016).
    """
    first, second = (
        module_of(*each) for each in ((reference, "reference", target), (target, "target", reference))
    )
    states = tensors_of(first), tensors_of(second)
    check_state(spec, states[0])
    check_state(spec, states[1])
    metrics: dict[str, LinearCKA] = {}
    moments: dict[str, PairedMoments] = {}
    with torch.no_grad():
        for _, pairs in paired_units(evaluation_copy(first), *states, spec, data, batch=batch):
            for name, (ours, theirs) in pairs.items():
                if ours.shape == theirs.shape and ours.numel():
                    flat = [values.flatten(0, 1).T for values in (ours, theirs)]
                    metrics.setdefault(name, LinearCKA().to(ours.device)).update(*flat)
                    moments.setdefault(name, PairedMoments()).update(ours, theirs)
    return {
        name: UnitSimilarity(float(metric.compute()), _mean_correlation(moments[name]))
        for name, metric in metrics.items()
    }


def wreath_distance(first: Tensor, second: Tensor) -> Tensor:
    r"""Return a distance up to order and scale.

    .. math:: \min_{P, D \ge 0} \frac{\lVert X - Y P D \rVert_F}{\lVert X \rVert_F}

    P permutes the units of Y and D scales them, as symmetries of ReLU networks do. For a pair of units the best scale
    leaves :math:`\lVert x \rVert^2 - \max(0, \langle x, y \rangle)^2 / \lVert y \rVert^2`; the pairs are an
    assignment.

    Args:
        first: X, (samples, units).
        second: Y, of the same shape.

    Returns:
        0-d, between 0 and 1; zero for X of zeros.

    Raises:
        DataError: the shapes differ.

    Example:
        >>> x = torch.rand(20, 4)
        >>> bool(wreath_distance(x, x[:, [2, 0, 3, 1]] * torch.tensor([1.0, 2.0, 3.0, 4.0])) < 1e-3)
        True

    Source: Godfrey, Brown, Emerson, Kvinge, "On the Symmetries of Deep Learning Models and their Internal
    Representations" (2022).
    """
    x, y = _matrices(first, second)
    if x.shape != y.shape:
        raise DataError(f"Expected as many units in both but got {tuple(x.shape)} and {tuple(y.shape)}.")
    norms = y.norm(dim=0)
    along = torch.where(norms > 0, (x.T @ y).clamp(min=0) / norms, 0.0).square()
    rows, columns = linear_sum_assignment(along.detach().cpu().numpy(), maximize=True)
    total = x.square().sum()
    left = (total - along[torch.from_numpy(rows), torch.from_numpy(columns)].sum()).clamp(min=0)
    return torch.where(total > 0, (left / total).sqrt(), 0.0).to(first.dtype)


def _mean_correlation(moments: PairedMoments) -> float:
    return float(moments.correlations().diagonal(dim1=1, dim2=2).mean())


def _matrices(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    if first.ndim != 2 or second.ndim != 2 or len(first) != len(second):
        raise DataError(
            f"Expected two representations (samples, units) of the same samples but got {tuple(first.shape)} and "
            f"{tuple(second.shape)}."
        )
    return first.detach().double(), second.detach().double()


def _centred(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    x, y = _matrices(first, second)
    return x - x.mean(0), y - y.mean(0)


def _cka(cross: Tensor, first: Tensor, second: Tensor) -> Tensor:
    sizes = first * second
    return torch.where(sizes > 0, cross / sizes, 0.0).clamp(max=1.0)
