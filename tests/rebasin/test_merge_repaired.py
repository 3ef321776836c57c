"""Merges of networks that both moved are repaired by the statistics of both, where they are."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin import SinkhornRebasin
from sinkhorn_rebasin.activations.affine_layers import affine_layers
from tests.rebasin.turned_problems import pair, rebasin_of
from tests.symmetry.witness import difference

NAMES = ["layer norm", "rotary", "bottleneck", "mean"]


def data_of(name: str) -> list[Tensor]:
    """Two batches, and more in them than a layer has units."""
    generator = torch.Generator().manual_seed(2)
    if name == "layer norm":
        return [torch.randn(9, 3, 8, 8, generator=generator).double() for _ in range(2)]
    if name == "rotary":
        return [torch.randint(9, (9, 5), generator=generator) for _ in range(2)]
    return [torch.randn(20, 5, generator=generator).double() for _ in range(2)]


def statistics(network: nn.Module, layers: list[str], data: list[Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and deviation of every output of some layers, over all data and positions."""
    outputs: dict[str, list[Tensor]] = {name: [] for name in layers}
    axis = {name: 1 if isinstance(network.get_submodule(name), nn.Conv2d) else -1 for name in layers}

    def keep(name: str) -> None:
        def hook(_: nn.Module, __: object, output: Tensor) -> None:
            outputs[name].append(output.movedim(axis[name], -1).flatten(0, -2))

        handles.append(network.get_submodule(name).register_forward_hook(hook))

    handles: list[torch.utils.hooks.RemovableHandle] = []
    for name in layers:
        keep(name)
    with torch.no_grad():
        for batch in data:
            network(batch)
    for handle in handles:
        handle.remove()
    together = {name: torch.cat(parts) for name, parts in outputs.items()}
    return {name: (values.mean(0), values.std(0)) for name, values in together.items()}


def endpoints(rebasin: SinkhornRebasin) -> tuple[nn.Module, nn.Module]:
    """The rebased target, and the reference in its new place."""
    target, reference = rebasin.to_model(), copy.deepcopy(rebasin.reference)
    reference.load_state_dict(rebasin.reference_state(), strict=False)
    return target, reference


@pytest.mark.parametrize("name", NAMES)
def test_statistics_are_the_mean_of_both_networks_where_they_were_moved_to(name: str) -> None:
    given, rebasin, data = pair(name), rebasin_of(name, both_sides=True).eval(), data_of(name)
    assert rebasin.reference_maps()
    merged, repaired = rebasin.merge(0.4), rebasin.merge(0.4, repair=data)
    stages = affine_layers(merged, given.spec)
    layers = [name for name, layer in merged.named_modules() if layer in stages]
    assert layers
    target, reference = (statistics(network, layers, data) for network in endpoints(rebasin))
    plain, found = (statistics(network, layers, data) for network in (merged, repaired))
    away = 0.0
    for key in layers:
        units = list(stages[merged.get_submodule(key)].units)
        only_deviations = slice(0 if merged.get_submodule(key).bias is not None else 1, 2)
        for wanted_of_target, wanted_of_reference, before, after in zip(
            *(each[key][only_deviations] for each in (target, reference, plain, found)), strict=True
        ):
            wanted = 0.6 * wanted_of_target + 0.4 * wanted_of_reference
            torch.testing.assert_close(after[units], wanted[units], rtol=1e-6, atol=1e-8)
            away = max(away, float((before - wanted)[units].abs().max()))
    assert away > 1e-2


@pytest.mark.parametrize("name", NAMES)
def test_the_ends_are_the_networks_themselves(name: str) -> None:
    given, rebasin = pair(name), rebasin_of(name, both_sides=True).eval()
    before = {key: tensor.clone() for key, tensor in rebasin.state_dict().items()}
    for at, network in ((0.0, given.target), (1.0, given.reference)):
        end = rebasin.merge(at, repair=data_of(name))
        assert difference(network, end.state_dict(), given.inputs) < 1e-7
    assert all(torch.equal(tensor, before[key]) for key, tensor in rebasin.state_dict().items())
