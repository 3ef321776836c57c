"""One network of a package in a process of its own: measured here, and its row written to a file.

python -m experiments.zoo.packages_worker NAME FILE
"""

from __future__ import annotations

import json
import sys
import warnings
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from experiments.zoo.entry import Entry
from experiments.zoo.measurement import measure
from experiments.zoo.packages_models import NETWORKS
from experiments.zoo.packages_models.network import Network
from experiments.zoo.torchvision_models import import_models
from sinkhorn_rebasin.errors import RebasinWarning

EXAMPLE, FRESH = 3, 5


def row_of(network: Network) -> dict[str, Any]:
    """Measure a network, or tell why its package cannot be imported."""
    row: dict[str, Any] = {"network": network.name}
    try:
        row["version"] = metadata.version(network.distribution)
        network.make()
    except (ImportError, OSError) as error:
        return row | {"skipped": f"{type(error).__name__}: {error}"[:300]}
    entry = Entry(
        network.name,
        partial(_made, network),
        partial(network.inputs, EXAMPLE),
        fresh=partial(network.inputs, FRESH),
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        row |= measure(entry)
    told = [str(item.message)[:300] for item in caught if issubclass(item.category, RebasinWarning)]
    return row | ({"warnings": list(dict.fromkeys(told))} if told else {})


def _made(network: Network) -> nn.Module:
    """Build a network with statistics of its own, and with the branches switched on that a gain of zero ends.

    Statistics that are all equal would hide what moves them.
    """
    model = network.make()
    for parameter in model.parameters():
        if parameter.numel() == 1 and not parameter.any():
            nn.init.ones_(parameter)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_()
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return model.requires_grad_(True)


def main(name: str, file: str) -> None:
    """Measure one network and write its row."""
    torch.set_num_threads(1)
    import_models()  # torchvision's operators, for the packages that import it
    row = row_of(NETWORKS[name])
    Path(file).write_text(json.dumps(row), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
