"""A fit in another precision leaves the networks as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import LossError
from sinkhorn_rebasin.training import BarrierMonitor, RebasinModule
from tests.rebasin.rebasin_problems import TiedLayers
from tests.training.fitting import loader, trainer


def networks(dtype: torch.dtype = torch.float32) -> list[nn.Module]:
    torch.manual_seed(0)
    return [nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).to(dtype) for _ in range(2)]


def fitted(folder: Path, precision: str, **options: Any) -> tuple[list[nn.Module], sr.SinkhornRebasin]:
    pair = networks()
    rebasin = sr.SinkhornRebasin(*pair, torch.randn(2, 5), rescale=True)
    module = RebasinModule(rebasin, sr.MidpointLoss(F.cross_entropy))
    trainer(folder, max_epochs=1, precision=precision, **options).fit(module, loader())
    return pair, rebasin


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true"])
def test_everything_evaluates_after_a_fit_in_another_precision(precision: str, tmp_path: Path) -> None:
    pair, rebasin = fitted(tmp_path, precision, callbacks=[BarrierMonitor(loader(), restore_best=True)])
    x = torch.randn(4, 5)
    for role, network in zip(("reference", "target"), pair, strict=True):
        kept = getattr(rebasin, f"{role}_state")()
        assert all(torch.equal(kept[name], tensor) for name, tensor in network.state_dict().items())
    moved = rebasin.to_model()
    assert torch.allclose(moved(x), pair[1](x), atol=1e-5)
    assert torch.allclose(rebasin.eval()(x), moved(x), atol=1e-6)
    again = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    again.load_state_dict(rebasin.alignment().apply(pair[1]))
    assert torch.allclose(again(x), pair[1](x), atol=1e-5)
    assert rebasin.merge(0.5)(x).dtype == torch.float32
    for path in (rebasin, rebasin.path()):
        assert sr.evaluate_path(path, loader(), points=3).losses.isfinite().all()
    assert {parameter.dtype for parameter in rebasin.parameters()} == {torch.float32}
    assert {rebasin.temperature.dtype, *(buffer.dtype for buffer in rebasin.scalings.buffers())} == {
        torch.float32
    }
    rebasin.train()(x, at=0.5).sum().backward()


def test_what_was_learned_in_half_precision_stays(tmp_path: Path) -> None:
    before = sr.SinkhornRebasin(*networks(), torch.randn(2, 5), rescale=True)
    _, after = fitted(tmp_path, "bf16-true")
    assert not torch.equal(before.scores["0"], after.scores["0"])
    assert not torch.equal(before.log_scales["0"], after.log_scales["0"])


def test_a_checkpoint_holds_the_networks_as_they_were(tmp_path: Path) -> None:
    saves = ModelCheckpoint(tmp_path, save_last=True)
    pair, rebasin = fitted(tmp_path, "bf16-true", callbacks=[saves])
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    for name, tensor in pair[1].state_dict().items():
        assert torch.equal(checkpoint["state_dict"][f"rebasin.target.{name}"], tensor)
    loaded = RebasinModule.load_from_checkpoint(
        tmp_path / "last.ckpt", rebasin=sr.SinkhornRebasin(*networks(), torch.randn(2, 5), rescale=True),
        loss=sr.MidpointLoss(),
    )  # fmt: skip
    assert torch.equal(loaded.rebasin.scores["0"], rebasin.scores["0"])


def test_networks_come_back_after_an_error(tmp_path: Path) -> None:
    pair = networks()
    rebasin = sr.SinkhornRebasin(*pair, torch.randn(2, 5), rescale=True)

    def broken(rebasin: Any, batch: Any) -> Tensor:
        assert rebasin.target_state()["0.weight"].dtype == torch.bfloat16
        return torch.tensor(float("nan"))

    module = RebasinModule(rebasin, broken, hard=True)
    with pytest.raises(LossError):
        trainer(tmp_path, precision="bf16-true").fit(module, loader())
    assert torch.equal(rebasin.target_state()["0.weight"], pair[1][0].weight)
    assert all(parameter.requires_grad for parameter in rebasin.parameters())


def test_tied_tensors_are_one_again(tmp_path: Path) -> None:
    torch.manual_seed(0)
    pair = TiedLayers(), TiedLayers()
    rebasin = sr.SinkhornRebasin(*pair, torch.randn(2, 4))
    module = RebasinModule(rebasin, sr.WeightDistance())
    trainer(tmp_path, max_epochs=1, precision="64-true").fit(module, sr.training.data_free_steps(2))
    state = rebasin.target.state_dict()
    assert state["second.weight"].data_ptr() == state["third.weight"].data_ptr()
    assert torch.equal(state["second.weight"], pair[1].second.weight)


def test_the_networks_of_an_alignment_in_half_precision_stay() -> None:
    pair = networks()
    short = sr.Recipe(steps=4, cycles=1, closing_steps=2, evaluate_every=2)
    result = sr.align(
        *pair, list(loader()), recipe=short, progress=False, trainer={"accelerator": "cpu", "precision": "bf16-true"}
    )  # fmt: skip
    x = torch.randn(4, 5)
    assert torch.allclose(result.to_model()(x), pair[1](x), atol=1e-5)
    assert result.function_change is not None
    assert result.function_change < 1e-5
