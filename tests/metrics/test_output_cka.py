from __future__ import annotations

import pytest
import torch
from torch import nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import DataError, LossError
from sinkhorn_rebasin.metrics import linear_cka, output_cka
from tests.front.pairs import samples, trained


def test_without_mixing_it_is_the_cka_of_all_probabilities_at_once() -> None:
    first, second, x = trained(0), trained(1), samples()[0]
    found = output_cka(first, second, [x[:150], (x[150:], samples()[1][150:])], mixed=False)
    with torch.no_grad():
        expected = linear_cka(first(x).softmax(1), second(x).softmax(1))
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_mixtures_lie_between_the_samples_of_a_batch_by_the_generator() -> None:
    seen = []

    class Seeing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.clone())
            return torch.cat([x, -x], dim=1)

    x = torch.tensor([[0.0], [1.0], [5.0]])
    generator = torch.Generator().manual_seed(4)
    order = torch.randperm(3, generator=generator)
    share = torch.rand(3, generator=generator)[:, None]
    output_cka(Seeing(), Seeing(), [x], generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(seen[0], share * x + (1 - share) * x[order])
    assert torch.equal(seen[0], seen[1])


def test_places_of_an_orbit_predict_alike_and_nothing_is_changed() -> None:
    net, x = trained(0), samples()[0]
    spec = sr.discover_symmetry(net, x)
    twin = nn.Sequential(
        *(nn.Linear(m.in_features, m.out_features) if hasattr(m, "bias") else m for m in net)
    )
    twin.load_state_dict(sr.permute_state(net.state_dict(), spec, sr.random_permutations(spec)))
    state = torch.get_rng_state()
    assert output_cka(net, twin, [x]) == pytest.approx(1.0, rel=1e-5)
    assert output_cka(net, trained(1), [x]) == output_cka(net, trained(1), [x]) < 0.999
    assert torch.equal(state, torch.get_rng_state())


def test_what_cannot_be_compared_is_refused() -> None:
    net = trained(0)
    with pytest.raises(DataError, match="at least one batch"):
        output_cka(net, net, [])
    with pytest.raises(DataError, match="mixed=False"):
        output_cka(net, net, [torch.ones(3, 2, dtype=torch.long)])
    with pytest.raises(LossError, match=r"samples, classes"):
        output_cka(nn.Flatten(0), nn.Flatten(0), [torch.ones(3, 2)])
