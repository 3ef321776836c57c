from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn

from experiments.carry.tasks import Task
from experiments.data import load_digits
from experiments.fusion.__main__ import FUSIONS, fused_pair, keep
from experiments.reporting.json_files import write_json
from experiments.reporting.receipts import read_receipt


def test_digits_are_fused_in_every_way_and_the_receipt_tells(tmp_path: Path) -> None:
    data = load_digits()
    test = data.test_images, data.test_labels
    pair = []
    for seed in range(2):
        torch.manual_seed(seed)
        size = data.train_images[0].numel()
        net = nn.Sequential(nn.Flatten(), nn.Linear(size, 24), nn.ReLU(), nn.Linear(24, 10))
        optimizer = torch.optim.Adam(net.parameters(), 0.01)
        for _ in range(60):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(data.train_images), data.train_labels).backward()
            optimizer.step()
        pair.append(net.eval())
    rows = fused_pair(pair, Task(data, test, test), steps=2)
    accuracy = {(row["alignment"], row["fusion"]): row["accuracy"] for row in rows}
    alignments = ("as they are", "weights", "activations", "learned")
    assert accuracy.keys() == {
        ("single networks", ""),
        *((alignment, fusion) for alignment in alignments for fusion in FUSIONS),
    }
    assert accuracy["weights", "RegMean"] > accuracy["as they are", "mean"]
    write_json(
        tmp_path / "finished" / "digits-0-1.json", {"setting": "digits", "seeds": [0, 1], "rows": rows}
    )
    keep(argparse.Namespace(out=tmp_path, threads=1, steps=2))
    metrics = read_receipt(tmp_path)["metrics"]
    assert [line["alignment"] for line in metrics["rows"]] == ["single networks", *alignments]
    single, before = accuracy["single networks", ""], accuracy["as they are", "RegMean"]
    expected = (accuracy["weights", "RegMean"] - before) / (single - before)
    assert metrics["gaps"][0]["RegMean"] == f"{expected:.2f}"
    assert (tmp_path / "fusion.png").is_file()
