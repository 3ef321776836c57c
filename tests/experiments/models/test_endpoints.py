from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from experiments.data import ImageData, load_digits
from experiments.models import build_model, endpoints, training
from experiments.models.endpoints import EndpointConfig, load_or_train
from experiments.models.training import train_endpoint
from sinkhorn_rebasin.errors import CheckpointError

DATA = load_digits()
CONFIG = EndpointConfig("mlp", seed=1, epochs=1, arguments={"inputs": 64, "widths": [16]})


def _mlp() -> nn.Module:
    return build_model("mlp", inputs=64, widths=[32])


def _equal(first: nn.Module, second: nn.Module) -> bool:
    states = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in states)


def test_training_learns_the_digits() -> None:
    model = train_endpoint(_mlp, DATA, seed=0, epochs=12, learning_rate=3e-3, batch_size=64)
    accuracy = (model(DATA.test_images).argmax(1) == DATA.test_labels).float().mean()
    assert accuracy > 0.93
    assert not model.training


def test_one_cycle_learns_the_digits_and_ends_at_rest() -> None:
    settings = {"seed": 0, "learning_rate": 0.1, "batch_size": 64, "one_cycle": True}
    model = train_endpoint(_mlp, DATA, epochs=12, **settings)
    assert (model(DATA.test_images).argmax(1) == DATA.test_labels).float().mean() > 0.93
    rounded = train_endpoint(_mlp, DATA, epochs=12, bfloat16=True, **settings)
    assert (rounded(DATA.test_images).argmax(1) == DATA.test_labels).float().mean() > 0.93
    assert rounded.layers[0].weight.dtype == torch.float32


def test_the_first_epochs_see_images_of_half_the_size() -> None:
    seen: list[tuple[int, ...]] = []

    def make() -> nn.Module:
        network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
        network.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[2:])))
        return network

    train_endpoint(make, DATA, seed=0, epochs=3, batch_size=len(DATA.train_labels), small_epochs=2)
    assert seen == [(4, 4), (4, 4), (8, 8)]


def test_seed_decides_everything_and_nothing_leaks() -> None:
    before = torch.get_rng_state()
    first = train_endpoint(_mlp, DATA, seed=5, epochs=1, augmentation=True)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    assert _equal(first, train_endpoint(_mlp, DATA, seed=5, epochs=1, augmentation=True))
    assert not _equal(first, train_endpoint(_mlp, DATA, seed=6, epochs=1, augmentation=True))


def test_augmentation_shifts_and_flips_whole_images() -> None:
    images = torch.arange(1, 1 + 3 * 8 * 8.0).view(1, 3, 8, 8).repeat(64, 1, 1, 1)
    padded = nn.functional.pad(images[0], (4,) * 4)
    windows = [padded[:, i : i + 8, j : j + 8] for i in range(9) for j in range(9)]
    allowed = torch.stack([*windows, *(window.flip(2) for window in windows)]).flatten(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        output = training.augmented(images).flatten(1)
    assert all((row == allowed).all(1).any() for row in output)
    assert len(torch.unique(output, dim=0)) > 30
    unflipped = sum(bool((row == allowed[: len(windows)]).all(1).any()) for row in output)
    assert 16 < unflipped < 48


def test_second_call_reads_the_first_ones_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = load_or_train(tmp_path, CONFIG, DATA)
    monkeypatch.setattr(endpoints, "train_endpoint", lambda *_, **__: pytest.fail("trained again"))
    loaded = load_or_train(tmp_path, CONFIG, DATA)
    assert _equal(trained, loaded)
    assert not loaded.training
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2},
        {"epochs": 2},
        {"learning_rate": 1e-2},
        {"batch_size": 64},
        {"augmentation": True},
        {"one_cycle": True},
        {"bfloat16": True},
    ],
)
def test_every_setting_has_its_own_file(tmp_path: Path, change: dict) -> None:
    load_or_train(tmp_path, CONFIG, DATA)
    load_or_train(tmp_path, dataclasses.replace(CONFIG, **change), DATA)
    assert len(list(tmp_path.iterdir())) == 2


def test_small_epochs_make_another_endpoint() -> None:
    other = dataclasses.replace(CONFIG, small_epochs=1)
    assert endpoints.endpoint_key(other, DATA) != endpoints.endpoint_key(CONFIG, DATA)


def test_other_data_has_its_own_file(tmp_path: Path) -> None:
    fewer = ImageData(
        DATA.train_images[:500], DATA.train_labels[:500], DATA.test_images, DATA.test_labels, 10, DATA.name
    )
    load_or_train(tmp_path, CONFIG, DATA)
    load_or_train(tmp_path, CONFIG, fewer)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("metadata", [None, {"config": "{}"}])
def test_a_file_of_another_configuration_is_refused(tmp_path: Path, metadata: dict | None) -> None:
    load_or_train(tmp_path, CONFIG, DATA)
    (path,) = tmp_path.iterdir()
    save_file(load_file(path), path, metadata=metadata)
    with pytest.raises(CheckpointError, match="but got that of"):
        load_or_train(tmp_path, CONFIG, DATA)


def test_weights_that_were_changed_in_place_are_noticed(tmp_path: Path) -> None:
    load_or_train(tmp_path, CONFIG, DATA)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[-2000:-1800] = bytes(200)
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"checksum differs.*Delete it"):
        load_or_train(tmp_path, CONFIG, DATA)


def test_an_endpoint_of_before_there_were_checksums_is_read(tmp_path: Path) -> None:
    trained = load_or_train(tmp_path, CONFIG, DATA)
    (path,) = tmp_path.iterdir()
    save_file(load_file(path), path, metadata={"config": endpoints.endpoint_key(CONFIG, DATA)})
    assert _equal(trained, load_or_train(tmp_path, CONFIG, DATA))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_an_endpoint_that_was_cut_short_is_named(tmp_path: Path, share: float) -> None:
    load_or_train(tmp_path, CONFIG, DATA)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=path.name):
        load_or_train(tmp_path, CONFIG, DATA)


def test_a_batch_larger_than_the_data_still_trains() -> None:
    untrained = train_endpoint(_mlp, DATA, seed=0, epochs=0)
    assert not _equal(untrained, train_endpoint(_mlp, DATA, seed=0, epochs=1, batch_size=10_000))
