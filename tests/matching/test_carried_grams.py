"""Gram matrices carried by an alignment, against those measured again on the moved network."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import sinkhorn_rebasin as sr
from tests.merging.fusion_networks import convolutional, images, mlp, moving, points, with_state


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(("make", "draw"), [(mlp, points), (convolutional, images)])
def test_carried_is_measured_again(make: object, draw: object, scaled: bool) -> None:
    network, x = make(0), draw()  # type: ignore[operator]
    alignment = moving(network, x, scaled)
    moved = with_state(network, alignment.apply(network))
    torch.testing.assert_close(moved(x), network(x))
    carried = alignment.carry_grams(sr.gram_matrices(network, [x]))
    again = sr.gram_matrices(moved, [x])
    assert list(carried.layers) == list(again.layers)
    assert not carried.left_out
    for name, layer in again.layers.items():
        torch.testing.assert_close(carried.layers[name].matrix, layer.matrix, rtol=1e-6, atol=1e-9)
    hidden = [name for name in again.layers if name not in ("0", "first")]
    before = sr.gram_matrices(network, [x]).layers
    assert all(not torch.allclose(before[name].matrix, again.layers[name].matrix) for name in hidden)


def test_groups_of_a_convolution_move_as_a_whole_and_inside() -> None:
    """All axes of the grouped layers move: the test above is not of fixed ones."""
    network, x = convolutional(0), images()
    spec = sr.discover_symmetry(network, x)
    moved = {slot.tensor for slot in spec.slots}
    assert {"depth.weight", "grouped.weight", "flat.weight"} <= moved


def test_maps_are_carried_too() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(3, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.down(self.up(x))
            return out

    torch.manual_seed(0)
    network, x = Net().double(), points()
    spec = sr.discover_symmetry(network, x)
    continuous = sr.discover_continuous(network, spec, x)
    maps = {
        s.group.name: torch.randn(6, 6).double() + 3 * torch.eye(6).double() for s in continuous.symmetries
    }
    assert maps
    alignment = sr.Alignment(sr.identity_permutations(spec), spec, maps=maps, continuous=continuous)
    moved = Net().double()
    moved.load_state_dict(alignment.apply(network))
    torch.testing.assert_close(moved(x), network(x))
    carried = alignment.carry_grams(sr.gram_matrices(network, [x]))
    torch.testing.assert_close(
        carried.layers["down"].matrix, sr.gram_matrices(moved, [x]).layers["down"].matrix
    )


def test_what_cannot_be_carried_is_left_out_by_name() -> None:
    network, x = convolutional(0), images()
    grams = sr.gram_matrices(network, [x])
    odd = replace(grams.layers["flat"], weight="elsewhere.weight")
    found = moving(network, x).carry_grams(replace(grams, layers={**grams.layers, "flat": odd}))
    assert "flat" not in found.layers
    assert "no 'elsewhere.weight'" in found.left_out["flat"]
    # Without a bias nothing tells scales of the inputs of convolution groups from those of their outputs.
    bare = replace(grams.layers["grouped"], bias=None, matrix=grams.layers["grouped"].matrix[:, :-1, :-1])
    grams = replace(grams, layers={"grouped": bare})
    assert (
        "bias beside 'grouped.weight'"
        in moving(network, x, scaled=True).carry_grams(grams).left_out["grouped"]
    )
    assert "grouped" in moving(network, x).carry_grams(grams).layers
