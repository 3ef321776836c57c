from __future__ import annotations

from pathlib import Path

from experiments.many_networks.__main__ import METHODS, main
from experiments.many_networks.measure import ENDS
from experiments.reporting.receipts import read_receipt


def test_digits_are_merged_by_every_method_and_finished_rows_are_kept(tmp_path: Path) -> None:
    setting = ["digits_mlp_32", "--seeds", "0,1,2", "1,2,0", "--steps", "4"]
    options = ["--out", str(tmp_path), "--cache", str(tmp_path / "nets")]
    main([*setting, *options, "--methods", *ENDS])
    assert list(read_receipt(tmp_path)["metrics"]["all"][0]["rows"]) == list(ENDS)
    main([*setting, *options])
    metrics = read_receipt(tmp_path)["metrics"]
    first, second = (each["rows"] for each in metrics["all"])
    assert set(first) == set(METHODS)
    assert first["one network"]["loss"] == second["one network"]["loss"]  # the same three networks
    aligned = [name for name in METHODS if name not in (*ENDS, "as they are", "to the first")]
    assert all(first[name]["cycle_error"] == 0 for name in aligned)
    assert all(first[name]["function_change"] < 1e-3 for name in aligned)
    assert all(first[name]["loss"] < first["as they are"]["loss"] for name in aligned)
    assert len(first["ours"]["barriers"]) == 3
    assert [line["draws"] for line in metrics["rows"]] == [2] * len(METHODS)
    assert (tmp_path / "many_networks.png").is_file()
    assert (tmp_path / "barriers.png").is_file()
    files = sorted((tmp_path / "finished").iterdir())
    before = [file.stat().st_mtime_ns for file in files]
    main([*setting, *options])
    assert [file.stat().st_mtime_ns for file in files] == before
