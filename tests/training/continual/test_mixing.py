from __future__ import annotations

import torch

from sinkhorn_rebasin.training.continual.mixing import mixed


def test_each_sample_has_a_share_of_its_own() -> None:
    first, second = torch.ones(3, 2, 2), torch.zeros(3, 2, 2)
    share = torch.tensor([0.0, 0.25, 1.0])
    assert torch.equal(mixed(first, second, share), share[:, None, None].expand(3, 2, 2))


def test_structures_are_mixed_leaf_by_leaf_and_words_are_kept() -> None:
    words = torch.tensor([1, 2])
    first = {"x": (torch.ones(2, 1), words), "flag": True}
    second = {"x": (torch.zeros(2, 1), words + 5), "flag": True}
    found = mixed(first, second, torch.tensor([0.5, 0.5]))
    assert found["x"][0].tolist() == [[0.5], [0.5]]
    assert torch.equal(found["x"][1], words)
    assert found["flag"] is True
    assert first["x"][0].sum() == 2
