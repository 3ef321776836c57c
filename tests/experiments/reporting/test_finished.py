from __future__ import annotations

from pathlib import Path

import pytest

from experiments.reporting.finished import Finished


def test_a_row_is_measured_once_and_rows_come_in_the_order_of_names(tmp_path: Path) -> None:
    rows, calls = Finished(tmp_path), list[str]()

    def measure(name: str) -> dict[str, str]:
        calls.append(name)
        return {"name": name}

    for name in ("digits-1", "digits-0", "digits-1", "mnist-0"):
        assert rows.row(name, lambda name=name: measure(name)) == {"name": name}
    assert calls == ["digits-1", "digits-0", "mnist-0"]
    assert [row["name"] for row in Finished(tmp_path).all("digits-*")] == ["digits-0", "digits-1"]


def test_a_row_that_fails_is_not_kept(tmp_path: Path) -> None:
    rows = Finished(tmp_path)

    def broken() -> dict[str, str]:
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        rows.row("digits-0", broken)
    assert rows.row("digits-0", lambda: {"name": "again"}) == {"name": "again"}
