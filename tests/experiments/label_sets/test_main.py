from __future__ import annotations

from pathlib import Path

from experiments.label_sets.__main__ import main
from experiments.label_sets.networks import halves, of_classes
from experiments.reporting.json_files import read_json, write_json
from experiments.reporting.receipts import read_receipt
from tests.experiments.label_sets.tiny import images_of


def test_digits_are_merged_by_every_method_and_what_is_finished_is_kept(tmp_path: Path) -> None:
    options = ["digits_mlp", "--pairs", "1", "--out", str(tmp_path), "--cache", str(tmp_path / "nets")]
    main(options)
    rows = {row["method"]: row for row in read_receipt(tmp_path)["metrics"]["pairs"][0]["rows"]}
    assert rows["both networks"]["joint"] > 0.8
    assert rows["both networks"]["apart"] > rows["both networks"]["joint"]
    assert rows["ours, 1.0x"]["joint"] > rows["weight matching"]["joint"]
    assert (tmp_path / "label_sets.png").is_file()
    finished = tmp_path / "finished" / "digits_mlp-0.json"
    part = finished.with_suffix(".part")
    kept = read_json(part)
    write_json(part, [{**row, "joint": 0.5} for row in kept])
    finished.unlink()
    main(options)
    assert {row["joint"] for row in read_json(finished)["rows"]} == {0.5}


def test_a_network_learns_its_own_classes_alone() -> None:
    first, second = halves(10, 3)
    assert sorted(first + second) == list(range(10))
    data = images_of([4, 1, 9, 4])
    kept = of_classes(data, [4, 9])
    assert kept.train_labels.tolist() == [0, 1, 0]
    assert kept.train_images.flatten().tolist() == [0.0, 2.0, 3.0]
    assert (kept.classes, kept.name) == (2, "tiny-49")
