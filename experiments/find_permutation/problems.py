"""Networks to permute at random, and how the scores that find the permutation again are trained."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from experiments.models import Architecture
from sinkhorn_rebasin import discover_symmetry, permute_state, random_permutations
from sinkhorn_rebasin.permutations import PermutationSpec, inverse


@dataclass(frozen=True)
class Problem:
    """A network to permute, and how the scores are trained: wider groups want longer steps.

    A step has to lift the right score above those of all n - 1 wrong ones through exp(X/τ), so the learning
    rate grows with the width. Momentum would carry on what deep layers learned while their neighbours were
    still unknown, so there is none. Groups within groups take short steps: a head has to be found together with
    the order inside it. The published implementation gets the best of the learning rates 0.1, 1, 10 and 100 tried
    on it, and on the large networks fewer seeds; networks it does not take have none.
    """

    architecture: Architecture
    learning_rate: float
    iterations: int
    published_learning_rate: float = 0.0
    published_seeds: int = 0


def _tanh(depth: int) -> Problem:
    arguments = {"inputs": 10, "widths": [10] * depth, "activation": "tanh"}
    return Problem(Architecture("mlp", (2, 10), arguments), 1.0, 100, 0.1, 10)


PROBLEMS = {
    "tanh MLP 2x10": _tanh(2),
    "tanh MLP 4x10": _tanh(4),
    "tanh MLP 8x10": _tanh(8),
    "tanh MLP 16x10": _tanh(16),
    "MLP 784-512x3-10": Problem(
        Architecture("mlp", (2, 784), {"inputs": 784, "widths": [512] * 3}), 100.0, 40, 10.0, 3
    ),
    "VGG11-BN": Problem(
        Architecture("vgg", (2, 3, 32, 32), {"depth": 11, "batch_norm": True, "head": [512, 512]}),
        100.0,
        40,
        100.0,
        3,
    ),
    "ResNet18": Problem(Architecture("resnet18", (2, 3, 32, 32)), 100.0, 40, 100.0, 3),
}
SMALL = [name for name in PROBLEMS if name.startswith("tanh")]
FLAT = list(PROBLEMS)
"""Networks without groups inside groups."""

PROBLEMS |= {
    "GPT 2x64, 4 heads": Problem(
        Architecture("gpt", (2, 32), {"vocabulary": 64, "context": 32, "width": 64, "depth": 2, "heads": 4}),
        1.0,
        60,
    ),
    "ViT 2x64, 4 heads": Problem(
        Architecture("vit", (2, 3, 32, 32), {"patch": 8, "width": 64, "depth": 2, "heads": 4}), 1.0, 60
    ),
    "LSTM 2x64": Problem(Architecture("lstm", (2, 8), {"vocabulary": 64}), 1.0, 60),
    "ResNeXt 4 groups": Problem(
        Architecture("resnext", (2, 3, 32, 32), {"groups": 4, "width": 8, "depths": [1, 1]}), 0.5, 60
    ),
}
NESTED = [name for name in PROBLEMS if name not in FLAT]


def plant(problem: Problem, seed: int) -> tuple[nn.Module, nn.Module, PermutationSpec, dict[str, Tensor]]:
    """A network, its permuted twin, the symmetries, and the permutations that undo the planted ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reference, target = problem.architecture.build().eval(), problem.architecture.build().eval()
        spec = discover_symmetry(reference, problem.architecture.example())
        planted = random_permutations(spec)
    target.load_state_dict(permute_state(reference.state_dict(), spec, planted))
    return reference, target, spec, inverse(spec, planted)
