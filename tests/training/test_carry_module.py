"""Carrying under a Trainer: against the plain loop, against ``carry``, and stopped and resumed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.data import DataLoader, TensorDataset

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import ArchitectureError, RebasinError, SpecError
from sinkhorn_rebasin.networks.copying import standalone_copy
from sinkhorn_rebasin.training import CarryModule, TemperatureAnnealing
from sinkhorn_rebasin.training.original_tensors import PutsBackAfterErrors
from tests.carrying.networks import mlp, tuned_from
from tests.training.fitting import trainer

X = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))


def bases(activation: type[nn.Module] = nn.ReLU) -> tuple[nn.Module, nn.Module, nn.Module]:
    """A fine-tune, its base, and the base with its units in another order and noise on its weights."""
    base = mlp(0, activation=activation)
    spec = sr.discover_symmetry(base, X)
    planted = sr.random_permutations(spec, generator=torch.Generator().manual_seed(1))
    new_base = standalone_copy(base)
    new_base.load_state_dict(sr.permute_state(base.state_dict(), spec, planted))
    return tuned_from(base, size=0.4), base, tuned_from(new_base, seed=3, size=0.05)


def module(rescale: bool = False, **options: Any) -> CarryModule:
    tuned, base, new_base = bases(nn.Tanh if rescale else nn.ReLU)
    rebasin = sr.SinkhornRebasin(new_base, base, X, start="identity", temperature=0.5, rescale=rescale)
    return CarryModule(rebasin, tuned, criterion=F.mse_loss, **options)


def loader(shuffle: bool = False) -> DataLoader[Any]:
    tuned = bases()[0]
    with torch.no_grad():
        return DataLoader(TensorDataset(X, tuned(X)), 4, shuffle=shuffle)


def test_a_fit_is_the_plain_loop(tmp_path: Path) -> None:
    fitted, witness = module(lr=0.05, factor_lr=0.03), module()
    trainer(tmp_path, max_epochs=2).fit(fitted, loader())
    rebasin, scale = witness.rebasin, torch.tensor(0.75, requires_grad=True)
    tuned, base, new_base = (dict(net.named_parameters()) for net in bases())
    groups = [{"params": rebasin.scores.parameters()}, {"params": [scale], "lr": 0.03}]
    optimizer = torch.optim.Adam(groups, lr=0.05)
    for _ in range(2):
        for inputs, labels in loader():
            moved = sr.permute_state(
                {name: (tuned[name] - base[name]).detach() for name in base},
                rebasin.spec,
                rebasin.soft_permutations(),
            )
            state = {name: (new_base[name].detach() + scale * moved[name]) for name in moved}
            optimizer.zero_grad()
            F.mse_loss(functional_call(bases()[2], state, inputs), labels).backward()
            optimizer.step()
    for name, scores in fitted.rebasin.scores.items():
        torch.testing.assert_close(scores, rebasin.scores[name], atol=1e-5, rtol=1e-4)
        assert (scores - module().rebasin.scores[name]).abs().max() > 0.1
    torch.testing.assert_close(fitted.factor, scale, atol=1e-5, rtol=1e-4)
    assert abs(float(scale.detach()) - 0.75) > 0.01


@pytest.mark.parametrize("rescale", [False, True])
def test_what_was_learned_is_the_update_that_carry_returns(tmp_path: Path, rescale: bool) -> None:
    fitted = module(rescale)
    trainer(tmp_path, max_epochs=3).fit(fitted, loader())
    tuned, base, new_base = bases(nn.Tanh if rescale else nn.ReLU)
    alignment, scale = fitted.rebasin.alignment(), fitted.scale
    update = sr.carry(tuned, base, new_base, alignment, scale, example_inputs=X)
    plain = fitted.to_model()
    for name, tensor in update.apply(new_base).named_parameters():
        torch.testing.assert_close(plain.state_dict()[name], tensor, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(fitted.eval()(X), plain(X))
    torch.testing.assert_close(fitted(X, at=0.0), new_base(X))
    assert type(plain) is type(new_base)


def test_training_does_better_than_the_start_and_nothing_passed_in_changes(tmp_path: Path) -> None:
    tuned, base, new_base = bases()
    kept = [{n: t.clone() for n, t in net.state_dict().items()} for net in (tuned, base, new_base)]
    rebasin = sr.SinkhornRebasin(new_base, base, X, start="identity", temperature=0.5)
    fitted = CarryModule(rebasin, tuned, criterion=F.mse_loss)
    quiet = {"logger": CSVLogger(tmp_path), "log_every_n_steps": 1}
    fit = trainer(
        tmp_path,
        max_epochs=30,
        **quiet,
        callbacks=[TemperatureAnnealing(lambda part: 0.5 - 0.45 * part)],
    )
    before = fit.validate(fitted, loader(), verbose=False)[0]
    fit.fit(fitted, loader(shuffle=True), loader())
    after = fit.validate(fitted, loader(), verbose=False)[0]
    with torch.no_grad():
        labels = tuned(X)
        assert before["val_new_base_loss"] == pytest.approx(float(F.mse_loss(new_base(X), labels)), rel=1e-5)
        assert after["val_loss"] == pytest.approx(float(F.mse_loss(fitted.to_model()(X), labels)), rel=1e-5)
    assert after["val_loss"] < 0.5 * min(before["val_loss"], before["val_new_base_loss"])
    assert fit.test(fitted, loader(), verbose=False)[0]["test_loss"] == pytest.approx(after["val_loss"])
    predicted: Any = fit.predict(fitted, DataLoader(list(X), 10))
    torch.testing.assert_close(torch.cat(predicted), fitted.to_model()(X))
    for network, tensors in zip((tuned, base, new_base), kept, strict=True):
        assert all(torch.equal(tensor, tensors[name]) for name, tensor in network.state_dict().items())


def test_a_run_that_was_stopped_and_resumed_is_the_run_that_was_not(tmp_path: Path) -> None:
    def run(seed: int, epochs: int, resume: Path | None = None) -> CarryModule:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fitted = module()
            saving = ModelCheckpoint(tmp_path, filename=f"{seed}-{{epoch}}", save_top_k=-1)
            callbacks = [TemperatureAnnealing(lambda part: 0.5 - 0.4 * part), saving]
            fit = trainer(tmp_path, max_epochs=4, limit_train_batches=5, callbacks=callbacks)
            fit.fit_loop.max_epochs = 4
            if epochs < 4:
                fit.callbacks.insert(0, _StopAfter(epochs))
            fit.fit(fitted, loader(shuffle=True), ckpt_path=resume)
            return fitted

    whole = run(1, 4)
    run(2, 2)
    checkpoint = next(tmp_path.glob("1-epoch=1.ckpt"))
    again = run(77, 4, checkpoint)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in whole.state_dict().items())
    other = run(78, 4)
    assert any(not torch.equal(t, other.state_dict()[name]) for name, t in whole.state_dict().items())
    loaded = CarryModule.load_from_checkpoint(
        next(tmp_path.glob("1-epoch=3.ckpt")),
        rebasin=module().rebasin,
        tuned=bases()[0],
        criterion=F.mse_loss,
    )
    assert loaded.scale == whole.scale
    torch.testing.assert_close(loaded.to_model()(X), whole.to_model()(X))
    with pytest.raises(RebasinError, match="Expected tuned= beside the checkpoint"):
        CarryModule.load_from_checkpoint(checkpoint, rebasin=module().rebasin)


class _StopAfter(PutsBackAfterErrors):
    """Stop a run early, as a time limit would."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Ask the Trainer to stop."""
        trainer.should_stop = trainer.current_epoch + 1 == self.epochs


def test_maps_carry_networks_in_canonical_form(tmp_path: Path) -> None:
    class Stream(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.up, self.down, self.head = (
                nn.Linear(4, 6),
                nn.Linear(6, 8),
                nn.Linear(8, 6),
                nn.Linear(6, 3),
            )
            self.norms = nn.ModuleList([nn.LayerNorm(6), nn.LayerNorm(6)])

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            x = x + self.down(torch.relu(self.up(self.norms[0](x))))
            return self.head(self.norms[1](x))

    torch.manual_seed(0)
    base, new_base = Stream().eval(), Stream().eval()
    tuned = tuned_from(base)
    rebasin = sr.SinkhornRebasin(new_base, base, X, symmetry="full")
    with pytest.raises(ArchitectureError, match=r"of the tuned network .* canonicalize"):
        CarryModule(rebasin, tuned)
    canonical = sr.canonicalize(tuned, rebasin.spec, rebasin.continuous, X)
    fitted = CarryModule(rebasin, canonical, criterion=F.mse_loss, factor_lr=0.0, rotation_lr=0.1)
    with torch.no_grad():
        labels = tuned(X)
    trainer(tmp_path, max_epochs=3).fit(fitted, DataLoader(TensorDataset(X, labels), 5))
    assert fitted.scale == 0.75
    update = sr.carry(tuned, base, new_base, rebasin.alignment(), 0.75, example_inputs=X)
    torch.testing.assert_close(update.apply(new_base)(X), fitted.to_model()(X), atol=1e-4, rtol=1e-4)


def test_what_cannot_be_carried_is_refused() -> None:
    tuned, base, new_base = bases()
    rebasin = sr.SinkhornRebasin(new_base, base, X)
    with pytest.raises(ArchitectureError, match="nothing to carry"):
        CarryModule(rebasin, base)
    with pytest.raises(ArchitectureError, match=r"'0.weight'"):
        CarryModule(rebasin, mlp(0, 9))
    with pytest.raises(SpecError, match="finite number"):
        CarryModule(rebasin, tuned, scale=math.nan)
    broken = tuned_from(base)
    with torch.no_grad():
        broken[2].bias[1] = torch.nan
    with pytest.raises(ArchitectureError, match=r"finite update but '2.bias'"):
        CarryModule(rebasin, broken)
