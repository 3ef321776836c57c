"""Networks with heads multiplied out compute the same, and their streams and heads are matched."""

from __future__ import annotations

import copy

import torch
from torch import nn

from experiments.compare_methods import heads_multiplied_out
from experiments.compare_methods.heads_multiplied_out import MultipliedAttention, multiplied_out
from experiments.compare_methods.pair import Pair
from experiments.compare_methods.setting import load_setting
from experiments.data import load_digits
from experiments.models import Architecture
from experiments.models.transformer import GPT, ViT
from sinkhorn_rebasin import discover_continuous, discover_symmetry


def small(seed: int, **options: int) -> nn.Module:
    """A vision transformer without a parameter at zero."""
    torch.manual_seed(seed)
    network = ViT(width=8, depth=1, heads=2, hidden=12, **options).double()
    for parameter in network.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return network


def test_the_function_stays_also_where_positions_look_back_only() -> None:
    torch.manual_seed(0)
    words = torch.randint(9, (3, 5))
    for network, inputs in (
        (small(0, size=8, patch=4), torch.randn(3, 3, 8, 8).double()),
        (GPT(9, context=5, width=8, depth=2, heads=2, hidden=12).double(), words),
    ):
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        larger = multiplied_out(network)
        torch.testing.assert_close(larger(inputs), network(inputs), rtol=1e-10, atol=1e-12)
        assert any(isinstance(layer, MultipliedAttention) for layer in larger.modules())
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_heads_permute_streams_turn_and_nothing_mixes_inside_of_heads() -> None:
    larger, images = multiplied_out(small(0, size=8, patch=4)), torch.randn(3, 3, 8, 8).double()
    spec = discover_symmetry(larger, images)
    assert sorted((group.size, group.blocks) for group in spec.groups) == [(2, 1), (8, 1), (12, 1)]
    (stream,) = discover_continuous(larger, spec, images).symmetries
    assert (stream.group.size, stream.kind, stream.fixes_ones) == (8, "orthogonal", True)


def test_the_row_moves_the_target_without_changing_it() -> None:
    options = {"size": 8, "patch": 4, "width": 8, "depth": 1, "heads": 2, "hidden": 12, "channels": 1}
    architecture = Architecture("vit", (2, 1, 8, 8), options)
    networks = architecture.build(), architecture.build()
    pair = Pair(architecture, *networks, load_digits(), 0)
    images = pair.data.train_images[:20].reshape(20, 1, 8, 8)
    object.__setattr__(pair.data, "train_images", images)
    outcome = heads_multiplied_out.weights(pair, load_setting("digits_mlp_32"))
    assert outcome.network is not None
    for network, state in ((networks[1], outcome.rebased), (networks[0], outcome.reference)):
        larger = copy.deepcopy(outcome.network)
        larger.load_state_dict(state)  # type: ignore[arg-type]
        torch.testing.assert_close(larger(images), network(images), rtol=1e-3, atol=1e-5)
    before, after = (
        sum(weight.numel() for weight in net.parameters()) for net in (networks[0], outcome.network)
    )
    assert outcome.notes["told"] == [f"{after / before:.2f} times the weights"]
