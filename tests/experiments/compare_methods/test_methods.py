"""The one list of methods: which can run here, and which are whose."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.compare_methods.figures import OUR_DASHES
from experiments.compare_methods.methods import METHODS, PUBLISHED, names_of, runnable
from experiments.compare_methods.pair import Pair
from experiments.compare_methods.setting import load_setting
from experiments.data import load_digits
from experiments.models import Architecture
from experiments.published import PublishedError


def test_the_published_method_needs_its_environment() -> None:
    assert runnable(Path("python")) == list(METHODS)
    assert [name for name in METHODS if name not in runnable(None)] == [PUBLISHED]
    architecture = Architecture("mlp", (1, 64), {"inputs": 64, "widths": [16]})
    pair = Pair(architecture, architecture.build(), architecture.build(), load_digits(), 0)
    with pytest.raises(PublishedError, match="--published-python"):
        METHODS[PUBLISHED].align(pair, load_setting("digits_mlp_32"))


def test_every_method_is_a_peer_or_a_loss_or_ours() -> None:
    assert names_of("ours") == [
        "ours, for REPAIR",
        "ours, permutations alone",
        "ours",
        "ours, every symmetry, by weights",
        "ours, every symmetry, by activations",
        "ours, every symmetry, drawn images",
        "ours, every symmetry",
    ]
    assert len(set(OUR_DASHES)) == len(names_of("ours"))
    assert PUBLISHED in names_of("peer")
    assert all(name.startswith("Sinkhorn") for name in names_of("loss"))
    assert len(METHODS) == sum(len(names_of(kind)) for kind in ("peer", "loss", "ours")) == 24
