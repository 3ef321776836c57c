from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sinkhorn_rebasin.networks.architecture import named_tensors
from sinkhorn_rebasin.networks.execution import run_at
from sinkhorn_rebasin.networks.frozen import frozen_copy, thawed_copy, traits_of
from tests.cases import CASES, Case, case, randomise
from tests.symmetry.witness import in_double_precision, outputs_of

every_case = pytest.mark.parametrize("case", CASES, ids=str)


@every_case
def test_a_frozen_copy_is_the_same_function_without_parameters(case: Case) -> None:
    torch.manual_seed(0)
    model, inputs = randomise(case.make()).double().eval(), in_double_precision(case.make_inputs())
    frozen = frozen_copy(model)
    assert not list(frozen.parameters())
    assert set(frozen.state_dict()) == set(model.state_dict())
    torch.manual_seed(1)
    expected = outputs_of(model.eval(), inputs)
    torch.manual_seed(1)
    # Recurrent and attention layers choose another kernel where no gradient is asked for.
    for found, wanted in zip(outputs_of(frozen, inputs), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@every_case
def test_thawing_gives_back_the_network(case: Case) -> None:
    torch.manual_seed(0)
    model, inputs = randomise(case.make()).eval(), case.make_inputs()
    next(model.parameters()).requires_grad_(False)
    flags = traits_of(model)
    plain = thawed_copy(frozen_copy(model), model.state_dict(), flags)
    assert traits_of(plain) == flags
    assert list(plain.state_dict()) == list(model.state_dict())
    expected = outputs_of(model, inputs)
    assert all(torch.equal(a, b) for a, b in zip(outputs_of(plain, inputs), expected, strict=True))
    ours = {id(tensor) for tensor in named_tensors(model).values()}
    assert not ours & {id(tensor) for tensor in named_tensors(plain).values()}


def test_tied_parameters_stay_tied() -> None:
    frozen = frozen_copy(case("tied_layers").make())
    assert frozen[2].weight is frozen[4].weight
    model = case("tied_layers").make()
    plain = thawed_copy(frozen, model.state_dict(), traits_of(model))
    assert plain[2].weight is plain[4].weight
    assert isinstance(plain[2].weight, nn.Parameter)
    assert torch.equal(plain[4].weight, model[4].weight)


def test_copies_share_no_memory() -> None:
    model = case("conv2d").make()
    before = copy.deepcopy(model.state_dict())
    frozen = frozen_copy(model)
    plain = thawed_copy(frozen, model.state_dict(), traits_of(model))
    with torch.no_grad():
        for tensor in [*frozen.buffers(), *plain.parameters(), *plain.buffers()]:
            tensor.zero_()
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


def test_frozen_networks_move_with_their_owner() -> None:
    owner = nn.Module()
    owner.inner = frozen_copy(case("mlp_batch_norm").make())
    owner.double()
    assert owner.inner[0].weight.dtype == torch.float64
    assert {name.removeprefix("inner.") for name in owner.state_dict()} == set(owner.inner.state_dict())
    assert not list(owner.parameters())


def test_frozen_recurrent_networks_run_at_other_weights() -> None:
    model = nn.LSTM(3, 4, batch_first=True)
    frozen = frozen_copy(model)
    x = torch.randn(2, 5, 3)
    assert torch.equal(frozen(x)[0], model(x)[0])
    other = nn.LSTM(3, 4, batch_first=True)
    assert torch.equal(run_at(frozen, other.state_dict(), x)[0], other(x)[0])
