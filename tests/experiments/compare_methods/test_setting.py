"""Settings are read from files, and a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.compare_methods.setting import Recipe, known_settings, load_setting
from experiments.models import build_model


@pytest.mark.parametrize("name", known_settings())
def test_every_setting_is_read_and_builds_its_network(name: str) -> None:
    setting = load_setting(name)
    network = build_model(setting.model, **setting.endpoint(0).arguments)
    assert sum(parameter.numel() for parameter in network.parameters()) > 1000
    assert all(first != second for first, second in setting.seeds)
    assert setting.evaluation.points % 2 == 1


def test_what_a_file_leaves_out_is_the_default(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "title: mine\ndata: digits\nmodel: mlp\ntraining: {epochs: 3}\nrecipe: {steps: 7}\n", encoding="utf-8"
    )
    setting = load_setting(str(file))
    assert setting.recipe == Recipe(steps=7)
    assert setting.endpoint(4).epochs == 3
    assert setting.endpoint(4).seed == 4


@pytest.mark.parametrize("line", ["epochs: 3", "training: {epoch: 3}", "data: imagenet"])
def test_a_key_or_value_nobody_knows_is_refused(line: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    lines = {
        "title": "title: mine",
        "data": "data: digits",
        "model": "model: mlp",
        "training": "training: {epochs: 3}",
    }
    lines[line.split(":")[0]] = line
    file.write_text("\n".join(lines.values()), encoding="utf-8")
    with pytest.raises(Exception, match=r"(?i)expected|does not accept"):
        load_setting(str(file))


def test_an_unknown_name_is_told_the_known_ones() -> None:
    with pytest.raises(FileNotFoundError, match="digits_mlp_32"):
        load_setting("mnist_mlp_33")
