from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sinkhorn_rebasin import SinkhornRebasin, WeightDistance
from sinkhorn_rebasin.assignment.temperature import geometric
from sinkhorn_rebasin.training import RebasinModule, TemperatureAnnealing, data_free_steps
from tests.rebasin.rebasin_problems import inputs, planted
from tests.training.fitting import trainer


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_as_many_steps_as_asked_for(steps: int) -> None:
    assert list(data_free_steps(steps)) == list(range(steps))
    assert len(data_free_steps(steps)) == steps


def test_a_planted_permutation_is_recovered_without_data(tmp_path: Path) -> None:
    reference, target, answer = planted(width=8, seed=5)
    rebasin = SinkhornRebasin(
        reference,
        target,
        inputs("mlp"),
        start="identity",
        noise=0.1,
        generator=torch.Generator().manual_seed(1),
    )
    module = RebasinModule(rebasin, WeightDistance("l2"), lr=0.1)
    fit = trainer(tmp_path, max_epochs=1, callbacks=[TemperatureAnnealing(geometric(1.0, 0.1))])
    fit.fit(module, data_free_steps(150))
    assert fit.global_step == 150
    assert all(torch.equal(rebasin.hard_permutations()[name], answer[name]) for name in answer)
    merged = rebasin.merge().state_dict()
    for name, tensor in reference.state_dict().items():
        torch.testing.assert_close(merged[name], tensor)
