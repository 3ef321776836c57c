"""What a row says of an outcome, against the same figures made by hand."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from experiments.compare_methods.evaluation import agreement, evaluate
from experiments.compare_methods.pair import Outcome, Pair
from experiments.compare_methods.setting import Evaluation
from experiments.data import load_digits
from experiments.models import Architecture, build_model
from experiments.models.training import train_endpoint
from sinkhorn_rebasin import repair

ARGUMENTS = {"inputs": 64, "widths": [16]}


@pytest.fixture(scope="module")
def pair() -> Pair:
    data = load_digits()
    networks = [
        train_endpoint(lambda: build_model("mlp", **ARGUMENTS), data, seed=seed, epochs=5) for seed in (0, 1)
    ]
    return Pair(Architecture("mlp", (1, 1, 8, 8), ARGUMENTS), networks[0], networks[1], data, 0)


def test_the_row_is_what_a_loop_over_the_path_finds(pair: Pair) -> None:
    images, labels = pair.data.test_images[:100], pair.data.test_labels[:100]
    outcome = Outcome(pair.target.state_dict(), 0.0)
    row = evaluate(pair, outcome, Evaluation(points=3, test_images=100, train_images=50, repair_images=60))
    losses, merged = [], build_model("mlp", **ARGUMENTS)
    first, second = pair.target.state_dict(), pair.reference.state_dict()
    for position in (0.0, 0.5, 1.0):
        merged.load_state_dict({name: first[name].lerp(second[name], position) for name in first})
        with torch.no_grad():
            losses.append(float(F.cross_entropy(merged(images), labels)))
    assert row["test_barrier"] == pytest.approx(max(0.0, losses[1] - (losses[0] + losses[2]) / 2), rel=1e-5)
    merged.load_state_dict({name: first[name].lerp(second[name], 0.5) for name in first})
    repaired = repair(merged, pair.reference, pair.target, pair.spec, [pair.data.train_images[:60]])
    with torch.no_grad():
        found = float(F.cross_entropy(repaired(images), labels))
    assert row["repaired_path"]["midpoint_loss"] == pytest.approx(found, rel=1e-4)
    assert row["relative_change"] == 0.0


def test_agreement_is_the_share_of_equal_entries() -> None:
    first = {"a": torch.tensor([0, 1, 2, 3]), "b": torch.tensor([[1, 0], [0, 1]])}
    second = {"a": torch.tensor([0, 2, 1, 3]), "b": torch.tensor([[1, 0], [0, 1]])}
    assert agreement(first, second) == {"a": 0.5, "b": 1.0}
