from __future__ import annotations

import pytest
import torch

from experiments.data.image_data import standardized
from sinkhorn_rebasin.errors import DataError


def _pair(count: int, seed: int, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 2, 4, 4), generator=generator), torch.arange(count) % classes


def test_each_channel_has_training_mean_zero_and_deviation_one() -> None:
    train, test = _pair(50, 0), _pair(20, 1)
    train[0][:, 1] //= 2
    data = standardized(train, test, classes=3, name="noise")
    for channel in range(2):
        values = data.train_images[:, channel].double()
        assert values.mean().abs() < 1e-6
        assert (values.square().mean() - 1).abs() < 1e-5
    reference = train[0][:, 1].double()
    expected = (test[0][:, 1].double() - reference.mean()) / reference.std(correction=0)
    torch.testing.assert_close(data.test_images[:, 1].double(), expected, rtol=1e-4, atol=1e-5)
    assert data.image_shape == (2, 4, 4)
    assert data.train_images.dtype == torch.float32


def test_sets_pair_images_with_labels() -> None:
    data = standardized(_pair(6, 0), _pair(4, 1), classes=3, name="noise")
    image, label = data.train_set()[4]
    assert torch.equal(image, data.train_images[4])
    assert label == 1
    assert len(data.test_set()) == 4


def test_held_out_images_are_the_last_and_no_longer_there() -> None:
    data = standardized(_pair(6, 0), _pair(4, 1), classes=3, name="noise")
    kept, (images, labels) = data.hold_out(2)
    assert torch.equal(torch.cat([kept.train_images, images]), data.train_images)
    assert torch.equal(torch.cat([kept.train_labels, labels]), data.train_labels)
    assert len(labels) == 2
    for count in (-1, 6):
        with pytest.raises(DataError, match="hold out 0 to 5"):
            data.hold_out(count)


@pytest.mark.parametrize(
    ("images", "labels"),
    [((5, 4, 4), [0] * 5), ((5, 1, 4, 4), [0] * 4), ((2, 1, 4, 4), [0, 3]), ((2, 1, 4, 4), [-1, 0])],
)
def test_wrong_shapes_and_labels_are_refused(images: tuple[int, ...], labels: list[int]) -> None:
    pair = torch.zeros(images), torch.tensor(labels)
    with pytest.raises(DataError, match="Expected noise"):
        standardized(pair, pair, classes=3, name="noise")
