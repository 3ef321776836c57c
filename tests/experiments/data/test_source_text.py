from __future__ import annotations

from pathlib import Path

import pytest
import torch

from experiments.data.source_text import (
    TEST_MODULES,
    TRAIN_MODULES,
    VOCABULARY,
    decoded,
    encoded,
    load_source_text,
)
from sinkhorn_rebasin.errors import DataError


def _write(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return folder


def test_windows_follow_each_other_and_labels_come_next(tmp_path: Path) -> None:
    folder = _write(tmp_path, a="abcdefghijk", b="0123456789", c="uvwxyz")
    data = load_source_text(4, ["a", "b"], ["c"], folder)
    assert [decoded(window) for window in data.train_images] == ["abcd", "efgh", "0123", "4567"]
    assert [decoded(window) for window in data.train_labels] == ["bcde", "fghi", "1234", "5678"]
    assert decoded(data.test_images[0]) == "uvwx"
    assert data.classes == VOCABULARY


def test_every_character_is_in_the_vocabulary_once() -> None:
    text = "\n !az~Z09\"'\\"
    assert decoded(encoded(text)) == text
    assert len(set(encoded("".join(map(chr, range(32, 127))) + "\n").tolist())) == VOCABULARY - 1
    assert encoded("\té").tolist() == [VOCABULARY - 1] * 2


def test_the_standard_library_is_there_and_split_by_file() -> None:
    assert not set(TRAIN_MODULES) & set(TEST_MODULES)
    data = load_source_text(64)
    assert len(data.train_labels) > 20_000
    assert len(data.test_labels) > 1000
    assert data.train_images.dtype == data.train_labels.dtype == torch.long
    known = (data.train_images < VOCABULARY - 1).double().mean()
    assert known > 0.999


def test_what_is_missing_or_short_is_named(tmp_path: Path) -> None:
    folder = _write(tmp_path, a="abcdef", b="x" * 20)
    with pytest.raises(DataError, match=r"c\.py"):
        load_source_text(4, ["b"], ["c"], folder)
    with pytest.raises(DataError, match=r"a\.py but got 6"):
        load_source_text(8, ["b"], ["a"], folder)
