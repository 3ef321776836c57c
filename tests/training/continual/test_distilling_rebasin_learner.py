"""Our variant of re-basin learning against its formula written out anew."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from sinkhorn_rebasin import permute_state
from sinkhorn_rebasin.training.continual import DistillingRebasinLearner
from tests.training import fitting
from tests.training.continual.tasks import EXAMPLE, net, tasks, trainers

POINTS, LABELS = torch.randn(8, 4, generator=torch.Generator().manual_seed(1)), torch.arange(8) % 3


def learner_after_one_task(folder: Path, outputs: int = 3, **options: object) -> DistillingRebasinLearner:
    """A learner that has begun its second task and moved a little in it."""
    learner = DistillingRebasinLearner(net(outputs), 2, EXAMPLE, **options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trainers(folder)().fit(learner, tasks(1)[0])
        learner.begin_task()
        with torch.no_grad():
            for parameter in [*learner.rebasin.scores.values(), *learner.residual.parameters()]:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return learner


@pytest.mark.parametrize("outputs_are", ["shared", "heads", "new in part"])
def test_the_loss_is_its_five_terms(tmp_path: Path, outputs_are: str) -> None:
    options: dict[str, object] = {"distillation_weight": 0.3, "bridge_weight": 0.7, "replay_weight": 2.0}
    options |= {"kept_weight": 1.5, "new_class_factor": 0.4}
    if outputs_are == "heads":
        options["classes"] = [[0, 1, 2], [3, 4, 5]]
    learner = learner_after_one_task(tmp_path, 3 if outputs_are == "shared" else 6, **options)
    memory = learner.memory
    assert memory is not None
    state = memory.generator.get_state()
    replay, (first, second) = memory.draw(8), memory.draw_pairs(8)
    share = torch.rand(8, 1, generator=memory.generator)
    other = memory.draw(8)
    bridge = 0.5 * torch.rand(8, 1, generator=memory.generator)
    memory.generator.set_state(state)

    kept = replay.outputs
    with torch.no_grad():  # What was kept is older than the teacher.
        learner.network[2].weight.mul_(1.1)
    learner.begin_task()
    with torch.no_grad():
        for parameter in [*learner.rebasin.scores.values(), *learner.residual.parameters()]:
            parameter.add_(0.3 * torch.randn_like(parameter))
    old = {name: value.clone() for name, value in learner.network.state_dict().items()}
    soft = permute_state(old, learner.rebasin.spec, learner.rebasin.soft_permutations())
    residual = dict(learner.residual.named_parameters())
    middle = {name: 0.5 * (old[name] + soft[name]) + residual[name] for name in old}

    def outputs(weights: dict, points: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = functional_call(learner.network, weights, points)
        return found

    def drift(points: torch.Tensor) -> torch.Tensor:
        change = outputs(middle, points) - outputs(old, points)
        return change[:, :3].square().mean()  # All that is remembered is of the first task.

    own, new, held, factor = slice(0, 3), LABELS, 8, 1.0
    if outputs_are == "heads":
        new = LABELS + 3
    if outputs_are == "new in part":  # Half of the batch: 0.4 + 0.6 / 2.
        own, new, held, factor = slice(0, 6), torch.where(torch.arange(8) < 4, LABELS, LABELS + 3), 4, 0.7
    between = bridge * POINTS + (1 - bridge) * other.inputs
    columns = slice(3, 6) if outputs_are == "heads" else own
    expected = F.cross_entropy(outputs(middle, POINTS)[:, columns], LABELS if outputs_are == "heads" else new)
    expected = expected + factor * (
        2.0 * F.cross_entropy(outputs(middle, replay.inputs)[:, own], replay.labels)
        + 1.5 * (outputs(middle, replay.inputs) - kept)[:, own].square().mean()
        + 0.3 * drift(share * first.inputs + (1 - share) * second.inputs)
        + 0.7 * held / 8 * drift(between[:held])
    )
    assert drift(POINTS) > 0.01
    torch.testing.assert_close(learner.loss(POINTS, new), expected, rtol=1e-4, atol=1e-5)


def test_new_samples_of_classes_the_teacher_lacks_are_not_held(tmp_path: Path) -> None:
    learner = learner_after_one_task(tmp_path, 6, distillation_weight=0.0, kept_weight=0.0, replay_weight=0.0)
    memory = learner.memory
    assert memory is not None
    state = memory.generator.get_state()

    def losses(labels: torch.Tensor) -> list[torch.Tensor]:
        found = []
        for weight in (0.0, 1.0):
            memory.generator.set_state(state)
            learner.bridge_weight = weight
            found.append(learner.loss(POINTS, labels).detach())
        return found

    without, held = losses(LABELS + 3)
    assert without == held
    without, held = losses(LABELS)
    assert held > without + 0.01


def test_what_is_kept_is_the_midpoint_at_hard_permutations(tmp_path: Path) -> None:
    learner = learner_after_one_task(tmp_path)
    hard = permute_state(
        learner.network.state_dict(), learner.rebasin.spec, learner.rebasin.hard_permutations()
    )
    residual = learner.residual_tensors()
    for name, value in learner.consolidated().items():
        middle = 0.5 * (learner.network.state_dict()[name] + hard[name]) + residual[name]
        torch.testing.assert_close(value, middle.detach())


def test_a_task_begins_at_the_old_function(tmp_path: Path) -> None:
    learner = learner_after_one_task(tmp_path, sharpness=30.0, residual_scale=0.0)
    learner.begin_task()
    with torch.no_grad():
        found = learner.rebasin(POINTS, at=0.5)
    torch.testing.assert_close(found, learner.network(POINTS), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("limits", "last"),
    [
        ({"max_steps": 8}, 0.0),
        ({"max_epochs": 2, "limit_train_batches": 3}, 0.0),
        ({"max_epochs": -1, "max_time": {"seconds": 1}}, 0.004),
    ],
)
def test_the_cosine_ends_with_the_task(tmp_path: Path, limits: dict[str, object], last: float) -> None:
    learner = DistillingRebasinLearner(net(), 2, EXAMPLE)
    trainers(tmp_path)().fit(learner, tasks(1)[0])
    trainer = fitting.trainer(tmp_path, **{"max_epochs": None, **limits})
    trainer.fit(learner, tasks(2)[1])
    assert trainer.optimizers[1].param_groups[0]["lr"] == pytest.approx(last, abs=1e-9)
    assert learner.task == 2


def test_the_residual_slows_down_over_the_task(tmp_path: Path) -> None:
    learner = DistillingRebasinLearner(net(), 2, EXAMPLE)
    for task in tasks(2):
        trainer = trainers(tmp_path)()
        trainer.fit(learner, task)
    scores, residual = trainer.optimizers
    assert scores.param_groups[0]["lr"] == 0.01
    assert residual.param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)
    assert isinstance(residual, torch.optim.AdamW)
