"""Signs of recurrent units are those a human writes down, and none is claimed where a state is given."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin.permutations import RescalingSpec, rescale_state
from sinkhorn_rebasin.symmetry import discover_rescaling, discover_symmetry
from sinkhorn_rebasin.symmetry.rescaling.integer_kernel import kernel_modulo_two
from sinkhorn_rebasin.symmetry.rescaling.sign_equations import SignEquations
from tests.rebasin.rescaled_networks import factors
from tests.recurrent_networks import INPUTS, RECURRENT, STEPS, WIDTH, recurrent, symmetries_of
from tests.symmetry.witness import difference


def signs_of(rescaling: RescalingSpec) -> frozenset[frozenset[tuple[str, int, int]]]:
    return frozenset(
        frozenset((slot.tensor, slot.axes[0], slot.layout.offset) for slot, _ in one.exponents)
        for one in rescaling.generators
        if one.kind == "sign"
    )


@pytest.mark.parametrize("name", RECURRENT)
def test_signs_of_recurrent_units_are_those_a_human_writes(name: str) -> None:
    (net, _), (spec, rescaling) = recurrent(name), symmetries_of(name)
    assert signs_of(rescaling) == RECURRENT[name].expected
    net = net.double()
    for seed in range(3):
        logs, signs = factors(spec, rescaling, seed)
        moved = rescale_state(net.state_dict(), spec, rescaling, logs, signs)
        assert difference(net, moved, torch.randn(5, STEPS + 3, INPUTS).double()) < 1e-12


class Given(nn.Module):
    """A recurrent layer that starts where its caller, or a buffer, says."""

    def __init__(self, cell: type[nn.Module], buffers: int = 0) -> None:
        super().__init__()
        self.r, self.head = cell(INPUTS, WIDTH, batch_first=True), nn.Linear(WIDTH, 2)
        for name in ("h0", "c0")[:buffers]:
            self.register_buffer(name, torch.zeros(WIDTH))
        self.names_of_states = ("h0", "c0")[:buffers]

    def forward(self, x: Tensor, *states: Tensor) -> Tensor:
        given = states or [getattr(self, n).expand(1, len(x), -1) for n in self.names_of_states]
        start = tuple(state.contiguous() for state in given)
        return self.head(self.r(x, start if len(start) > 1 else start[0])[0])


@pytest.mark.parametrize(("cell", "states"), [(nn.LSTM, 2), (nn.GRU, 1), (nn.RNN, 1)])
@pytest.mark.parametrize("values", [torch.zeros, torch.randn])
def test_a_state_that_is_an_input_has_a_sign_already(cell: type[nn.Module], states: int, values) -> None:
    inputs = (torch.randn(4, STEPS, INPUTS), *(values(1, 4, WIDTH) for _ in range(states)))
    net = Given(cell)
    spec = discover_symmetry(net, inputs)
    assert not discover_rescaling(net, spec, inputs).generators


@pytest.mark.parametrize(("cell", "states"), [(nn.LSTM, 2), (nn.GRU, 1)])
def test_a_state_in_a_buffer_is_not_negated(cell: type[nn.Module], states: int) -> None:
    net, inputs = Given(cell, states), torch.randn(4, STEPS, INPUTS)
    spec = discover_symmetry(net, inputs)
    assert spec.groups
    assert not discover_rescaling(net, spec, inputs).generators


class Odd(nn.Module):
    """One thing changed in a cell, so that no unit of it has a free sign."""

    def __init__(self, change: str) -> None:
        super().__init__()
        self.w, self.u, self.out = (
            nn.Linear(INPUTS, 4 * WIDTH),
            nn.Linear(WIDTH, 4 * WIDTH),
            nn.Linear(WIDTH, 2),
        )
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(len(x), WIDTH)
        if self.change == "starts at one":
            c = c + 1.0
        for step in x.unbind(1):
            i, f, g, o = (self.w(step) + self.u(h)).chunk(4, -1)
            candidate = g.sigmoid() if self.change == "sigmoid" else g.tanh()
            c = f.sigmoid() * c + i.sigmoid() * candidate
            h = o.sigmoid() * (c.relu() if self.change == "relu" else c.tanh())
            if self.change == "gate of itself":
                h = h * h.sigmoid()
        return self.out(h)


@pytest.mark.parametrize("change", ["starts at one", "sigmoid", "relu", "gate of itself"])
def test_a_cell_that_is_not_odd_has_no_signs(change: str) -> None:
    net, inputs = Odd(change), torch.randn(4, STEPS, INPUTS)
    rescaling = discover_rescaling(net, discover_symmetry(net, inputs), inputs)
    assert not signs_of(rescaling)


def test_the_cell_without_a_change_has_signs() -> None:
    """The witness of the test above."""
    inputs = torch.randn(4, STEPS, INPUTS)
    assert signs_of(discover_rescaling(Odd(""), discover_symmetry(Odd(""), inputs), inputs))


@pytest.mark.parametrize("seed", range(20))
def test_equations_of_random_polynomials_give_all_their_flips(seed: int) -> None:
    generator = np.random.default_rng(seed)
    terms = generator.integers(0, 3, (7, 12)) * (generator.random((7, 12)) < 0.25)
    weights = torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))

    def polynomial(factors: Tensor) -> list[Tensor]:
        return [torch.stack([(factors ** torch.from_numpy(row)).prod() for row in terms]) @ weights]

    solved = SignEquations(polynomial, 12, 1e-9, torch.Generator().manual_seed(0)).solved()
    right = kernel_modulo_two(terms)
    assert solved is not None
    assert len(solved) == len(right)
    assert not (terms @ np.array(solved).reshape(-1, 12).T % 2).any()
