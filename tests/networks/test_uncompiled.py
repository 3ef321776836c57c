"""Networks that call the compiler run without it, and the compiler remembers nothing of it."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch._higher_order_ops import associative_scan, scan, while_loop
from torch._higher_order_ops.map import map as map_rows
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from sinkhorn_rebasin.networks.uncompiled import uncompiled
from sinkhorn_rebasin.permutations import permute_state, random_permutations
from sinkhorn_rebasin.symmetry import discover_rescaling, discover_symmetry, verify_symmetry
from tests.symmetry.witness import difference
from tests.zoo.case import Function

pytestmark = pytest.mark.filterwarnings(
    "ignore:flex_attention called without",
    "ignore:return_lse is deprecated",
    "ignore:The .grad attribute of a Tensor that is not a leaf",
    "ignore::DeprecationWarning",
)


class Flex(nn.Module):
    """Four heads of four units each, on eight places."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.inner, self.out, self.options = nn.Linear(5, 48), nn.Linear(16, 3), options
        self.bias = nn.Parameter(torch.randn(4, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = self.inner(x).unflatten(-1, (3, 4, 4)).permute(2, 0, 3, 1, 4)
        options = dict(self.options)
        if "score" in options:
            score = options.pop("score")
            options["score_mod"] = lambda *places: score(self, *places)
        found = flex_attention(queries, keys, values, **options)
        if isinstance(found, tuple):
            found = found[0] * found[1].sigmoid()[..., None]
        return self.out(found.transpose(1, 2).flatten(2))


def causal(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
    return query >= key


FLEX: dict[str, Callable[[], dict[str, Any]]] = {
    "plain": dict,
    "biased": lambda: {"score": lambda net, score, b, h, q, k: score + net.bias[h, q, k]},
    "masked": lambda: {"block_mask": create_block_mask(causal, None, None, 8, 8, device="cpu")},
    "with sums": lambda: {"return_lse": True},
}


@pytest.mark.parametrize(
    ("name", "ran_before"),
    [("plain", True), ("plain", False), ("biased", False), ("masked", False), ("with sums", False)],
)
def test_heads_of_flex_attention_are_found_and_it_runs_afterwards(name: str, ran_before: bool) -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()
    model, x = Flex(**FLEX[name]()).double().requires_grad_(False), torch.randn(2, 8, 5).double()
    before = model(x) if ran_before else None
    spec = discover_symmetry(model, x)
    assert Counter((g.size, g.blocks) for g in spec.groups) == Counter({(4, 1): 1, (4, 4): 2})
    assert ("bias" in {slot.tensor for slot in spec.slots}) == (name == "biased")
    moved = permute_state(model.state_dict(), spec, random_permutations(spec))
    assert difference(model, moved, torch.randn(3, 8, 5).double()) < 1e-12
    assert before is None or torch.equal(model(x), before)


def branch(net: Any, x: Tensor) -> Tensor:
    return net.b(torch.cond(x.sum() > 0, lambda y: y.relu(), lambda y: y.tanh(), (net.a(x),)))


def loop(net: Any, x: Tensor) -> Tensor:
    start = (torch.tensor(0), net.a(x).relu())
    return net.b(while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y * 1.5), start)[1])


def scanned(net: Any, x: Tensor) -> Tensor:
    start = torch.zeros(8, dtype=x.dtype)
    last, rows = scan(lambda carry, row: (carry + row, (carry * row).clone()), start, net.a(x).relu())
    return net.b(rows + last)


def prefixes(net: Any, x: Tensor) -> Tensor:
    return net.b(associative_scan(lambda a, b: a + b, net.a(x).relu(), 0, combine_mode="generic"))


def mapped(net: Any, x: Tensor) -> Tensor:
    return net.b(map_rows(lambda row: row.tanh().clone(), net.a(x)))


OPERATORS = {"cond": branch, "while": loop, "scan": scanned, "prefixes": prefixes, "map": mapped}


@pytest.mark.parametrize("name", OPERATORS)
def test_higher_order_operators_are_followed_and_run_afterwards(name: str) -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()
    model, x = (
        Function(OPERATORS[name], a=nn.Linear(3, 8), b=nn.Linear(8, 2)).double(),
        torch.randn(4, 3).double(),
    )
    with torch.no_grad():
        before = model(x)
        spec = discover_symmetry(model, x)
        assert [group.size for group in spec.groups] == [8]
        moved = permute_state(model.state_dict(), spec, random_permutations(spec))
        assert difference(model, moved, torch.randn(4, 3).double()) < 1e-12
        assert torch.equal(model(x), before)
    discover_rescaling(model, spec, x)
    assert torch.allclose(model(x), before)


def test_a_function_that_the_network_compiles_stays_compiled() -> None:
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(lambda y: y.relu() * 2, backend=counter)
    model = Function(lambda net, x: net.b(compiled(net.a(x))), a=nn.Linear(3, 8), b=nn.Linear(8, 2))
    x = torch.randn(4, 3)
    spec = discover_symmetry(model, x)
    verify_symmetry(model, spec, x)
    assert counter.frame_count == 0
    model(x)
    model(x)
    assert counter.frame_count == 1


def test_the_stance_of_the_compiler_is_put_back() -> None:
    stance = torch._dynamo.eval_frame._stance

    def fails() -> None:
        with uncompiled():
            assert torch._dynamo.eval_frame._stance.stance == "force_eager"
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert torch._dynamo.eval_frame._stance == stance


def test_two_threads_put_the_stance_back() -> None:
    stance = torch._dynamo.eval_frame._stance
    one, other = uncompiled(), uncompiled()
    one.__enter__()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(other.__enter__).result()
        one.__exit__(None, None, None)
        assert torch._dynamo.eval_frame._stance.stance == "force_eager"
        pool.submit(other.__exit__, None, None, None).result()
    assert torch._dynamo.eval_frame._stance == stance


FIRST_TO_LOAD = """
import sys, warnings
import torch
from torch import nn
from sinkhorn_rebasin.symmetry import discover_symmetry

warnings.simplefilter("ignore")

class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.b(torch.cond(x.sum() > 0, lambda y: y.relu(), lambda y: y.tanh(), (self.a(x),)))

model, x = Branch().requires_grad_(False), torch.randn(4, 3)
discover_symmetry(nn.Linear(3, 2), x)
assert "torch._dynamo" not in sys.modules
assert [group.size for group in discover_symmetry(model, x).groups] == [8]
assert "torch._dynamo" in sys.modules
model(x)
"""


@pytest.mark.slow
def test_a_network_that_is_the_first_to_load_the_compiler_runs_afterwards() -> None:
    subprocess.run([sys.executable, "-c", FIRST_TO_LOAD], check=True)
