"""Files and folders are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from sinkhorn_rebasin.errors import CheckpointError
from sinkhorn_rebasin.files.atomic import check_free, whole_file, whole_folder


def interrupted(part: Path) -> None:
    part.write_text("half")
    raise KeyboardInterrupt


def test_an_interrupted_file_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), whole_file(tmp_path / "a") as part:
        interrupted(part)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_takes_the_place_of_another_when_it_is_complete(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "old").write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_folder(folder) as part:
        interrupted(part / "new")
    assert [file.name for file in folder.iterdir()] == ["old"]
    with whole_folder(folder) as part:
        (part / "new").write_text("new")
    assert [file.name for file in folder.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [folder]


def test_what_is_there_is_not_replaced_without_force(tmp_path: Path) -> None:
    check_free(tmp_path / "new", force=False)
    check_free(tmp_path, force=False)
    (tmp_path / "a").write_text("a")
    with pytest.raises(CheckpointError, match="not empty: pass --force"):
        check_free(tmp_path, force=False)
    with pytest.raises(CheckpointError, match=r"a exists: pass --force"):
        check_free(tmp_path / "a", force=False)
    check_free(tmp_path, force=True)


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    below = tmp_path / "file" / "below"
    with pytest.raises(CheckpointError, match=r"Expected to write .*file/below"), whole_file(below):
        pass
