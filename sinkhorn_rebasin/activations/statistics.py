"""Statistics of what the units of two networks do on the same data, batch by batch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import BatchAdapter, StateLike
from sinkhorn_rebasin.activations.operation_sites import OperationReader, OperationSite
from sinkhorn_rebasin.activations.sites import Site, find_sites, outputs_of, units_of_site, with_parities
from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.networks.batches import batches_in, move_to, read_batch
from sinkhorn_rebasin.networks.comparison import check_types
from sinkhorn_rebasin.networks.execution import device_of
from sinkhorn_rebasin.networks.randomness import untouched_randomness
from sinkhorn_rebasin.permutations import PermutationSpec, RescalingSpec
from sinkhorn_rebasin.permutations.rescaling import NO_RESCALING


class PairedMoments:
    r"""Hold the moments of two networks' units.

    They are means, variances and co-moments on the same data, merged batch by batch.

    With units x of one network and y of the other, at each of the ``width`` positions a unit holds,

    .. math:: C_{ij} = \sum_n (x_{in} - \bar x_i)(y_{jn} - \bar y_j), \qquad
        \operatorname{corr}_{ij} = \frac{C_{ij}}{\sqrt{\sum_n (x_{in} - \bar x_i)^2 \sum_n (y_{jn} - \bar y_j)^2}}

    Real and imaginary parts of complex units are positions of their own.

    Everything is kept in float64: ``means`` and ``squares`` are two of (width, units), ``cross`` is (width,
    units, units). Units that are constant on the data correlate with nothing: 0.

    Example:
        >>> x = torch.tensor([[[1.0, 2.0, 3.0, 4.0]], [[0.0, 1.0, 0.0, 1.0]]])      # two units, four samples
        >>> moments = PairedMoments()
        >>> moments.update(x[..., :2], -x[..., :2])
        >>> moments.update(x[..., 2:], -x[..., 2:])
        >>> moments.means[0].tolist(), moments.correlation().diagonal().tolist()
        ([[2.5, 0.5]], [-1.0, -1.0])

    Source: the merging of batches: Chan, Golub, LeVeque, "Algorithms for computing the sample variance" (1983).
    """

    def __init__(self) -> None:
        self.count = 0
        self.means: tuple[Tensor, Tensor] = (torch.zeros(0), torch.zeros(0))
        self.squares: tuple[Tensor, Tensor] = (torch.zeros(0), torch.zeros(0))
        self.cross = torch.zeros(0)

    def update(self, first: Tensor, second: Tensor) -> None:
        """Take in the values of one batch.

        They are (units, width, samples) of each network.
        """
        pair = [_real_positions(values.movedim(1, 0)).double() for values in (first, second)]
        count = pair[0].shape[-1]
        if not count:
            return
        means = (pair[0].mean(-1), pair[1].mean(-1))
        one, two = (values - mean[..., None] for values, mean in zip(pair, means, strict=True))
        squares, cross = (one.square().sum(-1), two.square().sum(-1)), one @ two.mT
        if self.count:
            total = self.count + count
            shifts = [new - old for new, old in zip(means, self.means, strict=True)]
            weight = self.count * count / total
            cross = cross + self.cross + weight * shifts[0][:, :, None] * shifts[1][:, None, :]
            squares = (
                squares[0] + self.squares[0] + weight * shifts[0].square(),
                squares[1] + self.squares[1] + weight * shifts[1].square(),
            )
            share = count / total
            means = (self.means[0] + share * shifts[0], self.means[1] + share * shifts[1])
            count = total
        self.count, self.means, self.squares, self.cross = count, means, squares, cross

    def deviations(self) -> tuple[Tensor, Tensor]:
        """Return the standard deviations of both networks.

        They are those of the units, (width, units).
        """
        return (self.squares[0] / self.count).sqrt(), (self.squares[1] / self.count).sqrt()

    def correlation(self) -> Tensor:
        """Return Pearson correlations summed over positions.

        They are those of all pairs of units, (units, units).
        """
        return self.correlations().sum(0)

    def correlations(self) -> Tensor:
        """Return Pearson correlations at each position.

        They are those of all pairs of units, (width, units, units).
        """
        ours, theirs = (
            torch.where(s > 1e-20 * self.count * (1 + mean.square()), s.rsqrt(), 0.0)
            for s, mean in zip(self.squares, self.means, strict=True)
        )
        return ours[:, :, None] * self.cross * theirs[:, None, :]

    def uncentred(self) -> Tensor:
        """Return mean products summed over positions.

        They are those of all pairs of units, (units, units).
        """
        return self.products().sum(0)

    def products(self) -> Tensor:
        """Return mean products at each position.

        They are those of all pairs of units, (width, units, units).
        """
        products = self.means[0][:, :, None] * self.means[1][:, None, :]
        return self.cross / self.count + products


def _real_positions(values: Tensor) -> Tensor:
    """Return values of (width, units, samples), complex ones of twice the width."""
    return torch.cat([values.real, values.imag]) if values.is_complex() else values


@torch.no_grad()
def paired_moments(
    network: nn.Module,
    reference: StateLike,
    target: StateLike,
    spec: PermutationSpec,
    data: Iterable[Any],
    *,
    skipped: Collection[tuple[str, str]] = (),
    rescaling: RescalingSpec = NO_RESCALING,
    batch: BatchAdapter | None = None,
) -> dict[str, tuple[Site | OperationSite, PairedMoments]]:
    """Measure paired moments of both networks.

    The networks run side by side. Returns per group where it was seen and its statistics there.

    Groups that no layer shows, as those of recurrent layers, are read at an operation of the network. Left out are
    groups that none shows either, and those that were not seen as often in both networks, such as an expert that each
    network chooses for other tokens.

    Args:
        network: the architecture in eval mode, a copy: hooks come and go on it.
        reference, target: its tensors in both networks.
        spec: the symmetries.
        data: batches of (inputs, labels) or of inputs alone.
        skipped: pairs of group and tensor at whose module the group must not be read.
        rescaling: the signs that are free; sites then say how they show there.
        batch: a function from a batch to (inputs, labels), for data that yield something else.

    Raises:
        DataError: when there is no batch, or activations are infinite or NaN.
    """
    found: dict[str, tuple[Site | OperationSite, PairedMoments]] = {}
    for number, (shown, pairs) in enumerate(
        paired_units(
            network, reference, target, spec, data, skipped=skipped, rescaling=rescaling, batch=batch
        )
    ):
        if not number:
            found = {name: (site, PairedMoments()) for name, site in shown.items()}
        _take_in(found, pairs)
    seen = {name: pair for name, pair in found.items() if pair[1].count}
    check_finite({name: moments for name, (_, moments) in seen.items()})
    return seen


def check_finite(found: Mapping[str, PairedMoments]) -> None:
    """Raise DataError where the activations of a group are no numbers.

    >>> check_finite({})
    """
    for name, moments in found.items():
        if not all(bool(each.isfinite().all()) for each in moments.squares):
            raise DataError(
                f"Expected finite activations of group {name!r} but some are infinite or NaN: look for such numbers "
                f"in the data, and for networks whose training has diverged."
            )


@torch.no_grad()
def paired_units(
    network: nn.Module,
    reference: StateLike,
    target: StateLike,
    spec: PermutationSpec,
    data: Iterable[Any],
    *,
    skipped: Collection[tuple[str, str]] = (),
    rescaling: RescalingSpec = NO_RESCALING,
    batch: BatchAdapter | None = None,
) -> Iterator[tuple[Mapping[str, Site | OperationSite], Mapping[str, tuple[Tensor, Tensor]]]]:
    """Read the units of both networks, batch by batch.

    Arguments are those of :func:`paired_moments`. Yields where each group is seen, and its values in both networks,
    (units, width, samples).

    Raises:
        ArchitectureError: when a tensor is of another type in one network than in the other.
        DataError: when there is no batch.
    """
    check_types(reference, target)
    sites: dict[str, Site] | None = None
    reader: OperationReader | None = None
    shown: dict[str, Site | OperationSite] = {}
    device = device_of(reference)
    example = spec.validity.arguments if spec.validity else ()
    with untouched_randomness():
        for one in batches_in(data):
            inputs, _ = read_batch(one, batch, network=network, labelled=False, example=example)
            inputs = move_to(inputs, device)
            if sites is None or reader is None:
                sites = find_sites(network, reference, spec, inputs, skipped=skipped)
                if rescaling.generators:
                    sites = with_parities(sites, network, reference, spec, rescaling, inputs)
                unseen = [name for name in spec.names if name not in sites]
                reader = OperationReader(network, reference, spec, unseen, inputs, rescaling)
                shown = {**sites, **reader.sites}
            seen = [outputs_of(network, state, inputs, sites) for state in (reference, target)]
            pairs = reader.pairs(reference, target, inputs)
            for name, site in sites.items():
                ours, theirs = (units_of_site(outputs[site.module], site) for outputs in seen)
                pairs[name] = ours, theirs
            yield shown, pairs
    if sites is None:
        raise DataError("Expected at least one batch to see activations on but got none.")


def _take_in(
    found: dict[str, tuple[Site | OperationSite, PairedMoments]], pairs: Mapping[str, tuple[Tensor, Tensor]]
) -> None:
    """Take in the values of one batch.

    Groups that were not seen as often in both networks are left out.
    """
    for name, (ours, theirs) in pairs.items():
        if name in found:
            if ours.shape == theirs.shape:
                found[name][1].update(ours, theirs)
            else:
                del found[name]
