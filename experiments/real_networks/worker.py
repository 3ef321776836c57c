"""One network in a process of its own: measured here, and its row written to a file.

python -m experiments.real_networks.worker NAME FILE
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from experiments.real_networks.measurement import figures_of
from experiments.real_networks.networks import NETWORKS


def main(name: str, file: str) -> None:
    """Measure one network and write its row."""
    torch.set_num_threads(1)
    Path(file).write_text(json.dumps(figures_of(NETWORKS[name])), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
