"""Every baseline against its formula written out anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sinkhorn_rebasin.errors import LossError
from sinkhorn_rebasin.training.continual import (
    AveragedGEM,
    ContinualLearner,
    DarkExperienceReplay,
    ElasticWeightConsolidation,
    ExperienceReplay,
    JointTraining,
    LearningWithoutForgetting,
    StableSGD,
)
from sinkhorn_rebasin.training.continual.averaged_gradient import projected
from tests.training.continual.tasks import LEARNERS, net, tasks, trainers

POINTS, LABELS = torch.randn(8, 4, generator=torch.Generator().manual_seed(1)), torch.arange(8) % 3


def after_one_task(learner: ContinualLearner, folder: Path) -> ContinualLearner:
    """The learner with one task learned."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trainers(folder)().fit(learner, tasks(1)[0])
    return learner


def draws(learner: ContinualLearner, count: int) -> list[Any]:
    """What the memory will draw next, without drawing it."""
    assert learner.memory is not None
    state = learner.memory.generator.get_state()
    drawn = [learner.memory.draw(len(LABELS)) for _ in range(count)]
    learner.memory.generator.set_state(state)
    return drawn


def test_replay_adds_the_loss_of_what_it_draws(tmp_path: Path) -> None:
    learner = after_one_task(ExperienceReplay(net(), 2, replay_weight=0.5), tmp_path)
    (drawn,) = draws(learner, 1)
    expected = F.cross_entropy(learner.network(POINTS), LABELS)
    expected = expected + 0.5 * F.cross_entropy(learner.network(drawn.inputs), drawn.labels)
    torch.testing.assert_close(learner.loss(POINTS, LABELS), expected)


def test_dark_replay_keeps_outputs_and_labels(tmp_path: Path) -> None:
    options = {"distillation_weight": 0.3, "replay_weight": 0.7}
    learner = after_one_task(DarkExperienceReplay(net(), 2, **options), tmp_path)
    with torch.no_grad():
        learner.network[0].weight.mul_(1.5)
    dark, labelled = draws(learner, 2)
    drift = (learner.network(dark.inputs) - dark.outputs).square().mean()
    expected = (
        F.cross_entropy(learner.network(POINTS), LABELS)
        + 0.3 * drift
        + 0.7 * F.cross_entropy(learner.network(labelled.inputs), labelled.labels)
    )
    assert drift > 0.005
    torch.testing.assert_close(learner.loss(POINTS, LABELS), expected)


def test_dark_replay_of_heads_is_the_mean_over_each_samples_own_outputs(tmp_path: Path) -> None:
    options = {"distillation_weight": 0.3, "replay_weight": 0.7, "classes": [[0, 1, 2], [3, 4, 5, 6, 7]]}
    learner = after_one_task(DarkExperienceReplay(net(8), 2, **options), tmp_path)
    with torch.no_grad():
        learner.network[0].weight.mul_(1.5)
    dark, labelled = draws(learner, 2)
    drift = (learner.network(dark.inputs) - dark.outputs)[:, :3].square().mean()
    expected = (
        F.cross_entropy(learner.network(POINTS)[:, 3:], LABELS)
        + 0.3 * drift
        + 0.7 * F.cross_entropy(learner.network(labelled.inputs)[:, :3], labelled.labels)
    )
    assert drift > 0.005
    torch.testing.assert_close(learner.loss(POINTS, LABELS + 3), expected)


@pytest.mark.parametrize("name", ["der++", "rebasin", "distilling"])
def test_kept_outputs_are_those_of_the_network_that_learned_the_task(name: str, tmp_path: Path) -> None:
    learner = LEARNERS[name](net(norm=True), 2)
    assert learner.memory is not None
    for number, task in enumerate(tasks(2)):
        trainers(tmp_path)().fit(learner, task)
        learner.network.eval()
        for part in learner.memory.everything():
            own = part.tasks == number
            torch.testing.assert_close(learner.network(part.inputs)[own], part.outputs[own])
        learner.network.train()


def test_a_gem_projects_where_gradients_disagree() -> None:
    generator = torch.Generator().manual_seed(0)
    for sign in (-1.0, 1.0):
        gradient = [torch.randn(3, 2, generator=generator), torch.randn(4, generator=generator)]
        reference = [torch.randn(3, 2, generator=generator) + sign * gradient[0], sign * gradient[1]]
        result = projected(gradient, reference)
        flat, old, ref = (torch.cat([t.flatten() for t in each]) for each in (result, gradient, reference))
        if sign > 0:
            assert torch.equal(flat, old)
            continue
        # The closest vector that does not point against the reference is at right angles to it.
        assert old @ ref < 0
        assert float(flat @ ref) == pytest.approx(0, abs=1e-4)
        torch.testing.assert_close(flat, old - (old @ ref) / (ref @ ref) * ref)
    zero = [torch.zeros(2)]
    assert torch.equal(projected([torch.ones(2)], zero)[0], torch.ones(2))


def test_a_gem_steps_along_the_projected_gradient(tmp_path: Path) -> None:
    learner = AveragedGEM(net(), 2, lr=0.1, momentum=0.0)
    seen: list[tuple[Tensor, Tensor]] = []

    def step(inputs: Tensor, labels: Tensor) -> Tensor:
        before = torch.cat([p.detach().flatten().clone() for p in learner.network.parameters()])
        loss = AveragedGEM.learn(learner, inputs, labels)
        after = torch.cat([p.detach().flatten() for p in learner.network.parameters()])
        if learner._reference:
            reference = torch.cat([g.flatten() for g in learner._reference])
            seen.append((before - after, reference))
        return loss

    learner.learn = step  # type: ignore[method-assign]
    for task in tasks(2):
        trainers(tmp_path)().fit(learner, task)
    assert len(seen) > 5
    assert all(move @ reference > -1e-5 for move, reference in seen)


def test_ewc_penalty_is_the_sum_of_the_springs_of_all_tasks(tmp_path: Path) -> None:
    learner = ElasticWeightConsolidation(net(), 3, penalty=2.0, fisher_samples=30)
    springs: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []
    fisher = learner.fisher

    def noted() -> dict[str, Tensor]:
        found = fisher()
        springs.append((found, {n: p.detach().clone() for n, p in learner.network.named_parameters()}))
        return found

    learner.fisher = noted  # type: ignore[method-assign]
    for task in tasks(2):
        trainers(tmp_path)().fit(learner, task)
    with torch.no_grad():
        for parameter in learner.network.parameters():
            parameter.add_(0.1)
    by_hand = torch.stack(
        [
            (f[name] * (parameter - place[name]).square()).sum()
            for f, place in springs
            for name, parameter in learner.network.named_parameters()
        ]
    ).sum()
    expected = torch.autograd.grad(by_hand, list(learner.network.parameters()))
    found = torch.autograd.grad(learner.energy(), list(learner.network.parameters()))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    loss = learner.loss(POINTS, LABELS)
    torch.testing.assert_close(
        loss, F.cross_entropy(learner.network(POINTS), LABELS) + 0.5 * 2.0 * learner.energy()
    )


def test_ewc_fisher_information_of_a_linear_model(tmp_path: Path) -> None:
    """For one logit layer it is known in closed form: E[(p_k (1 - p_k)) x²] for a class k's weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        learner = ElasticWeightConsolidation(nn.Linear(4, 2), 2, fisher_samples=4000)
        task = tasks(1)[0]
        make = trainers(tmp_path, epochs=1)()
        task.train_set.tensors = (
            task.train_set.tensors[0].repeat(80, 1),
            task.train_set.tensors[1].clamp(max=1).repeat(80),
        )
        found: list[dict[str, Tensor]] = []
        fisher = learner.fisher
        learner.fisher = lambda: found.append(fisher()) or found[-1]  # type: ignore[assignment,func-returns-value]
        make.fit(learner, task)
    points = task.train_set.tensors[0]
    share = learner.network(points).softmax(dim=1)[:, 0].detach()
    expected = ((share * (1 - share))[:, None] * points.square()).mean(dim=0)
    torch.testing.assert_close(found[0]["weight"][0], expected, rtol=0.25, atol=0.01)


def test_lwf_keeps_the_old_answers_to_new_inputs(tmp_path: Path) -> None:
    learner = LearningWithoutForgetting(net(), 2, distillation_weight=0.5, softness=2.0)
    after_one_task(learner, tmp_path)
    learner.begin_task()
    old = learner.network(POINTS).detach()
    with torch.no_grad():
        learner.network[2].weight.mul_(1.5)
    new = learner.network(POINTS)
    distance = -((old / 2).softmax(1) * (new / 2).log_softmax(1)).sum(dim=1).mean()
    torch.testing.assert_close(learner.loss(POINTS, LABELS), F.cross_entropy(new, LABELS) + 0.5 * distance)


def test_lwf_keeps_the_answers_of_earlier_heads(tmp_path: Path) -> None:
    learner = LearningWithoutForgetting(net(6), 2, classes=[[0, 1, 2], [3, 4, 5]])
    after_one_task(learner, tmp_path)
    learner.begin_task()
    old = learner.network(POINTS).detach()
    with torch.no_grad():
        learner.network[2].weight.mul_(1.5)
    new = learner.network(POINTS)
    distance = -((old[:, :3] / 2).softmax(1) * (new[:, :3] / 2).log_softmax(1)).sum(dim=1).mean()
    expected = F.cross_entropy(new[:, 3:], LABELS) + distance
    torch.testing.assert_close(learner.loss(POINTS, LABELS + 3), expected)


def test_lwf_asks_the_old_network_nothing_of_classes_it_has_not_met(tmp_path: Path) -> None:
    learner = after_one_task(LearningWithoutForgetting(net(6), 2), tmp_path)
    copy = LearningWithoutForgetting(net(6), 2)
    copy.load_state_dict(learner.state_dict())
    for each in (learner, copy):
        each.begin_task()
        old = each.network(POINTS).detach()
        with torch.no_grad():
            each.network[2].weight.mul_(1.5)
        new = each.network(POINTS)
        distance = -((old[:, :3] / 2).softmax(1) * (new[:, :3] / 2).log_softmax(1)).sum(dim=1).mean()
        expected = F.cross_entropy(new, LABELS + 3) + distance
        torch.testing.assert_close(each.loss(POINTS, LABELS + 3), expected)


def test_stable_sgd_slows_down(tmp_path: Path) -> None:
    learner = after_one_task(StableSGD(net(), 3, lr=0.2, decay=0.5), tmp_path)
    (optimizer,) = learner.configure_optimizers()
    (group,) = optimizer.param_groups
    assert (group["lr"], group["momentum"]) == (0.1, 0.0)


def test_joint_training_takes_no_single_task() -> None:
    with pytest.raises(LossError, match="AllTasks"):
        JointTraining(net(), 2).loss(POINTS, LABELS)


def test_joint_training_makes_a_step_for_every_task_on_mixed_batches(tmp_path: Path) -> None:
    seen: list[Tensor] = []

    class Watched(JointTraining):
        def task_loss(self, outputs: Tensor, labels: Tensor, tasks: Tensor | int) -> Tensor:
            assert isinstance(tasks, Tensor)
            seen.append(tasks.clone())
            return super().task_loss(outputs, labels, tasks)

    learner = Watched(net(), 3, cosine=True)
    (_, everything) = learner.curriculum(tasks(3))[0]
    trainer = trainers(tmp_path)()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trainer.fit(learner, everything)
    assert len(seen) == 3 * 6 * 2  # tasks, batches of an epoch, epochs
    assert {len(part) for part in seen} == {8}
    for batch in range(0, len(seen), 3):
        assert torch.equal(torch.cat(seen[batch : batch + 3]).bincount(), torch.tensor([8, 8, 8]))
    assert sum(len(part.unique()) > 1 for part in seen) > 30
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)
