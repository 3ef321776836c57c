"""Networks that make float32 inside, or that float64 breaks, are verified and rescaled all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sinkhorn_rebasin.errors import ArchitectureError, SymmetryError
from sinkhorn_rebasin.networks.double_precision import DoublePrecision
from sinkhorn_rebasin.networks.grouped_products import grouped_product
from sinkhorn_rebasin.permutations import RescalingSpec, rescale_state
from sinkhorn_rebasin.symmetry import discover_rescaling, discover_symmetry, verify_symmetry
from tests.rebasin.rescaled_networks import factors
from tests.symmetry.witness import difference
from tests.zoo.case import Function

ENDS = torch.tensor([2, 2, 5], dtype=torch.int32)


def by_hand(first: Tensor, second: Tensor) -> Tensor:
    """Each expert's product on its own."""
    starts = [0, *ENDS.tolist()[:-1]]
    spans = [slice(a, b) for a, b in zip(starts, ENDS.tolist(), strict=True)]
    if first.dim() == 3:
        return torch.cat([first[k] @ second[:, span] for k, span in enumerate(spans)], 1)
    if second.dim() == 3:
        return torch.cat([first[span] @ second[k] for k, span in enumerate(spans)])
    return torch.stack([first[:, span] @ second[span] for span in spans])


def test_every_float_that_an_operation_returns_is_wide() -> None:
    narrow, wide = torch.randn(6, 4), torch.randn(6, 4, dtype=torch.float64)
    with DoublePrecision():
        several = [*torch.var_mean(narrow, dim=0), *narrow.topk(2), *torch._foreach_add([narrow, wide], 1.0)]
        joined = torch.cat([narrow, narrow])
        summed = wide.sum(0, dtype=torch.float32)
        untouched = narrow.sum(0, dtype=torch.float16)
    assert {tensor.dtype for tensor in several} == {torch.float64, torch.int64}
    assert joined.dtype == summed.dtype == untouched.dtype == torch.float64
    assert torch.equal(summed, wide.sum(0))
    assert torch.equal(untouched, narrow.sum(0, dtype=torch.float16).double())


@pytest.mark.parametrize(
    ("first", "second"),
    [((5, 4), (3, 4, 6)), ((3, 6, 4), (4, 5)), ((4, 5), (5, 6))],
    ids=["rows", "columns", "terms"],
)
def test_grouped_products_are_those_of_each_expert(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    one, other = (torch.randn(shape, dtype=torch.float64) for shape in (first, second))
    assert torch.allclose(grouped_product(one, other, ENDS), by_hand(one, other), atol=1e-14)
    with DoublePrecision():
        assert torch.equal(torch._grouped_mm(one, other, ENDS), grouped_product(one, other, ENDS))


def test_grouped_products_of_as_many_matrices_are_those_of_a_batch() -> None:
    one, other = torch.randn(3, 2, 4), torch.randn(3, 4, 5)
    assert torch.equal(grouped_product(one, other), one @ other)


@pytest.mark.parametrize("layout", ["rows", "terms"])
def test_gradients_of_grouped_products_are_right(layout: str) -> None:
    torch.manual_seed(0)
    shapes = {"rows": ((5, 4), (3, 4, 6)), "terms": ((4, 5), (5, 6))}[layout]
    pair = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    with DoublePrecision():
        found = torch.autograd.grad(torch._grouped_mm(*pair, ENDS).square().sum(), pair)
    expected = torch.autograd.grad(by_hand(*pair).square().sum(), pair)
    assert all(torch.allclose(one, other, atol=1e-12) for one, other in zip(found, expected, strict=True))


class Experts(nn.Module):
    """A layer of experts as transformers write it, in half precision."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Parameter(torch.randn(2, 8, 16)), nn.Parameter(torch.randn(2, 16, 8))

    def forward(self, x: Tensor) -> Tensor:
        chosen = (x[:, 0] > 0).long()
        order = chosen.argsort()
        ends = torch.bincount(chosen, minlength=2).cumsum(0).int()
        h = F.grouped_mm(x[order].bfloat16(), self.up.bfloat16(), offs=ends).relu()
        h = F.grouped_mm(h, self.down.bfloat16(), offs=ends).to(x)
        return h[order.argsort()]


def test_rescalings_of_experts_in_grouped_products_are_found() -> None:
    torch.manual_seed(0)
    model, x = Experts(), torch.randn(10, 8)
    spec = discover_symmetry(model, x)
    rescaling = discover_rescaling(model, spec, x)
    assert sorted(sorted(e for _, e in one.exponents) for one in rescaling.generators) == [[-1, 1], [-1, 1]]


def filled(net: Any, x: Tensor) -> Tensor:
    z = torch.zeros(len(x), 8)
    z[:, :8] = net.a(x)
    return net.b((z + net.c(x)).relu())


def spectrum(net: Any, x: Tensor) -> Tensor:
    z = torch.zeros(len(x), 8, dtype=torch.cfloat)
    z[:] = net.a(x)
    return net.b(z.real.relu() * net.c(x).relu())


def literal(net: Any, x: Tensor) -> Tensor:
    return net.b((net.a(x) + net.c(x)).relu() @ torch.tensor([[2.0]]).expand(8, 8))


def mask(net: Any, x: Tensor) -> Tensor:
    return net.b((net.a(x) + net.c(x)).relu() * (x[:, :1] > 0).float() @ torch.ones(8, 8))


def recomputed(net: Any, x: Tensor) -> Tensor:
    return net.b(checkpoint(lambda y: filled_hidden(net, y), x, use_reentrant=False))


def filled_hidden(net: Any, x: Tensor) -> Tensor:
    z = torch.zeros(len(x), 8)
    z[:] = net.a(x)
    return (z.float() + net.c(x)).relu()


def strict(net: Any, x: Tensor) -> Tensor:
    h = (net.a(x) + net.c(x)).relu()
    if h.dtype != torch.float32:
        raise TypeError("float32 only")
    return net.b(h)


def not_in_double(net: Any, x: Tensor) -> Tensor:
    h = (net.a(x) + net.c(x)).relu()
    return net.b(h * (1.0 if h.dtype == torch.float32 else float("nan")))


def network(run: Callable[..., Tensor]) -> nn.Module:
    return Function(run, a=nn.Linear(3, 8), b=nn.Linear(8, 2), c=nn.Linear(3, 8))


TOGETHER = [{"a.weight": 1, "a.bias": 1, "c.weight": 1, "c.bias": 1, "b.weight": -1}]
APART = [
    {"a.weight": 1, "a.bias": 1, "b.weight": -1},
    {"a.weight": 1, "a.bias": 1, "c.weight": -1, "c.bias": -1},
]
NETWORKS: dict[str, tuple[Callable[..., Tensor], list[dict[str, int]]]] = {
    "filled": (filled, TOGETHER),
    "spectrum": (spectrum, APART),
    "literal": (literal, []),
    "mask": (mask, []),
    "recomputed": (recomputed, TOGETHER),
    "strict": (strict, TOGETHER),
    "not in double": (not_in_double, TOGETHER),
}


def exponents(rescaling: RescalingSpec) -> list[dict[str, int]]:
    return [{s.tensor: e for s, e in one.exponents} for one in rescaling.generators if one.kind == "positive"]


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_that_make_narrow_floats_are_verified_and_rescaled(name: str) -> None:
    torch.manual_seed(0)
    run, expected = NETWORKS[name]
    model, x = network(run), torch.randn(4, 3)
    spec = discover_symmetry(model, x)
    assert {group.size for group in spec.groups} == {8}
    narrow = name in ("strict", "not in double")
    assert verify_symmetry(model, spec, x) < (1e-5 if narrow else 1e-12)
    rescaling = discover_rescaling(model, spec, x)
    found = exponents(rescaling)
    if expected:
        assert len(found) == len(expected)
    if expected == TOGETHER:
        assert found == TOGETHER
    moved = rescale_state(model.state_dict(), spec, rescaling, *factors(spec, rescaling, 0))
    moved = {key: tensor.float() for key, tensor in moved.items()}
    assert difference(model, moved, torch.randn(6, 3)) < 1e-4


def test_a_wrong_claim_about_a_network_in_float32_is_refused() -> None:
    torch.manual_seed(0)

    def run(net: Any, x: Tensor) -> Tensor:
        h = net.a(x).relu()
        if h.dtype != torch.float32:
            raise TypeError("float32 only")
        return net.b(h * torch.linspace(1, 1.1, 8))

    model, x = network(run), torch.randn(4, 3)
    wrong = discover_symmetry(network(lambda net, x: net.b(net.a(x).relu())), x)
    with pytest.raises(SymmetryError, match="unchanged"):
        verify_symmetry(model, wrong, x)
    smooth = network(lambda net, x: net.b(F.softplus(net.a(x).float()) if x.dtype == torch.float32 else None))
    assert exponents(discover_rescaling(smooth, wrong, x)) == []


class Masked(nn.Module):
    """Attention whose mask is a float times the least number of the scores' type."""

    def __init__(self) -> None:
        super().__init__()
        self.i, self.qkv, self.o = nn.Linear(3, 8), nn.Linear(8, 24), nn.Linear(8, 2)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        queries, keys, values = self.qkv(torch.relu(self.i(x))).chunk(3, -1)
        scores = queries @ keys.mT
        scores = scores + (1.0 - mask[:, None].float()) * torch.finfo(scores.dtype).min
        return self.o(scores.softmax(-1) @ values)


def test_a_mask_that_overflows_in_double_precision_is_no_obstacle() -> None:
    torch.manual_seed(0)
    model, inputs = Masked(), (torch.randn(2, 5, 3), torch.tensor([[1, 1, 1, 1, 0]] * 2))
    spec = discover_symmetry(model, inputs)
    assert [group.size for group in spec.groups] == [8, 8, 8]
    assert verify_symmetry(model, spec, inputs) < 1e-12


def test_a_network_that_returns_nan_in_every_type_is_refused() -> None:
    model, x = network(lambda net, x: net.b(net.a(x) * float("nan"))), torch.randn(4, 3)
    spec = discover_symmetry(network(lambda net, x: net.b(net.a(x))), x)
    with pytest.raises(SymmetryError, match="returns NaN"):
        verify_symmetry(model, spec, x)
    with pytest.raises(ArchitectureError, match="NaN"):
        discover_rescaling(model, spec, x)


def test_a_backward_pass_casts_to_the_types_that_autograd_expects() -> None:
    weight = torch.ones(2, dtype=torch.float64, requires_grad=True)
    memory = torch.zeros(2)
    with DoublePrecision():
        memory[:] = weight
        total = (memory + weight.float()).sum()
        assert torch.autograd.grad(total, weight)[0].tolist() == [2.0, 2.0]
