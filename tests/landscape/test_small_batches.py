from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sinkhorn_rebasin.landscape import Plane, evaluate_plane
from sinkhorn_rebasin.landscape.small_batches import in_small_batches


class Watched(nn.Sequential):
    """Note how many images run at once, and how they lie in memory."""

    seen: list[tuple[int, bool]]

    def forward(self, images: torch.Tensor) -> Any:
        channels_last = images.is_contiguous(memory_format=torch.channels_last)
        Watched.seen.append((len(images), channels_last))
        return super().forward(images)


class SubtractsTheBatch(Watched):
    """Compare each image with the others of its batch."""

    def forward(self, images: torch.Tensor) -> Any:
        return 20 * super().forward(images - images.mean(0, keepdim=True)).cumsum(0)


def networks(kind: type[nn.Module] = Watched) -> dict[str, nn.Module]:
    Watched.seen = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return {
            name: kind(nn.Conv2d(3, 4, 3, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5)).eval()
            for name in ("a", "b", "c")
        }


def images(count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    draw = torch.Generator().manual_seed(1)
    return [
        (torch.randn(count, 3, 32, 32, generator=draw), torch.randint(5, (count,), generator=draw))
        for _ in range(2)
    ]


def test_images_of_a_plane_run_in_small_batches_with_channels_last() -> None:
    nets, data = networks(), images(60)
    found = evaluate_plane(Plane.through(nets), data, points=2)
    assert Watched.seen[-4:] == [(42, True), (18, True)] * 2
    assert data[0][0].is_contiguous()
    plane = Plane.through(networks())
    x, y = (torch.cat(part) for part in zip(*data, strict=True))
    for row in range(2):
        for column in range(2):
            twin = networks()["a"]
            twin.load_state_dict(plane.state_at(float(found.x[column]), float(found.y[row])))
            with torch.no_grad():
                scores = twin(x)
            assert float(found.losses[row, column]) == pytest.approx(
                F.cross_entropy(scores, y).item(), rel=1e-5
            )
            assert found.accuracies is not None
            right = (scores.argmax(1) == y).double().mean().item()
            assert float(found.accuracies[row, column]) == pytest.approx(right)


def test_networks_that_compare_the_samples_of_a_batch_keep_their_batches() -> None:
    found = evaluate_plane(Plane.through(networks(SubtractsTheBatch)), images(60), points=2)
    assert [size for size, _ in Watched.seen[-2:]] == [60, 60]
    assert bool(found.losses.isfinite().all())


class AlmostAlone(Watched):
    """Let an image feel a little of its place in the batch."""

    def forward(self, images: torch.Tensor) -> Any:
        return super().forward(images) + 2e-4 * torch.outer(torch.arange(len(images)), torch.arange(5))


def test_a_small_effect_of_the_batch_counts_where_rounding_is_smaller() -> None:
    data = images(60)
    evaluate_plane(Plane.through(networks(AlmostAlone)), data, points=2)
    assert [size for size, _ in Watched.seen[-2:]] == [60, 60]


def test_what_is_no_pair_of_images_and_labels_is_left_alone() -> None:
    labels = torch.zeros(4, dtype=torch.long)
    for batch in (
        {"pixel_values": torch.zeros(4, 3, 8, 8), "labels": labels},
        (torch.zeros(4, 8), labels),
        (torch.zeros(4, 3, 8, 8), labels[:2]),
        (torch.zeros(4, 3, 8, 8), None),
        torch.zeros(4, 3, 8, 8),
    ):
        given = [batch]
        assert in_small_batches(given) is given
