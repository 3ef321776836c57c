from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.landscape import local_energy
from tests.front.pairs import batches, samples, trained


def test_one_weight_errs_where_the_noise_turns_its_sign() -> None:
    net = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[0.0], [1.7]]))
    data = [(torch.ones(3, 1), torch.ones(3, dtype=torch.long))]
    found = local_energy(net, data, scales=(0.0, 1.0, 3.0), draws=200)
    expected = [0.5 * math.erfc(1 / (scale * math.sqrt(2))) for scale in (1.0, 3.0)]  # P(1 + σz < 0)
    assert float(found[0]) == 0
    torch.testing.assert_close(found[1:], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=0.08)


def test_noise_of_weights_knows_no_scale_of_units_and_that_of_units_is_measured_at_the_normal_form() -> None:
    net, x = trained(0), samples()[0]
    spec = sr.discover_symmetry(net, x)
    rescaling = sr.discover_rescaling(net, spec, x, signs=False)
    scales = {
        name: 1.5 * torch.randn(1, 8, generator=torch.Generator().manual_seed(1)) for name in spec.names
    }
    moved = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    moved.load_state_dict(sr.rescale_state(net.state_dict(), spec, rescaling, scales))

    def energy(network: nn.Module, **options: object) -> torch.Tensor:
        return local_energy(network, batches(count=100), scales=(0.3, 0.6), draws=3, **options)

    torch.testing.assert_close(energy(net), energy(moved), atol=0.011, rtol=0)
    known = {"spec": spec, "rescaling": rescaling, "noise": "units"}
    torch.testing.assert_close(energy(net, **known), energy(moved, **known), atol=0.011, rtol=0)
    assert not torch.allclose(energy(net, noise="units"), energy(moved, noise="units"), atol=0.05)
    assert bool((energy(net) > 0).all())


def test_draws_are_the_same_in_every_call_and_nothing_is_changed() -> None:
    net = trained(0)
    before, state = [p.clone() for p in net.parameters()], torch.get_rng_state()
    first, again = (local_energy(net, batches(), draws=2, scales=(0.5,)) for _ in range(2))
    other = local_energy(net, batches(), draws=2, scales=(0.5,), generator=torch.Generator().manual_seed(9))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert all(map(torch.equal, before, net.parameters()))
    assert torch.equal(state, torch.get_rng_state())


def test_tied_weights_are_shaken_once() -> None:
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    net[1].weight = net[0].weight
    found = local_energy(net, [(torch.randn(50, 2), torch.randint(2, (50,)))], scales=(0.0, 0.5), draws=2)
    assert found[0] == 0


def test_what_has_no_error_is_refused() -> None:
    net, (x, _) = trained(0), samples()
    with pytest.raises(DataError, match="integer classes"):
        local_energy(net, [(x, torch.randn(len(x), 4))])
    with pytest.raises(DataError, match="'weights' or 'units'"):
        local_energy(net, batches(), noise="filters")
