"""What Python makes of values it has read, or computes where nothing is seen, is no constant."""

from __future__ import annotations

import copy
import pickle
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from sinkhorn_rebasin.errors import RebasinWarning
from sinkhorn_rebasin.permutations import permute_state, random_permutations
from sinkhorn_rebasin.symmetry import discover_symmetry
from tests.symmetry.witness import difference
from tests.zoo.case import Function

Forward = Callable[[Any, Tensor], Tensor]


def masked(mask: Callable[[Tensor, Tensor], Any]) -> Forward:
    """Hidden units times a mask that is made of them or of the inputs."""
    return lambda net, x: net.b(net.mix(h := net.a(x)).tanh() * torch.as_tensor(mask(h, x)).to(h))


def number(x: Tensor, below: int) -> int:
    return int(x.abs().sum() * 10) % below


READ = {
    "mask by numpy": masked(lambda h, x: torch.from_numpy((h.detach().numpy() > 0).astype("float64"))),
    "active units": masked(lambda h, x: torch.tensor([float(v > 0) for v in h.mean(0).tolist()])),
    "unit by unit": masked(lambda h, x: torch.tensor([1.0 if h[0, k].item() > 0 else 0.5 for k in range(8)])),
    "scale of a power": masked(
        lambda h, x: torch.from_numpy(2 ** np.ceil(np.log2(np.abs(h.numpy()).max(0))))
    ),
    "one hot": masked(lambda h, x: 1 + F.one_hot(torch.tensor(int(h.mean(0).argmax())), 8)),
    "seeded": masked(lambda h, x: np.random.default_rng(number(x, 7)).integers(0, 2, 8).astype("float64")),
    "written by index": masked(lambda h, x: torch.ones(8).index_fill(0, torch.tensor([number(x, 8)]), 0.0)),
    "two constants": masked(lambda h, x: torch.cat([torch.ones(k := number(x, 8)), torch.zeros(8 - k)])),
    "padded": masked(lambda h, x: F.pad(torch.ones(k := number(x, 8)), (0, 8 - k))),
    "triangle": masked(lambda h, x: torch.ones(8, 8).tril(number(x, 5) - 2).sum(0)),
    "linspace": masked(lambda h, x: torch.linspace(0, 1, 8).sub(number(x, 8) / 8).sign()),
    "list of tables": masked(lambda h, x: [torch.ones(8), torch.arange(8.0)][number(x, 2)]),
}


def in_pool(work: Callable[[Any, Tensor], Tensor]) -> Forward:
    def run(net: Any, x: Tensor) -> Tensor:
        hidden = net.a(x).relu()
        with ThreadPoolExecutor(1) as pool:
            return net.b(pool.submit(work, net, hidden).result())

    return run


def in_thread(net: Any, x: Tensor) -> Tensor:
    hidden, box = net.a(x).relu(), []
    thread = threading.Thread(target=lambda: box.append(hidden.cumsum(-1)))
    thread.start()
    thread.join()
    return net.b(box[0])


def unwatched(net: Any, x: Tensor) -> Tensor:
    hidden = net.a(x).relu()
    with _disable_current_modes():
        hidden = hidden.cumsum(-1)
    return net.b(hidden)


def ordered(remade: Callable[[Tensor], Tensor]) -> Forward:
    """Hidden units in a tensor that is made past the dispatcher, and read in order."""
    return lambda net, x: net.b(remade(net.a(x).relu().detach().contiguous()).cumsum(-1))


UNSEEN = {
    "layer in a pool": in_pool(lambda net, h: net.mix(h).relu()),
    "relu in a pool": in_pool(lambda net, h: h.relu()),
    "thread": in_thread,
    "unwatched": unwatched,
    "parameter": ordered(nn.Parameter),
    "array by dlpack": ordered(lambda h: torch.from_numpy(np.array(np.from_dlpack(h)))),
    "dlpack": ordered(torch.from_dlpack),
    "copy": ordered(copy.copy),
    "deepcopy": ordered(copy.deepcopy),
    "pickle": ordered(lambda h: pickle.loads(pickle.dumps(h))),
    "set": ordered(lambda h: torch.empty(0).to(h).set_(h.untyped_storage(), 0, h.shape, h.stride())),
    "buffer": ordered(lambda h: torch.frombuffer(bytearray(h.numpy().tobytes()), dtype=h.dtype).view_as(h)),
}


def network(run: Forward) -> nn.Module:
    torch.manual_seed(0)
    return Function(run, a=nn.Linear(4, 8), mix=nn.Linear(8, 8), b=nn.Linear(8, 2)).double().eval()


@pytest.mark.parametrize("name", [*READ, *UNSEEN])
def test_no_function_is_changed_without_verification(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sinkhorn_rebasin.symmetry.discovery.proven", lambda model, spec, inputs: spec)
    model = network({**READ, **UNSEEN}[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec = discover_symmetry(model, torch.randn(5, 4).double())
    for seed in range(3):
        chance = torch.Generator().manual_seed(seed)
        moved = permute_state(model.state_dict(), spec, random_permutations(spec, generator=chance))
        inputs = 3 * torch.randn(9, 4, generator=chance, dtype=torch.float64)
        assert difference(model, moved, inputs) < 1e-12
    assert not any(slot.tensor == "b.weight" for slot in spec.slots)


@pytest.mark.parametrize("remade", [copy.deepcopy, lambda h: h.data, lambda h: h.clone()])
def test_what_is_copied_in_sight_is_followed(remade: Callable[[Tensor], Tensor]) -> None:
    model = network(lambda net, x: net.mix(net.b.weight.new_ones(1) * remade(net.a(x).relu().detach())))
    assert discover_symmetry(model, torch.randn(5, 4).double()).names == ["a"]


@pytest.mark.parametrize("name", ["layer in a pool", "thread", "unwatched"])
def test_what_is_computed_out_of_sight_is_told(name: str) -> None:
    with pytest.warns(RebasinWarning, match="uses a tensor.*that no operation seen has made"):
        spec = discover_symmetry(network(UNSEEN[name]), torch.randn(5, 4).double())
    assert spec.groups == ()


TABLE = torch.tensor([1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0], dtype=torch.float64)


def test_constants_that_were_there_before_tell_their_equal_places() -> None:
    closure = TABLE.clone()
    for run in (
        lambda net, x: net.b(net.a(x).relu() * TABLE),
        lambda net, x: net.b(net.a(x).relu() * closure),
        lambda net, x: net.b(net.a(x).relu() * torch.tensor([1.0] * 4 + [2.0] * 4)),
    ):
        spec = discover_symmetry(network(run), torch.randn(5, 4).double())
        assert [group.size for group in spec.groups] == [4, 4]


class Key(NamedTuple):
    """Inputs that all count as the same."""

    x: Tensor

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return True


def remembered(work: Callable[[Tensor], Tensor]) -> Forward:
    """A tensor that is made in the first run and looked up in all others, where no attribute leads to it."""
    table = lru_cache(lambda key: work(key.x))
    return lambda net, x: net.b(net.a(x).relu() * table(Key(x)))


@pytest.mark.parametrize(
    "work",
    [
        lambda x: torch.ones(4).repeat(2) * 3,
        lambda x: torch.arange(8).div(8, rounding_mode="floor") + 2,
        lambda x: torch.zeros(8).fill_(2.0)[:1].expand(8).add(1),
        lambda x: x.new_zeros(8).fill_(0.5),
        lambda x: torch.as_tensor(np.linspace(0, 0, 8)) + 1,
        lambda x: torch.tensor([2.0, 2.0]).repeat(4).mul(2),
        lambda x: torch.zeros_like(x[:, :1].expand(-1, 8)[0]) + 1,
    ],
)
def test_what_a_network_remembers_of_numbers_is_constant(work: Callable[[Tensor], Tensor]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spec = discover_symmetry(network(remembered(work)), torch.randn(5, 4).double())
    assert [group.size for group in spec.groups] == [8]


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x[0].repeat(2),
        lambda x: torch.ones(8).to(x).copy_(x[0].repeat(2)),
        lambda x: (kept := torch.ones(8).to(x), kept[:4].mul_(x[0]))[0],
        lambda x: (kept := torch.ones(8).to(x), kept.view(2, 4).copy_(x[:2]))[0],
        lambda x: torch.stack([torch.ones(8).to(x), x[0].repeat(2)]).sum(0),
        lambda x: torch.ones(8) * float(x.abs().sum()),
        lambda x: torch.cat([torch.ones(k := number(x, 8)), torch.zeros(8 - k)]),
        lambda x: torch.as_tensor(x.numpy().repeat(2, axis=1)[0]) + 1,
        lambda x: torch.tensor(x[0].tolist()).repeat(2),
        lambda x: torch.tensor([1.0 if value > 0 else 0.5 for value in 2 * x[0].tolist()]),
    ],
)
def test_what_a_network_remembers_of_its_inputs_is_not(work: Callable[[Tensor], Tensor]) -> None:
    with pytest.warns(RebasinWarning, match="that no operation seen has made"):
        spec = discover_symmetry(network(remembered(work)), torch.randn(5, 4).double())
    assert spec.groups == ()


class Masks(nn.Module):
    """Chooses one of two masks by its inputs."""

    def __init__(self, persistent: bool, as_list: bool = False) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)
        day, night = torch.ones(8), torch.tensor([1.0] * 4 + [0.0] * 4)
        if as_list:
            self.masks = [day.double(), night.double()]
        else:
            self.register_buffer("day", day, persistent)
            self.register_buffer("night", night, persistent)

    def forward(self, x: Tensor) -> Tensor:
        masks = getattr(self, "masks", None) or [self.day, self.night]
        return self.b(self.a(x).relu() * masks[int(x.abs().mean() > 3)])


@pytest.mark.parametrize(
    ("model", "sizes"), [(Masks(True), [8]), (Masks(False), [4, 4]), (Masks(False, True), [4, 4])]
)
def test_a_mask_chosen_by_data_is_another_way(model: nn.Module, sizes: list[int]) -> None:
    torch.manual_seed(0)
    model = model.double()
    spec = discover_symmetry(model, torch.randn(64, 4).double())
    assert [group.size for group in spec.groups] == sizes
    moved = permute_state(model.state_dict(), spec, random_permutations(spec))
    for factor in (1, 6):
        assert difference(model, moved, factor * torch.randn(64, 4).double()) < 1e-12
    assert spec.validity is not None
    assert spec.validity.reads_values
    assert spec.validity.ways >= 2


def test_tensors_that_change_places_are_followed() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        hidden = net.a(x).relu()
        other = torch.zeros_like(hidden)
        torch.utils.swap_tensors(hidden, other)
        return net.b(torch.cat([hidden, other], 1)[:, 8:] + net.mix(x.new_ones(8)) * 0)

    model = network(run)
    spec = discover_symmetry(model, torch.randn(5, 4).double())
    moved = permute_state(model.state_dict(), spec, random_permutations(spec))
    assert difference(model, moved, torch.randn(9, 4).double()) < 1e-12
