"""Layers at whose output the units of a group can be seen at work."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from sinkhorn_rebasin._typing import ExampleInputs, StateLike
from sinkhorn_rebasin.networks.execution import run_at
from sinkhorn_rebasin.networks.nested_tensors import largest_change
from sinkhorn_rebasin.permutations import Layout, PermutationSpec, RescalingSpec, Slot, rescale_state

_NAMES = ("weight", "bias", "running_mean")
EVEN, ODD, NEITHER = 0, 1, -1
EQUAL = 1e-3
"""Results that differ by less are one up to rounding."""


@dataclass(frozen=True)
class Site:
    """Describe a module that shows a group's units.

    They can be read at its output.

    Attributes:
        module: its path.
        axis: the axis of its output that holds the units.
        layout: where along that axis every unit is.
        parities: per sign generator of the group and position of a unit, whether the value there changes its sign
            with the unit (1), or not (0), or becomes another one (-1); empty when nobody has asked.
    """

    module: str
    axis: int
    layout: Layout
    parities: tuple[tuple[int, ...], ...] = ()


def find_sites(
    network: nn.Module,
    state: StateLike,
    spec: PermutationSpec,
    inputs: ExampleInputs,
    *,
    skipped: Collection[tuple[str, str]] = (),
) -> dict[str, Site]:
    """Find per group the module that shows its units.

    It is the module run last whose output holds them: a linear, embedding, convolution or norm layer. Groups without
    one are left out: those of recurrent cells, of packed attention, of bare parameters.

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
        axis = output_axis(modules.get(path), name, slot)
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


def output_axis(module: nn.Module | None, name: str, slot: Slot) -> int | None:
    """Say on which axis of a module's output a slot's units lie.

    Returns:
        None when the slot says nothing of the output.
    """
    if len(slot.axes) != 1 or name not in _NAMES:
        return None
    if isinstance(module, nn.Embedding):
        return -1 if slot.axes == (1,) else None
    transposed = has_transposed_weight(module)
    own = 1 if (transposed or isinstance(module, _ConvTransposeNd)) and name == "weight" else 0
    if slot.axes != (own,):
        return None
    if transposed:
        return -1
    if isinstance(module, (nn.Linear, nn.LayerNorm, nn.RMSNorm)):
        several = not isinstance(module, nn.Linear) and len(module.normalized_shape) != 1
        return None if several else -1
    if isinstance(module, _ConvNd):
        return None if own == 1 and module.groups > 1 else -1 - len(module.kernel_size)
    return 1 if isinstance(module, (_NormBase, nn.GroupNorm)) else None


def has_transposed_weight(module: nn.Module | None) -> bool:
    """Tell whether a layer is linear with a weight (inputs, outputs).

    Such is ``Conv1D`` of the transformers library. It has a bias (outputs,), no other parameter and no layer inside,
    and a run of it on numbers of the weight's own shows that it is their product.

    >>> has_transposed_weight(nn.Linear(2, 3)), has_transposed_weight(None)
    (False, False)
    """
    if (
        module is None
        or type(module).__module__.startswith("torch.")
        or next(module.children(), None) is not None
    ):
        return False
    # A frozen copy has buffers in place of parameters.
    held = {**module._parameters, **module._buffers}
    parameters = {name: tensor for name, tensor in held.items() if tensor is not None}
    weight, bias = parameters.get("weight"), parameters.get("bias")
    if len(parameters) != 2 or weight is None or bias is None or weight.ndim != 2:
        return False
    if bias.shape != weight.shape[1:]:
        return False
    rows = torch.linspace(-1, 1, 3 * len(weight), dtype=weight.dtype, device=weight.device).reshape(3, 1, -1)
    try:
        with torch.no_grad():
            found = module.forward(rows)  # no hook is called
    except (TypeError, ValueError, RuntimeError, IndexError):
        return False
    return isinstance(found, Tensor) and largest_change(rows @ weight + bias, found) < EQUAL


def outputs_of(
    network: nn.Module, state: StateLike, inputs: ExampleInputs, sites: Mapping[str, Site]
) -> dict[str, list[Tensor]]:
    """Collect what the sites' modules return.

    There is one tensor for every time a module runs.
    """
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


def units_of_site(outputs: list[Tensor], site: Site) -> Tensor:
    """Return a site's units, (units, width, samples)."""
    layout = site.layout
    if not outputs:
        return torch.zeros(layout.blocks * layout.size, layout.width, 0)
    flat = [output.movedim(site.axis, 0) for output in outputs]
    values = torch.cat([output.reshape(len(output), math.prod(output.shape[1:])) for output in flat], 1)
    table = torch.from_numpy(layout.table()).reshape(-1)
    return values[table.to(values.device)].reshape(layout.blocks * layout.size, layout.width, values.shape[1])


def with_parities(
    sites: Mapping[str, Site],
    network: nn.Module,
    state: StateLike,
    spec: PermutationSpec,
    rescaling: RescalingSpec,
    inputs: ExampleInputs,
) -> dict[str, Site]:
    """Complete the sites by the signs' effects.

    One run for each sign generator shows what it does to what is read there.

    >>> from sinkhorn_rebasin.symmetry import discover_rescaling, discover_symmetry
    >>> net, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), torch.randn(5, 3)
    >>> spec = discover_symmetry(net, x)
    >>> sites = find_sites(net, net.state_dict(), spec, x)
    >>> with_parities(sites, net, net.state_dict(), spec, discover_rescaling(net, spec, x), x)["0"].parities
    ((1,),)
    """
    counts = {name: shape[0] for name, shape in rescaling.shapes(spec, "sign").items() if name in sites}
    before = outputs_of(network, state, inputs, sites)
    found: dict[str, list[tuple[int, ...]]] = {name: [] for name in sites}
    for number in range(max(counts.values(), default=0)):
        flips = {}
        for name in (name for name, count in counts.items() if number < count):
            flips[name] = torch.ones(counts[name], *spec[name].shape, device="cpu")
            flips[name][number] = _alternating(spec[name].units).reshape(spec[name].shape)
        flipped = rescale_state(state, spec, rescaling, signs=flips)
        after = outputs_of(network, flipped, inputs, sites)
        for name in flips:
            pair = (units_of_site(outputs[sites[name].module], sites[name]) for outputs in (before, after))
            found[name].append(_parities(*pair))
    return {name: replace(site, parities=tuple(found[name])) for name, site in sites.items()}


def _alternating(units: int) -> Tensor:
    """Return signs that alternate from unit to unit.

    The first of them is -1.
    """
    return 2.0 * (torch.arange(units, device="cpu") % 2) - 1.0


def _parities(before: Tensor, after: Tensor) -> tuple[int, ...]:
    signs = _alternating(len(before)).to(before)[:, None]
    found = []
    for one, other in zip(before.unbind(1), after.unbind(1), strict=True):
        odd, even = largest_change(signs * one, other) < EQUAL, largest_change(one, other) < EQUAL
        found.append(EVEN if even else ODD if odd else NEITHER)
    return tuple(found)
