"""Files of results are whole, or named."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from experiments.reporting.json_files import read_json, write_json
from experiments.reporting.receipts import read_receipt, write_receipt
from sinkhorn_rebasin.errors import DataError


@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_a_file_that_was_cut_short_is_named(tmp_path: Path, share: float) -> None:
    path = tmp_path / "row.json"
    write_json(path, {"barrier": [0.25, 0.5], "method": "ours"})
    text = path.read_text(encoding="utf-8")
    path.write_text(text[: int(share * len(text))], encoding="utf-8")
    with pytest.raises(DataError, match=r"row\.json but got .*delete it"):
        read_json(path)


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "row.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"row\.json"):
        read_json(tmp_path / "row.json")


@pytest.mark.parametrize("content", ["", '{"metrics": ', "[1]"])
def test_a_broken_receipt_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "receipt.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"receipt\.json"):
        read_receipt(tmp_path)


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_full_disk_leaves_the_file_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_receipt(tmp_path, experiment="demo", config={}, metrics={"n": 1}, seeds=[0])
    monkeypatch.setattr(*((os, "fsync") if where == "fsync" else (Path, "replace")), full)
    with pytest.raises(OSError, match="No space left"):
        write_receipt(tmp_path, experiment="demo", config={}, metrics={"n": 2}, seeds=[0])
    assert read_receipt(tmp_path)["metrics"] == {"n": 1}


def test_a_value_that_is_no_json_leaves_the_file_of_before(tmp_path: Path) -> None:
    path = tmp_path / "row.json"
    write_json(path, 1)
    with pytest.raises(TypeError):
        write_json(path, {"tensor": object()})
    assert read_json(path) == 1
