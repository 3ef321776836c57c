from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

import experiments
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


SETTINGS = sorted(
    (folder, path.stem)
    for folder in ("averaging", "curves", "geodesics", "masks", "plane", "simplexes", "stitching", "taxonomy")
    for path in (Path(experiments.__path__[0]) / folder / "settings").glob("*.yaml")
)


@pytest.mark.parametrize(("folder", "name"), SETTINGS)
def test_every_setting_reads_and_builds_a_network_for_its_images(folder: str, name: str) -> None:
    setting = importlib.import_module(f"experiments.{folder}.setting").load_setting(name)
    shape = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "cifar10": (3, 32, 32)}[setting.data]
    if folder == "taxonomy":
        setting = importlib.import_module("experiments.taxonomy.cells").of_cell(setting, 4, 50)
    assert setting.fresh().eval()(torch.zeros(2, *shape)).shape == (2, 10)


def test_all_experiments_have_a_setting_of_digits() -> None:
    assert {folder for folder, name in SETTINGS if name == "digits_mlp"} == {folder for folder, _ in SETTINGS}
    assert len(SETTINGS) >= 16
