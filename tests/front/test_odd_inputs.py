"""Data and options of an alignment that are unusual or wrong: what they give, or what is said of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import DataError, LossError, RebasinError

SHORT = sr.Recipe(steps=4, cycles=1, closing_steps=2, evaluate_every=2, points=3, folds=1)
GENERATOR = torch.Generator().manual_seed(0)
INPUTS, LABELS = torch.randn(80, 4, generator=GENERATOR), torch.randint(3, (80,), generator=GENERATOR)
BATCHES = list(zip(INPUTS.split(8), LABELS.split(8), strict=True))


class Indexed(nn.Module):
    """A network with buffers of whole numbers and of truth values, and with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.drop = nn.Linear(4, 6), nn.Linear(6, 3), nn.Dropout(0.5)
        self.register_buffer("order", torch.arange(4).flip(0))
        self.register_buffer("mask", torch.tensor([True] * 6))

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.drop(self.up(x[:, self.order]).relu()) * self.mask)


def pair(kind: Callable[[], nn.Module] | None = None) -> list[nn.Module]:
    torch.manual_seed(0)
    kind = kind or (lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)))
    return [kind(), kind()]


def aligned(networks: list[nn.Module] | None = None, train: Any = BATCHES, **options: Any) -> Any:
    given = {"recipe": SHORT, "progress": False, "trainer": {"accelerator": "cpu"}, **options}
    return sr.align(*(networks or pair()), train, **given)


@functools.cache
def usual() -> Any:
    """The alignment of the usual batches."""
    return aligned()


@pytest.mark.parametrize(
    ("kind", "criterion"),
    [(torch.int32, None), (torch.uint8, None), (torch.int16, nn.CrossEntropyLoss())],
    ids=str,
)
def test_narrow_classes_are_classes(kind: torch.dtype, criterion: Any) -> None:
    found = aligned(train=[(x, y.to(kind)) for x, y in BATCHES], criterion=criterion)
    assert torch.equal(found.after.losses, usual().after.losses)


def test_classes_written_as_floats_are_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"whole numbers, .* but got torch.float32 of shape \(8,\)"):
        aligned(train=[(x, y.float()) for x, y in BATCHES])


def test_classes_that_the_network_has_not_are_named() -> None:
    with pytest.raises(DataError, match=r"labels from 0 to 2, .* but got labels from 3 to 5"):
        aligned(train=[(x, y + 3) for x, y in BATCHES], validation=BATCHES[:2])


class UsedUp:
    """Batches that come once, from an object that is no iterator."""

    def __init__(self) -> None:
        self.batches = iter(BATCHES)

    def __iter__(self) -> Iterator[Any]:
        return self.batches


@pytest.mark.parametrize("name", ["train", "statistics"])
def test_data_that_are_used_up_are_refused_before_the_fit(name: str) -> None:
    with pytest.raises(DataError, match=f"{name} to be read more than once but UsedUp is used up"):
        aligned(**{name: UsedUp(), "validation": BATCHES[:2]})


class Rest(UsedUp):
    """What the usual alignment keeps out."""

    def __init__(self) -> None:
        self.batches = iter(BATCHES[-4:])


def test_held_out_data_may_come_once() -> None:
    found = aligned(train=BATCHES[:-4], validation=Rest())
    assert torch.equal(found.after.losses, usual().after.losses)


def test_a_loader_of_one_batch_is_split() -> None:
    loader = DataLoader(TensorDataset(INPUTS[:16], LABELS[:16]), 16)
    assert aligned(train=loader).held_out == "8 of 16 training samples, 1 batches of them"


@pytest.mark.parametrize("narrow", [torch.float16, torch.bfloat16])
def test_networks_in_half_precision_stay_in_it(narrow: torch.dtype) -> None:
    networks = [network.to(narrow) for network in pair()]
    found = aligned(networks, [(x.to(narrow), y) for x, y in BATCHES])
    assert {tensor.dtype for tensor in found.merge(0.5).state_dict().values()} == {narrow}
    assert found.function_change < 0.02


def test_data_of_another_type_than_the_networks_are_refused() -> None:
    with pytest.raises(RebasinError, match="Float and Half"):
        aligned([network.half() for network in pair()])


def test_buffers_of_whole_numbers_and_dropout_in_train_mode_stay() -> None:
    networks = [network.train() for network in pair(Indexed)]
    found = aligned(networks)
    assert found.function_change < 1e-6
    assert all(network.training and network.drop.training for network in networks)
    merged = found.merge(0.5)
    assert torch.equal(merged.order, networks[0].order)
    assert merged.mask.dtype == torch.bool


def test_a_sum_is_taken_over_every_batch() -> None:
    whole, parts = (
        aligned(criterion=nn.CrossEntropyLoss(reduction=reduction), recipe=SHORT).before.losses
        for reduction in ("sum", "mean")
    )
    torch.testing.assert_close(whole, 32 * parts)


def test_networks_that_share_a_tensor_keep_it() -> None:
    networks = pair()
    networks[1][0].weight = networks[0][0].weight
    before = networks[0][0].weight.clone()
    assert aligned(networks).function_change < 1e-6
    assert networks[1][0].weight is networks[0][0].weight
    assert torch.equal(networks[0][0].weight, before)


@pytest.mark.parametrize("place", [0, 1])
def test_a_network_without_values_is_refused(place: int) -> None:
    networks = pair()
    networks[place] = networks[place].to("meta")
    with pytest.raises(RebasinError, match=r"'0\.weight' on the meta device: load its weights first"):
        aligned(networks)


def test_it_runs_in_inference_mode() -> None:
    with torch.inference_mode():
        found = aligned()
    assert torch.equal(found.after.losses, usual().after.losses)


def test_wrong_options_are_refused_by_name() -> None:
    with pytest.raises(LossError, match=r"criterion= to be a function .* but got str"):
        aligned(criterion="cross_entropy")
    with pytest.raises(RebasinError, match="'acceleratr'; did you mean 'accelerator'"):
        aligned(trainer={"acceleratr": "cpu"})
    with pytest.raises(LossError, match=r"one number per batch but got shape \(8,\)"):
        aligned(criterion=nn.CrossEntropyLoss(reduction="none"))
