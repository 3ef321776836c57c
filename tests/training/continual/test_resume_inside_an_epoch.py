"""A task that was stopped inside an epoch ends as one that was not, whatever the method."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from sinkhorn_rebasin.training.continual import ContinualLearner
from tests.training.continual.tasks import LEARNERS, Task, net, trainers, weights_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch"),
    pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization:UserWarning"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning"),
]


@pytest.mark.parametrize("name", [name for name in LEARNERS if name != "joint"])
def test_resumed_from_some_steps_of_the_second_task(name: str, tmp_path: Path) -> None:
    def fresh() -> ContinualLearner:
        return LEARNERS[name](net(norm=name == "rebasin"), 3)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        whole = fresh()
        trainers(tmp_path)().fit(whole, datamodule=Task(0))
        saving = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
        trainers(tmp_path, saving)().fit(whole, datamodule=Task(1))
        after = torch.get_rng_state()
        files = sorted(tmp_path.glob("*.ckpt"), key=lambda file: int(file.stem.split("=")[1]))
        for file in (files[1], files[5], files[-3]):
            torch.manual_seed(77)
            resumed = fresh()
            resumed.load_state_dict(torch.load(file, weights_only=True)["state_dict"])
            trainers(tmp_path)().fit(resumed, datamodule=Task(1), ckpt_path=file)
            assert resumed.task == 2
            for key, value in weights_of(whole).items():
                assert torch.equal(value, resumed.network.state_dict()[key]), (file.stem, key)
            assert torch.equal(after, torch.get_rng_state())
