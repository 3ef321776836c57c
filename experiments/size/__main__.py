"""How long the command takes on a billion weights, and how much memory: ``python -m experiments.size``.

A Llama-like pair of bfloat16 checkpoints is written to a temporary folder, the second a permuted copy of the first
with noise. They are aligned without data, applied and merged, each by the command in a process of its own. Whether
every unit went home is read from the file that ``apply`` wrote, bit by bit. Copying one checkpoint is measured
beside. It needs transformers, 12 GB of memory and 12 GB of disk; ``--size small`` does the same in a minute.

The other sizes are ResNet50, ViT-B and GPT-2 small: two networks of random weights each, merged in one command.
A table over all sizes that were measured is left beside them; ``--show`` makes it anew and measures nothing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import torch
from safetensors import safe_open

from experiments.reporting.receipts import write_receipt
from experiments.size import unrelated_pairs
from experiments.size.planted_pair import BILLION, NOISE, SMALL, tensors, write
from experiments.size.table import write_table

COPY = "import shutil, sys; shutil.copytree(*sys.argv[1:])"
RESULTS = Path(__file__).parents[1] / "results" / "size"


def main() -> None:
    """Measure a size, and gather all that were measured in one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=["billion", "small", *unrelated_pairs.NETWORKS], default="billion")
    parser.add_argument("--folder", type=Path, help="where the checkpoints are written for a while")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--show", action="store_true", help="measure nothing; make the table anew")
    chosen = parser.parse_args()
    if not chosen.show:
        measure_size(chosen)
    write_table(chosen.out)


def measure_size(chosen: argparse.Namespace) -> None:
    """Write the pair of one size, run the verbs, and write what they took."""
    planted = chosen.size not in unrelated_pairs.NETWORKS
    sizes = (BILLION if chosen.size == "billion" else SMALL) if planted else {}
    with tempfile.TemporaryDirectory(dir=chosen.folder) as made:
        metrics = measure(Path(made), sizes) if planted else merged(Path(made), chosen.size)
    write_receipt(
        chosen.out / chosen.size,
        experiment="size",
        config={
            "size": chosen.size,
            "noise": NOISE if planted else None,
            "threads": torch.get_num_threads(),
            **sizes,
        },
        metrics=metrics,
        seeds=[0],
    )


def measure(folder: Path, sizes: dict[str, int]) -> dict[str, float]:
    """Return seconds, processor seconds and peak gigabytes of each verb, and the share of tensors that went home."""
    first, second, file = folder / "first", folder / "second", folder / "second_to_first.safetensors"
    for place, planted in ((first, False), (second, True)):
        apart(write, place, sizes, planted)
    command = [sys.executable, "-m", "sinkhorn_rebasin"]
    runs = {
        "align": [*command, "align", first, second, "--out", file],
        "apply": [*command, "apply", file, second, "--out", folder / "applied"],
        "merge": [*command, "merge", first, second, "--alignment", file, "--out", folder / "merged"],
        "copy": [sys.executable, "-c", COPY, second, folder / "copied"],
    }
    metrics: dict[str, float] = {}
    for name, arguments in runs.items():
        metrics |= {
            f"{name} {what}": value for what, value in timed([str(each) for each in arguments]).items()
        }
        sys.stderr.write(f"{name}: {metrics}\n")
    metrics["share of tensors recovered bit by bit"] = recovered(folder / "applied", sizes)
    return metrics


def merged(folder: Path, name: str) -> dict[str, float]:
    """Return what one command from two folders to a merged one takes, and copying one of them."""
    first, second = folder / "first", folder / "second"
    for seed, place in enumerate((first, second)):
        apart(unrelated_pairs.write, place, name, seed)
    command = [sys.executable, "-m", "sinkhorn_rebasin", "merge", first, second, "--out", folder / "merged"]
    copy = [sys.executable, "-c", COPY, second, folder / "copied"]
    runs = {"merge": timed([str(each) for each in command]), "copy": timed([str(each) for each in copy])}
    return {f"{run} {what}": value for run, took in runs.items() for what, value in took.items()}


def apart(work: Callable[..., None], *arguments: object) -> None:
    """Work in another process: what this one once held would count as the peak of those it starts."""
    worker = get_context("spawn").Process(target=work, args=arguments)
    worker.start()
    worker.join()
    if worker.exitcode:
        raise ChildProcessError(f"Expected {work.__name__} to end well but got exit code {worker.exitcode}.")


def timed(arguments: list[str]) -> dict[str, float]:
    """Run a process and return what it took."""
    begin = time.monotonic()
    process = subprocess.Popen(arguments)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, arguments)
    return {
        "seconds": time.monotonic() - begin,
        "processor seconds": usage.ru_utime + usage.ru_stime,
        "peak GB": usage.ru_maxrss * 1024 / 1e9,
    }


def recovered(folder: Path, sizes: dict[str, int]) -> float:
    """Return the share of tensors that are what they were before the permutations were planted."""
    right = total = 0
    for number, shard in tensors(sizes, NOISE):
        with safe_open(folder / f"model-{number:05d}.safetensors", framework="pt") as opened:
            right += sum(torch.equal(opened.get_tensor(name), tensor) for name, tensor in shard.items())
        total += len(shard)
    return right / total


if __name__ == "__main__":
    main()
