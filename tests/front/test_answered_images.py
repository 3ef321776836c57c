"""Images that are drawn take the place of data, and both networks' answers that of labels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sinkhorn_rebasin import (
    MidpointLoss,
    SinkhornRebasin,
    discover_symmetry,
    permute_state,
    random_permutations,
    weight_matching,
)
from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.front import answered_images
from sinkhorn_rebasin.networks.drawn_images import drawn_images

IMAGES = torch.zeros(2, 3, 8, 8)


def network(seed: int) -> nn.Module:
    """A convolution with batch norm, which must not move, and dropout, which must draw nothing."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(), nn.AdaptiveAvgPool2d(1)
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(6, 4))


def test_answers_are_the_mean_of_both_networks_and_nothing_is_changed() -> None:
    networks, before = [network(0), network(1)], torch.get_rng_state()
    states = [{name: tensor.clone() for name, tensor in net.state_dict().items()} for net in networks]
    batches = answered_images(*networks, IMAGES, samples=96, batch_size=64, seed=3)
    assert [len(images) for images, _ in batches] == [64, 32]
    assert torch.equal(torch.get_rng_state(), before)
    for net, state in zip(networks, states, strict=True):
        assert net.training
        assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())
    images, answers = (torch.cat(parts) for parts in zip(*batches, strict=True))
    expected = sum(F.softmax(net.eval()(images), 1) for net in networks) / 2
    torch.testing.assert_close(answers, expected.detach())
    assert torch.equal(images, drawn_images(networks[0][0].weight, IMAGES, 96, 3))
    assert not torch.equal(images[:64], answered_images(*networks, IMAGES, samples=64, seed=4)[0][0])


def covariance(images: Tensor) -> Tensor:
    channels = images.double().movedim(1, 0).flatten(1)
    return channels @ channels.T / channels.shape[1]


def test_colors_are_those_of_whatever_layer_reads_the_images() -> None:
    scales = torch.tensor([1.0, 3.0, 0.1])
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    with torch.no_grad():
        flat[1].weight.copy_((torch.randn(5, 3, 64) * scales[:, None]).flatten(1))
    spread = covariance(answered_images(flat, flat, IMAGES, samples=2048)[0][0]).diagonal()
    assert spread[1] > 4 * spread[0] > 40 * spread[2]
    behind = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(48, 5))
    spread = covariance(torch.cat([images for images, _ in answered_images(behind, behind, IMAGES)]))
    torch.testing.assert_close(spread, torch.eye(3).double(), atol=0.15, rtol=0)


def test_inputs_that_are_no_images_and_outputs_that_are_no_classes_are_refused() -> None:
    with pytest.raises(DataError, match=r"\(N, channels, height, width\).*\(2, 3\): pass data"):
        answered_images(nn.Linear(3, 2), nn.Linear(3, 2), torch.zeros(2, 3))
    convolution = nn.Conv2d(3, 2, 3)
    with pytest.raises(
        DataError, match=r"Conv2d to answer with scores of classes, \(N, classes\), but got .* \(128, 2"
    ):
        answered_images(convolution, convolution, IMAGES)


def test_the_loss_between_networks_is_least_where_both_answer_alike() -> None:
    first, other = network(0).eval(), network(0).eval()
    with torch.no_grad():
        first[-1].weight.mul_(20)
    spec = discover_symmetry(first, IMAGES)
    planted = random_permutations(spec, generator=torch.Generator().manual_seed(1))
    other.load_state_dict(permute_state(first.state_dict(), spec, planted))
    batch = answered_images(first, other, IMAGES)[0]
    entropy = float(torch.distributions.Categorical(batch[1]).entropy().mean())
    loss = MidpointLoss(F.cross_entropy)
    start = weight_matching(first, other, spec)
    losses = [
        float(loss(SinkhornRebasin(first, other, spec=spec, start=each, check=False).eval(), batch))
        for each in ("identity", start)
    ]
    assert abs(losses[1] - entropy) < 1e-5
    assert losses[0] > entropy + 0.1
