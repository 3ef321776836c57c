from __future__ import annotations

from typing import Any

import pytest
import torch

from sinkhorn_rebasin.errors import LossError
from sinkhorn_rebasin.losses import checked_loss


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_a_finite_scalar_passes_with_its_gradient(shape: tuple[int, ...]) -> None:
    value = torch.full(shape, 2.0, requires_grad=True)
    loss = checked_loss(value * 3)
    assert loss.shape == ()
    loss.backward()
    assert float(value.grad.sum()) == 3.0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("loss", "text"),
    [
        (1.0, "float"),
        (None, "NoneType"),
        ({"loss": torch.tensor(1.0)}, "dict"),
        (torch.ones(3, requires_grad=True), r"shape \(3,\)"),
        (torch.ones(0, requires_grad=True), r"shape \(0,\)"),
        (torch.tensor(float("nan"), requires_grad=True), "nan"),
        (torch.tensor(float("inf"), requires_grad=True), "inf"),
        (torch.tensor(1j, requires_grad=True), "real loss but got torch.complex64: take"),
        (torch.tensor(1.0), "no gradient"),
        (torch.tensor(1), "no gradient"),
    ],
)
def test_anything_else_is_an_error(loss: Any, text: str) -> None:
    with pytest.raises(LossError, match=text):
        checked_loss(loss)


def test_without_gradients_a_plain_number_is_enough() -> None:
    with torch.no_grad():
        assert checked_loss(torch.tensor(1.0)) == 1.0
