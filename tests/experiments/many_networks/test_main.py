from __future__ import annotations

from pathlib import Path

from experiments.many_networks.__main__ import main
from experiments.reporting.receipts import read_receipt


def test_digits_are_merged_by_every_method_and_finished_settings_are_kept(tmp_path: Path) -> None:
    setting = ["digits_mlp_32", "--networks", "3", "--steps", "4"]
    options = ["--out", str(tmp_path), "--cache", str(tmp_path / "nets")]
    main([*setting, *options])
    found = read_receipt(tmp_path)["metrics"]["all"][0]
    rows = {row["method"]: row for row in found["rows"]}
    aligned = ["MergeMany", "universe", "Frank-Wolfe", "ours"]
    assert {*aligned, "one network", "mean of outputs", "as they are", "to the first"} == set(rows)
    assert all(rows[name]["cycle_error"] == 0 for name in aligned)
    assert all(rows[name]["function_change"] < 1e-3 for name in aligned)
    assert all(rows[name]["loss"] < rows["as they are"]["loss"] for name in aligned)
    assert (tmp_path / "many_networks.png").is_file()
    before = (tmp_path / "finished").stat().st_mtime_ns
    main([*setting, *options])
    assert (tmp_path / "finished").stat().st_mtime_ns == before
