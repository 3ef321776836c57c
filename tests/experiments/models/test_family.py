from __future__ import annotations

from pathlib import Path

import torch

from experiments.compare_methods.setting import Training
from experiments.models.family import Family


def test_networks_never_see_the_images_that_are_held_out(tmp_path: Path) -> None:
    training = Training(epochs=1, batch_size=50)
    family = Family(
        title="tiny",
        data="digits",
        model="mlp",
        arguments={"inputs": 64, "widths": [4]},
        training=training,
        train_images=300,
        held_out=100,
        test_images=30,
    )
    data, held, tests = family.load(Path())
    assert len(data.train_labels) == 200
    assert [sum(len(labels) for _, labels in batches) for batches in (held, tests)] == [100, 30]
    seen = {tuple(image.flatten().tolist()) for image in data.train_images}
    held_images = torch.cat([images for images, _ in held])
    assert sum(tuple(image.flatten().tolist()) in seen for image in held_images) == 0
    first, again, other = (family.network(tmp_path, data, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["layers.0.weight"], other["layers.0.weight"])
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
