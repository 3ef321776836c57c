"""RegMean++ against least squares on inputs that a merged network made by hand produces."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import DataError
from tests.merging.fusion_networks import convolutional, identity, images, mlp, moving, points, with_state


def fused(nets: Sequence[nn.Module], data: Sequence[Tensor], **options: object) -> sr.FusedState:
    stays = identity(sr.discover_symmetry(nets[0], data[0]))
    settings = {"alpha": 1.0, "ridge": 0.0, **options}
    return sr.regmean_plus_plus(nets, [stays] * len(nets), [[x] for x in data], **settings)


@pytest.mark.parametrize("targets", ["merged", "own"])
def test_each_layer_is_fitted_on_what_the_merged_layers_before_produce(targets: str) -> None:
    nets, data = [mlp(0), mlp(1)], [points(60, 1), points(60, 2)]
    found = fused(nets, data, targets=targets)
    merged = with_state(
        nets[0], {n: (t + nets[1].state_dict()[n]) / 2 for n, t in nets[0].state_dict().items()}
    )
    for place in (0, 2, 4):
        rows = [merged[:place](x) for x in data]
        inputs = rows if targets == "merged" else [net[:place](x) for net, x in zip(nets, data, strict=True)]
        answers = [x @ net[place].weight.T for net, x in zip(nets, inputs, strict=True)]
        expected = torch.linalg.lstsq(torch.cat(rows), torch.cat(answers)).solution.T.detach()
        torch.testing.assert_close(found[f"{place}.weight"], expected, rtol=1e-7, atol=1e-7)
        with torch.no_grad():
            merged[place].weight.copy_(expected)


def test_the_same_data_everywhere_give_the_plain_mean_of_merged_targets() -> None:
    nets, x = [mlp(0), mlp(1)], points(60)
    found = fused(nets, [x, x])
    torch.testing.assert_close(found["2.weight"], ((nets[0][2].weight + nets[1][2].weight) / 2).detach())
    own = fused(nets, [x, x], targets="own")
    assert not torch.allclose(own["2.weight"], found["2.weight"])


def test_biases_are_fitted_when_asked_for() -> None:
    nets, x = [mlp(0), mlp(1)], points(60)
    found = fused(nets, [x, x], targets="own", biases=True)
    # The first layer's answers are affine in its inputs, so that their mean is met exactly.
    torch.testing.assert_close(found["0.bias"], ((nets[0][0].bias + nets[1][0].bias) / 2).detach())
    merged = with_state(nets[0], dict(found)).requires_grad_(False)
    answers = sum(net[:3](x).detach() for net in nets) / 2
    assert float((merged[:3](x) - answers).mean(0).abs().max()) < 1e-8
    assert "2.bias" in found.fitted


def test_convolutions_in_groups_are_fitted_behind_batch_norm_of_the_batch() -> None:
    nets, x = [convolutional(0), convolutional(1)], images(60)
    found = fused(nets, [x, x], targets="own")
    merged = convolutional(0)
    merged.load_state_dict(dict(found))
    merged.norm.train()
    rows = merged.grouped  # the layer whose inputs are compared
    seen: list[Tensor] = []
    rows.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    merged(x)
    theirs = [torch.relu(net.depth(torch.relu(net.norm(net.first(x))))) for net in nets]

    def patches(inputs: Tensor) -> Tensor:
        return (
            nn.functional.unfold(inputs, 2, dilation=2)
            .reshape(60, 4, 8, -1)[:, 1]
            .movedim(1, 2)
            .reshape(-1, 8)
        )

    answers = (
        sum(patches(h) @ n.grouped.weight[3:6].flatten(1).T for h, n in zip(theirs, nets, strict=True)) / 2
    )
    expected = torch.linalg.lstsq(patches(seen[0]), answers).solution.T.detach()
    torch.testing.assert_close(found["grouped.weight"][3:6].flatten(1), expected, rtol=1e-6, atol=1e-6)


def test_alignments_are_applied_first() -> None:
    nets, data = [mlp(0), mlp(1)], [points(60, 1), points(60, 2)]
    there = moving(nets[1], data[0], scaled=True)
    moved, stays = with_state(nets[1], there.apply(nets[1])), identity(there.spec)
    batches = [[x] for x in data]
    one = sr.regmean_plus_plus(nets, [stays, there], batches, targets="own")
    other = sr.regmean_plus_plus([nets[0], moved], [stays, stays], batches, targets="own")
    torch.testing.assert_close(dict(one), dict(other), rtol=1e-6, atol=1e-9)


def test_faults_are_named() -> None:
    nets, x = [mlp(0), mlp(1)], points()
    stays = identity(sr.discover_symmetry(nets[0], x))
    with pytest.raises(DataError, match="the Gram matrices of network 1: use RegMean"):
        sr.regmean_plus_plus(nets, [stays, stays], [[x], sr.gram_matrices(nets[1], [x])])
    with pytest.raises(DataError, match="'merged' or 'own' but got 'mine'"):
        fused(nets, [x, x], targets="mine")
    with pytest.raises(DataError, match="at least one sample"):
        sr.regmean_plus_plus(nets, [stays, stays], [[x], []])
