"""Writing files and folders whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from sinkhorn_rebasin.errors import CheckpointError


def check_free(path: str | os.PathLike[str], force: bool) -> None:
    """Refuse a place that is taken.

    An empty folder is free. With ``force`` everything is.

    Raises:
        CheckpointError: a file or a folder with something in it is there.

    Example:
        >>> check_free(tempfile.mkdtemp(), force=False)
    """
    place = Path(path)
    if force or not (place.exists() or place.is_symlink()):
        return
    if not place.is_dir():
        raise CheckpointError(f"Expected a new file but {place} exists: pass --force to replace it.")
    if any(place.iterdir()):
        raise CheckpointError(
            f"Expected a new or an empty folder but {place} is not empty: pass --force to replace it."
        )


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path whose file takes the place of ``path`` once it is complete.

    When the block fails, what was at ``path`` before is still there.

    Raises:
        CheckpointError: the file cannot be written.

    Example:
        >>> target = Path(tempfile.mkdtemp()) / "a.txt"
        >>> with whole_file(target) as part:
        ...     _ = part.write_text("complete")
        >>> target.read_text(), len(list(target.parent.iterdir()))
        ('complete', 1)
    """
    file = Path(path)
    with _told(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{file.name}.", suffix=".part", dir=file.parent)
        os.close(handle)
        part = Path(name)
        try:
            yield part
            put_on_disk(part)
            part.chmod(0o666 & ~_mask())
            os.replace(part, file)
            put_on_disk(file.parent)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary folder that takes the place of ``path`` once it is complete.

    When the block fails, what was at ``path`` before is still there.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    folder = Path(path)
    with _told(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
        part, former = aside / "new", aside / "former"
        try:
            part.mkdir()
            yield part
            for written in part.rglob("*"):
                put_on_disk(written)
            taken = folder.exists() or folder.is_symlink()
            if taken:
                os.replace(folder, former)
            try:
                os.replace(part, folder)
            except OSError:
                if taken:
                    os.replace(former, folder)
                raise
            put_on_disk(folder.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _told(place: Path) -> Iterator[None]:
    """Say in one line which file could not be written."""
    try:
        yield
    except (OSError, SafetensorError) as error:  # safetensors has an error of its own for a full disk
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(
            f"Expected to write {place} but got {reason}: make room, or choose another place. "
            f"Nothing was left there."
        ) from error


def _mask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def put_on_disk(path: Path) -> None:
    """See that a file or a folder's list of names is on the disk.

    It does so where folders can be opened.
    """
    if os.name != "posix":
        return
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
