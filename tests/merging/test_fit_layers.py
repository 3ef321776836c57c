from __future__ import annotations

import copy

import pytest
import torch

from sinkhorn_rebasin.merging import fit_layers, zipit
from tests.merging.zipped_networks import images, residual, spec_of


def test_batch_norm_gives_back_what_was_fitted() -> None:
    """Targets behind a norm are met as by an affine map fitted to them alone."""
    first, second, x = residual(0), residual(1), images()
    merge = zipit(first, second, spec_of(first, x), data=[x])
    before = copy.deepcopy(merge.network.state_dict())
    fitted = fit_layers(merge, [x[:15], x[15:]], inputs="merged", ridge=1e-11).network
    goal = merge.merges["stem"].merge_matrix() @ torch.cat(
        [network.norm(network.stem(x)).transpose(0, 1).flatten(1) for network in (first, second)]
    )
    patches = torch.nn.functional.unfold(x, 3, padding=1).transpose(0, 1).flatten(1).mT
    ones = torch.cat([patches, torch.ones(len(patches), 1)], 1)
    expected = ones @ torch.linalg.lstsq(ones, goal.mT).solution
    found = fitted.norm(fitted.stem(x)).transpose(0, 1).flatten(1).mT
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)
    assert all(torch.equal(tensor, before[name]) for name, tensor in merge.network.state_dict().items())


@pytest.mark.parametrize("until", [None, "stem"])
def test_inputs_of_the_merged_network_make_up_for_errors(until: str | None) -> None:
    first, second, x = residual(0), residual(1), images(200)
    goal = torch.cat([first(x), second(x)], 1)
    merge = zipit(first, second, spec_of(first, x), data=[x], until=until)
    errors = [
        float((network(x) - goal).square().mean().detach())
        for network in (
            merge.network,
            fit_layers(merge, [x]).network,
            fit_layers(merge, [x], inputs="merged").network,
        )
    ]
    assert errors[2] < errors[1] < errors[0]
