"""A constant that is much larger than what varies hides no change from any check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin import SinkhornRebasin, discover_rescaling, discover_symmetry, verify_symmetry
from sinkhorn_rebasin.errors import ArchitectureError, SymmetryError
from sinkhorn_rebasin.networks.nested_tensors import largest_change
from sinkhorn_rebasin.permutations import RescalingSpec, ScaleSymmetry


class Shifted(nn.Module):
    """A small network, and a constant on top."""

    def __init__(
        self, shift: Callable[[Tensor, Tensor], Tensor], activation: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), activation or nn.Tanh(), nn.Linear(8, 1))
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        return self.shift(self.net(x), x)


class InSingle(Shifted):
    """It computes in float32 whatever it is given."""

    def forward(self, x: Tensor) -> Tensor:
        return self.shift(self.net(x.float()).double(), x)


class SingleOnly(Shifted):
    """It has no kernel for float64 at all."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float64:
            raise RuntimeError("no such kernel")
        return super().forward(x)


SHIFTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "none": lambda y, x: y,
    "1e6": lambda y, x: y + 1e6,
    "of each sample": lambda y, x: y + 1e6 * (x[:, :1] > 0),
    "beside it": lambda y, x: torch.cat([y, 1e6 + 0 * y], 1),
    "1e9": lambda y, x: y + 1e9,
}


def without_bias(model: nn.Module, x: Tensor) -> tuple[nn.Module, Tensor]:
    spec = discover_symmetry(model, x)
    assert [group.size for group in spec.groups] == [8]
    assert verify_symmetry(model, spec, x) < 1e-3
    with pytest.raises(SymmetryError, match="'net/0'"):
        verify_symmetry(
            model, replace(spec, slots=tuple(s for s in spec.slots if s.tensor != "net.0.bias")), x
        )
    return model, x


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("samples", [1, 16])
def test_a_slot_that_is_missing_is_noticed(shift: str, samples: int) -> None:
    torch.manual_seed(0)
    without_bias(Shifted(SHIFTS[shift]), torch.randn(samples, 3))


@pytest.mark.parametrize("kind", [InSingle, SingleOnly])
@pytest.mark.parametrize("shift", [1e3, 1e5])
def test_it_is_noticed_in_single_precision(kind: type[Shifted], shift: float) -> None:
    torch.manual_seed(0)
    without_bias(kind(lambda y, x: y + shift), torch.randn(16, 3))


def test_a_rescaling_that_is_none_is_noticed() -> None:
    torch.manual_seed(0)
    x = torch.randn(16, 3)
    for shift in (0.0, 1e6):
        smooth, steep = (Shifted(lambda y, _, by=shift: y + by, kind) for kind in (nn.GELU(), nn.ReLU()))
        spec = discover_symmetry(smooth, x)
        assert discover_rescaling(smooth, spec, x) == RescalingSpec(("net/0",), ())
        (found,) = discover_rescaling(steep, spec, x).generators
        wrong = RescalingSpec(("net/0",), (ScaleSymmetry("net/0", "positive", found.exponents[:2]),))
        with pytest.raises(SymmetryError, match="rescalings"):
            SinkhornRebasin(steep, steep, x, spec=spec, rescale=wrong)


def test_networks_that_differ_in_an_activation_are_told_apart() -> None:
    torch.manual_seed(0)
    one, other = (Shifted(SHIFTS["1e6"], kind).double() for kind in (nn.Tanh(), nn.Softsign()))
    with pytest.raises(ArchitectureError, match="another"):
        SinkhornRebasin(one, other, torch.randn(16, 3).double())


def test_rounding_is_no_change_however_little_an_output_varies() -> None:
    output = torch.tensor([[1.0], [1.0 + 1e-9]], dtype=torch.float64)
    last_place = torch.finfo(torch.float64).eps
    assert largest_change(output, output + 8 * last_place, []) < 1e-14
    assert largest_change(output, output + 1e-12, []) > 1e-4
