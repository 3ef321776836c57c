"""Maps of continuous symmetries under a Trainer: they are learned, saved in checkpoints, and resumed to the bit."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint

from sinkhorn_rebasin import MidpointLoss, SinkhornRebasin
from sinkhorn_rebasin.training import CosineAnnealing, RebasinModule
from tests.rebasin.turned_problems import pair
from tests.symmetry.witness import difference
from tests.training.fitting import loader, trainer


def module() -> RebasinModule:
    """Of linear bottlenecks in single precision, both of which move."""
    given = pair("bottleneck")
    networks = (copy.deepcopy(network).float() for network in (given.reference, given.target))
    options = {"start": "identity", "both_sides": True, "check": False}
    rebasin = SinkhornRebasin(*networks, spec=given.spec, symmetry=given.continuous, **options)
    return RebasinModule(rebasin, MidpointLoss(F.cross_entropy), rotation_lr=0.05)


def fitted(folder: Path, epochs: int, resume: Path | None = None) -> RebasinModule:
    """Some epochs of five steps."""
    learner, saving = module(), ModelCheckpoint(folder, filename="{step}", save_top_k=-1)
    fit = trainer(folder, max_epochs=epochs, callbacks=[CosineAnnealing(5 * epochs), saving])
    fit.fit(learner, loader(), ckpt_path=resume)
    return learner


def test_a_resumed_run_is_the_run_that_was_not_stopped(tmp_path: Path) -> None:
    whole = fitted(tmp_path / "whole", 2)
    resumed = fitted(tmp_path / "whole", 2, tmp_path / "whole" / "step=5.ckpt")
    expected, loaded, start = (each.rebasin.state_dict() for each in (whole, resumed, module()))
    assert all(torch.equal(tensor, loaded[key]) for key, tensor in expected.items())
    moved = {key for key, tensor in start.items() if not torch.equal(tensor, expected[key])}
    assert moved == {"maps.mixtures.2", "reference_maps.mixtures.2"}


def test_maps_alone_are_trained_at_their_own_rate_and_keep_the_function() -> None:
    learner = module()
    (group,) = learner.configure_optimizers().param_groups
    maps = learner.rebasin.maps, learner.rebasin.reference_maps
    assert {id(p) for p in group["params"]} == {id(p) for each in maps for p in each.parameters()}
    assert (group["lr"], group["weight_decay"]) == (0.05, 0.0)


def test_a_fit_lowers_the_loss_at_the_midpoint(tmp_path: Path) -> None:
    learner, inputs = fitted(tmp_path, 12), pair("bottleneck").inputs.float()
    batches = list(loader())

    def loss(rebasin: SinkhornRebasin) -> float:
        return sum(F.cross_entropy(rebasin.eval()(x, at=0.5), labels).item() for x, labels in batches)

    assert loss(learner.rebasin) < 0.98 * loss(module().rebasin)
    moved = learner.rebasin.to_model().state_dict()
    assert difference(copy.deepcopy(pair("bottleneck").target).float(), moved, inputs) < 1e-5
