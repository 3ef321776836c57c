from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sinkhorn_rebasin.errors import ArchitectureError, DataError, LossError, RebasinError
from sinkhorn_rebasin.landscape import hessian_top_eigenvalue, hessian_trace


def problem() -> tuple[nn.Module, list[tuple[torch.Tensor, torch.Tensor]], torch.Tensor]:
    """A network, its batches, and the whole Hessian of the mean loss by automatic differentiation."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x, y = torch.randn(10, 3, dtype=torch.float64), torch.randint(2, (10,))
    shapes = [(name, p.shape, p.numel()) for name, p in net.named_parameters()]

    def loss(flat: torch.Tensor) -> torch.Tensor:
        parts = flat.split([count for _, _, count in shapes])
        state = {name: part.view(shape) for (name, shape, _), part in zip(shapes, parts, strict=True)}
        return F.cross_entropy(torch.func.functional_call(net, state, x), y)

    flat = torch.cat([p.detach().flatten() for p in net.parameters()])
    whole = torch.autograd.functional.hessian(loss, flat)
    return net, [(x[:3], y[:3]), (x[3:], y[3:])], whole


def test_top_eigenvalue_and_trace_are_those_of_the_whole_hessian() -> None:
    pytest.importorskip("curvlinops", reason="curvlinops is not installed; it comes with the extra 'hessian'")
    net, batches, whole = problem()
    before = [p.clone() for p in net.parameters()]
    largest = float(torch.linalg.eigvalsh(whole)[-1])
    assert hessian_top_eigenvalue(net, batches, tolerance=1e-6) == pytest.approx(largest, rel=1e-5)
    exact = float(whole.trace())
    assert hessian_trace(net, batches, draws=10_000) == pytest.approx(exact, rel=1e-6)
    state = torch.get_rng_state()
    estimates = [hessian_trace(net, batches, draws=20, seed=seed) for seed in range(6)]
    assert torch.equal(state, torch.get_rng_state())
    assert sum(estimates) / 6 == pytest.approx(exact, rel=0.3)
    assert len(set(estimates)) == 6
    assert all(map(torch.equal, before, net.parameters()))
    assert all(p.grad is None for p in net.parameters())


def test_weights_without_gradients_and_eval_mode_count() -> None:
    pytest.importorskip("curvlinops", reason="curvlinops is not installed; it comes with the extra 'hessian'")
    net, batches, whole = problem()
    net[0].requires_grad_(False)
    assert hessian_trace(net, batches, draws=10_000) == pytest.approx(
        float(whole[16:, 16:].trace()), rel=1e-6
    )
    dropping = nn.Sequential(nn.Dropout(0.5), net).train()
    assert hessian_trace(dropping, batches, draws=10_000) == pytest.approx(
        float(whole[16:, 16:].trace()), rel=1e-6
    )
    assert dropping.training


def test_data_that_do_not_fit_are_refused() -> None:
    pytest.importorskip("curvlinops", reason="curvlinops is not installed; it comes with the extra 'hessian'")
    net, batches, _ = problem()
    with pytest.raises(DataError, match="at least one batch"):
        hessian_top_eigenvalue(net, [])
    with pytest.raises(DataError, match="one tensor but got dict"):
        hessian_trace(net, [({"input": batches[0][0]}, batches[0][1])])
    with pytest.raises(DataError, match="at least one draw"):
        hessian_trace(net, batches, draws=0)


def test_batches_of_another_form_come_through_an_adapter() -> None:
    pytest.importorskip("curvlinops", reason="curvlinops is not installed; it comes with the extra 'hessian'")
    net, batches, _ = problem()
    odd = [{"parts": [x, None, y]} for x, y in batches]
    for measure in (hessian_trace, hessian_top_eigenvalue):
        found = measure(net, odd, batch=lambda one: (one["parts"][0], one["parts"][2]))
        assert found == pytest.approx(measure(net, batches), rel=1e-6)
        with pytest.raises(DataError, match="pair"):
            measure(net, [(x, x, y) for x, y in batches])


def test_complex_parameters_and_losses_are_refused() -> None:
    pytest.importorskip("curvlinops", reason="curvlinops is not installed; it comes with the extra 'hessian'")
    net, batches, _ = problem()
    net[0] = nn.Linear(3, 4, dtype=torch.complex128)
    with pytest.raises(ArchitectureError, match=r"real parameters, .* but '0.weight' is torch.complex128"):
        hessian_trace(net, batches)
    net, batches, _ = problem()
    with pytest.raises(LossError, match=r"real loss but got torch\.complex128"):
        hessian_trace(net, batches, lambda outputs, labels: 1j * outputs.mean())
    with pytest.raises(ArchitectureError, match=r"Expected a network, an nn\.Module"):
        hessian_trace(net.state_dict(), batches)  # type: ignore[arg-type]


def test_without_curvlinops_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "curvlinops", None)
    with pytest.raises(RebasinError, match=r"layer\[hessian\]"):
        hessian_trace(nn.Linear(1, 1), [])
