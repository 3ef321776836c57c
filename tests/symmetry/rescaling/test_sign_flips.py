"""Sets of slots that may be negated together, against all sets tried one by one."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin import discover_symmetry
from sinkhorn_rebasin.symmetry.rescaling import sign_flips
from sinkhorn_rebasin.symmetry.rescaling.sign_flips import sign_candidates
from tests.rebasin.rebasin_problems import TwoInputs


def perceptron(activation: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), activation, nn.Linear(5, 3))


def span(basis: list[np.ndarray], length: int) -> set[tuple[int, ...]]:
    """All sums modulo two."""
    sums = {(0,) * length}
    for flips in basis:
        sums |= {tuple((np.array(known) + flips) % 2) for known in sums}
    return sums


CASES = {
    "tanh": lambda: (perceptron(nn.Tanh()), (torch.randn(6, 4).double(),), "0"),
    "GELU": lambda: (perceptron(nn.GELU()), (torch.randn(6, 4).double(),), "0"),
    "linear": lambda: (perceptron(nn.Identity()), (torch.randn(6, 4).double(),), "0"),
    "two inputs": lambda: (TwoInputs(), (torch.randn(6, 3).double(), torch.randn(6, 2).double()), "left"),
}


@pytest.mark.parametrize("most", [8, 2], ids=["compared", "solved"])
@pytest.mark.parametrize("name", CASES)
def test_flips_are_those_that_change_nothing(name: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sign_flips, "MOST_SLOTS", most)
    torch.manual_seed(0)
    network, inputs, group = CASES[name]()
    network = network.double()
    spec = discover_symmetry(network, inputs)
    slots, state = spec.slots_of(group), {key: tensor.detach() for key, tensor in network.named_parameters()}

    def outputs(weights: dict[str, Tensor]) -> list[Tensor]:
        with torch.no_grad():
            return [torch.func.functional_call(network, dict(weights), inputs)]

    drawn = torch.Generator().manual_seed(1)
    found = sign_candidates(spec, group, slots, (), state, outputs, 1e-9, drawn)
    expected = {(0,) * len(slots)}
    for count in range(1, len(slots) + 1):
        for chosen in combinations(range(len(slots)), count):
            flipped = dict(state)
            for number in chosen:
                tensor = flipped[slots[number].tensor].clone()
                tensor.select(slots[number].axes[0], 2).neg_()
                flipped[slots[number].tensor] = tensor
            if torch.allclose(outputs(flipped)[0], outputs(state)[0], rtol=1e-9, atol=1e-12):
                expected.add(tuple(int(number in chosen) for number in range(len(slots))))
    assert span(found, len(slots)) == expected
    assert len(expected) == (1 if name == "GELU" else 2)


def test_the_smallest_independent_sets_are_kept() -> None:
    vectors = [np.array(bits) for bits in ([1, 1, 0, 1], [1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 1])]
    kept = [flips.tolist() for flips in sign_flips._basis(vectors)]
    assert kept == [[0, 0, 0, 1], [1, 1, 0, 0], [0, 0, 1, 1]]
