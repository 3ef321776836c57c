"""Train an alignment with Lightning, stop, and go on."""

# %% The module, the loss, and callbacks that anneal and keep the best
import tempfile
from pathlib import Path

import lightning
import torch
import torch.nn.functional as F

import sinkhorn_rebasin as sr
from experiments.tutorials.digits import held_out_loader, mlp, test_loader, train_loader, trained
from experiments.tutorials.truth import check

reference, target = trained(mlp, seed=0), trained(mlp, seed=1)
images, _ = next(iter(test_loader()))


def module() -> sr.training.RebasinModule:
    """Return a fresh re-basin to train."""
    rebasin = sr.SinkhornRebasin(reference, target, images[:2])
    return sr.training.RebasinModule(rebasin, sr.RandomPointLoss(F.cross_entropy), lr=0.1)


def trainer(steps: int, folder: str) -> lightning.Trainer:
    """Return a Trainer; loggers, devices, precision and strategies are chosen here as always."""
    anneal = sr.training.TemperatureAnnealing(sr.temperature.geometric(1.0, 0.3))
    monitor = sr.training.BarrierMonitor(held_out_loader(), restore_best=True)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return lightning.Trainer(
        max_steps=steps, callbacks=[anneal, monitor], accelerator="cpu", default_root_dir=folder, **quiet
    )


# %% Train
lightning.seed_everything(0, verbose=False)
with tempfile.TemporaryDirectory() as folder:
    trained_module = module()
    fit = trainer(150, folder)
    fit.fit(trained_module, train_loader())
    file = Path(folder) / "stopped.ckpt"
    fit.save_checkpoint(file)

    # %% Go on from the file: scores, temperature, optimizer and random state are in it
    resumed = module()
    trainer(200, folder).fit(resumed, train_loader(), ckpt_path=file)

# %% The same measures as ever
before = sr.evaluate_path((target, reference), test_loader())
after = sr.evaluate_path(resumed.rebasin, test_loader())
print(f"barrier {before.barrier:.3f} before, {after.barrier:.3f} after")
check(after.barrier < before.barrier / 2, "training more than halves the barrier")
with torch.no_grad():
    same = torch.allclose(resumed.rebasin.eval()(images), target(images), atol=1e-4)
check(same, "the target's function is the same")
