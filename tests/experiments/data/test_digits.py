from __future__ import annotations

import torch

from experiments.data import load_digits


def test_split_is_fixed_and_disjoint() -> None:
    data, again = load_digits(), load_digits(train_images=100)
    assert torch.equal(data.test_labels, again.test_labels)
    assert torch.equal(data.train_labels[:100], again.train_labels)
    images = torch.cat([data.train_images, data.test_images]).flatten(1)
    assert len(torch.unique(images, dim=0)) == 1797
    assert data.test_labels.bincount().min() > 25
