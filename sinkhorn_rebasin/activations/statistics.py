"""Where the units of a group can be seen at work, and statistics of what they do, batch by batch."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from sinkhorn_rebasin._typing import ExampleInputs, StateLike
from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.networks.execution import device_of, move_to, run_at, split_batch
from sinkhorn_rebasin.networks.randomness import untouched_randomness
from sinkhorn_rebasin.permutations import Layout, PermutationSpec, Slot

_NAMES = ("weight", "bias", "running_mean")


@dataclass(frozen=True)
class Site:
    """A module at whose output the units of a group can be read.

    Attributes:
        module: its path.
        axis: the axis of its output that holds the units.
        layout: where along that axis every unit is.
    """

    module: str
    axis: int
    layout: Layout


class PairedMoments:
    r"""Means, variances and co-moments of the units of two networks on the same data, merged batch by batch.

    With units x of one network and y of the other, at each of the ``width`` positions a unit holds,

    .. math:: C_{ij} = \sum_n (x_{in} - \bar x_i)(y_{jn} - \bar y_j), \qquad
        \operatorname{corr}_{ij} = \frac{C_{ij}}{\sqrt{\sum_n (x_{in} - \bar x_i)^2 \sum_n (y_{jn} - \bar y_j)^2}}

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
        """Take in the values of one batch, (units, width, samples) of each network."""
        pair = [values.movedim(1, 0).double() for values in (first, second)]
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
        """Standard deviations of the units of both networks, (width, units)."""
        return (self.squares[0] / self.count).sqrt(), (self.squares[1] / self.count).sqrt()

    def correlation(self) -> Tensor:
        """Pearson correlations of all pairs of units, summed over the positions they hold, (units, units)."""
        ours, theirs = (
            torch.where(s > 1e-20 * self.count * (1 + mean.square()), s.rsqrt(), 0.0)
            for s, mean in zip(self.squares, self.means, strict=True)
        )
        return (ours[:, :, None] * self.cross * theirs[:, None, :]).sum(0)

    def uncentred(self) -> Tensor:
        """Mean products of all pairs of units, summed over the positions they hold, (units, units)."""
        products = self.means[0][:, :, None] * self.means[1][:, None, :]
        return (self.cross / self.count + products).sum(0)


@torch.no_grad()
def paired_moments(
    network: nn.Module,
    reference: StateLike,
    target: StateLike,
    spec: PermutationSpec,
    data: Iterable[Any],
    *,
    skipped: Collection[tuple[str, str]] = (),
) -> dict[str, tuple[Site, PairedMoments]]:
    """Run both networks on the data side by side; per group, where it was seen and its statistics there.

    Left out are groups that no module shows, and those whose module saw no sample or not as many in both
    networks, such as an expert that each network chooses for other tokens.

    Args:
        network: the architecture in eval mode, a copy: hooks come and go on it.
        reference, target: its tensors in both networks.
        spec: the symmetries.
        data: batches of (inputs, labels) or of inputs alone.
        skipped: pairs of group and tensor at whose module the group must not be read.

    Raises:
        DataError: when there is no batch.
    """
    sites: dict[str, Site] | None = None
    found: dict[str, tuple[Site, PairedMoments]] = {}
    device = device_of(reference)
    with untouched_randomness():
        for batch in data:
            inputs = move_to(split_batch(batch, labelled=False)[0], device)
            if sites is None:
                sites = find_sites(network, reference, spec, inputs, skipped=skipped)
                found = {name: (site, PairedMoments()) for name, site in sites.items()}
            seen = [_outputs(network, state, inputs, sites) for state in (reference, target)]
            for name, (site, moments) in list(found.items()):
                values = [_units(outputs[site.module], site) for outputs in seen]
                if values[0].shape == values[1].shape:
                    moments.update(*values)
                else:
                    del found[name]
    if sites is None:
        raise DataError("Expected at least one batch to see activations on but got none.")
    return {name: pair for name, pair in found.items() if pair[1].count}


def find_sites(
    network: nn.Module,
    state: StateLike,
    spec: PermutationSpec,
    inputs: ExampleInputs,
    *,
    skipped: Collection[tuple[str, str]] = (),
) -> dict[str, Site]:
    """Per group, the module run last whose output holds its units: linear, embedding, convolution or norm layers.

    Groups without one are left out: those of recurrent cells, of packed attention, of bare parameters.

    >>> from sinkhorn_rebasin.symmetry import discover_symmetry
    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3))
    >>> image = torch.randn(2, 3, 8, 8)
    >>> find_sites(net.eval(), net.state_dict(), discover_symmetry(net, image), image)["0"].module
    '1'
    """
    modules = dict(network.named_modules(remove_duplicate=False))
    candidates: dict[str, list[Site]] = {name: [] for name in spec.names}
    for slot in spec.slots:
        path, _, name = slot.tensor.rpartition(".")
        axis = _output_axis(modules.get(path), name, slot)
        if axis is not None and (slot.group, slot.tensor) not in skipped:
            candidates[slot.group].append(Site(path, axis, slot.layout))
    order: list[int] = []
    with ExitStack() as hooks:
        for module in {
            id(m): m for m in (modules[s.module] for c in candidates.values() for s in c)
        }.values():
            handle = module.register_forward_hook(lambda module, _, __: order.append(id(module)))
            hooks.callback(handle.remove)
        run_at(network, state, inputs)
    last = {module: place for place, module in enumerate(order)}
    found = {}
    for group, places in candidates.items():
        run = [site for site in places if id(modules[site.module]) in last]
        if run:
            found[group] = max(run, key=lambda site: last[id(modules[site.module])])
    return found


def _output_axis(module: nn.Module | None, name: str, slot: Slot) -> int | None:
    """The axis of the module's output that a slot on its tensor speaks of, None when it does not."""
    if len(slot.axes) != 1 or name not in _NAMES:
        return None
    if isinstance(module, nn.Embedding):
        return -1 if slot.axes == (1,) else None
    own = 1 if isinstance(module, _ConvTransposeNd) and name == "weight" else 0
    if slot.axes != (own,):
        return None
    if isinstance(module, (nn.Linear, nn.LayerNorm, nn.RMSNorm)):
        several = not isinstance(module, nn.Linear) and len(module.normalized_shape) != 1
        return None if several else -1
    if isinstance(module, _ConvNd):
        return None if own == 1 and module.groups > 1 else -1 - len(module.kernel_size)
    return 1 if isinstance(module, (_NormBase, nn.GroupNorm)) else None


def _outputs(
    network: nn.Module, state: StateLike, inputs: ExampleInputs, sites: dict[str, Site]
) -> dict[str, list[Tensor]]:
    """What the modules of the sites return, one tensor for every time they run."""
    outputs: dict[str, list[Tensor]] = {site.module: [] for site in sites.values()}
    with ExitStack() as hooks:
        for path, seen in outputs.items():
            module = network.get_submodule(path)
            # A later operation may write into the output in place.
            handle = module.register_forward_hook(
                lambda _, __, output, seen=seen: seen.append(output.clone())
            )
            hooks.callback(handle.remove)
        run_at(network, state, inputs)
    return outputs


def _units(outputs: list[Tensor], site: Site) -> Tensor:
    """The values of a site's units, (units, width, samples)."""
    layout = site.layout
    if not outputs:
        return torch.zeros(layout.blocks * layout.size, layout.width, 0)
    flat = [output.movedim(site.axis, 0) for output in outputs]
    values = torch.cat([output.reshape(len(output), math.prod(output.shape[1:])) for output in flat], 1)
    table = torch.from_numpy(layout.table()).reshape(-1)
    return values[table.to(values.device)].reshape(layout.blocks * layout.size, layout.width, values.shape[1])
