"""Dicts with labels inside, for networks that report a loss, do as pairs do with such a criterion."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.connectivity.evaluate_path import evaluate_state
from sinkhorn_rebasin.matching.midpoint import Midpoint
from tests.data_takers import fitted
from tests.symmetry.attention_networks import LanguageModel, ModelOutput, tokens

# vmap has no rule for fused attention, and says so once.
pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")


def reporting(logits: Tensor, kept: Any, loss: Tensor | None) -> Any:
    named = {"loss": loss, "logits": logits, "kept": kept}
    return ModelOutput((name, value) for name, value in named.items() if value is not None)


def next_token(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


class Problem:
    """Two networks, their symmetries, batches, and what is measured on them."""

    def __init__(self, returned: Callable[..., Any], batches: list[Any], **criterion: Any) -> None:
        torch.manual_seed(0)
        self.pair = tuple(LanguageModel(returned).eval() for _ in range(2))
        self.spec = sr.discover_symmetry(self.pair[0], tokens())
        self.batches, self.criterion = batches, criterion

    def rebasin(self) -> sr.SinkhornRebasin:
        return sr.SinkhornRebasin(*self.pair, spec=self.spec)


@cache
def problems() -> tuple[Problem, Problem, Problem]:
    """With dicts that hold labels, with dicts of another kind, and with pairs and a criterion."""
    ids = [tokens(seed) for seed in range(3)]
    dicts = [{"input_ids": part, "labels": part.clone()} for part in ids]
    return (
        Problem(reporting, dicts),
        Problem(reporting, [UserDict(batch) for batch in dicts]),
        Problem(lambda logits, *_: logits, [(part, part.clone()) for part in ids], criterion=next_token),
    )


def loss_of(kind: Callable[..., Any]) -> Callable[[Problem], Any]:
    def value(problem: Problem) -> Any:
        rebasin = problem.rebasin()
        loss = kind(problem)(rebasin, problem.batches[0])
        loss.backward()
        return [loss.detach(), *(scores.grad for scores in rebasin.scores.values())]

    return value


def repaired(problem: Problem) -> Any:
    repair = sr.RepairAlongPath(*problem.pair, problem.spec, problem.batches)
    return sr.RepairLoss(problem.criterion.get("criterion", sr.task_loss), repair, 0.5, 0.5)


def continual(problem: Problem) -> Any:
    rebasin = sr.SinkhornRebasin(problem.pair[0], problem.pair[0], spec=problem.spec, start="identity")
    batches = problem.batches
    return sr.ContinualLoss(**problem.criterion)(rebasin, {}, batches[0], batches[1]).detach()


def monitored(problem: Problem) -> Any:
    monitor = sr.training.BarrierMonitor(
        problem.batches, points=3, repair=problem.batches, **problem.criterion
    )
    loss = sr.MidpointLoss(**problem.criterion)
    module = sr.training.RebasinModule(problem.rebasin(), loss, **problem.criterion)
    state = fitted(module, problem.batches, monitor)
    losses = [evaluation.losses for _, evaluation in monitor.history]
    return [*losses, *(value for name, value in state.items() if name.startswith("rebasin.scores"))]


def validated(problem: Problem) -> Any:
    module = sr.training.RebasinModule(
        problem.rebasin(), sr.WeightDistance("l2"), points=3, **problem.criterion
    )
    module.on_validation_epoch_start()
    for number, batch in enumerate(problem.batches):
        module.validation_step(batch, number)
    return [module.val_barrier.compute(), module.val_auc.compute(), module.val_midpoint_loss.compute()]


def aligned(problem: Problem) -> Any:
    recipe = sr.Recipe(steps=4, cycles=1, closing_steps=0, evaluate_every=4, points=3)
    result = sr.align(
        *problem.pair, problem.batches, spec=problem.spec, rescale=False, recipe=recipe, **problem.criterion
    )
    return [result.before.losses, result.after.losses]


def merged(problem: Problem) -> Any:
    state = problem.rebasin().merge(0.5, repair=problem.batches).state_dict()
    return list(state.values())


def matched(problem: Problem) -> Any:
    moving = sr.activation_matching(*problem.pair, problem.spec, data=problem.batches)
    fixed = sr.weight_matching(*problem.pair, problem.spec)
    return [*moving.permutations.values(), *fixed.permutations.values()]


def fisher(function: Callable[..., Any], labels: str) -> Callable[[Problem], Any]:
    def trace(problem: Problem) -> Any:
        found = function(problem.pair[0], problem.batches, labels=labels, **problem.criterion)
        return torch.tensor(found.trace())

    return trace


TAKERS: dict[str, Callable[[Problem], Any]] = {
    "MidpointLoss": loss_of(lambda problem: sr.MidpointLoss(**problem.criterion)),
    "RandomPointLoss": loss_of(lambda problem: sr.RandomPointLoss(low=0.3, high=0.3, **problem.criterion)),
    "RepairLoss": loss_of(repaired),
    "ContinualLoss": continual,
    "BarrierMonitor": monitored,
    "RebasinModule": validated,
    "align": aligned,
    "merge": merged,
    "matching": matched,
    "diagonal_fisher": fisher(sr.diagonal_fisher, "observed"),
    "kronecker_fisher": fisher(sr.kronecker_fisher, "observed"),
    "evaluate_path": lambda p: sr.evaluate_path(p.pair, p.batches, points=3, **p.criterion).losses,
}


@pytest.mark.parametrize("name", TAKERS)
def test_a_loss_that_the_network_reports_is_that_of_a_criterion(name: str) -> None:
    dicts, others, pairs = problems()
    expected = TAKERS[name](pairs)
    torch.testing.assert_close(TAKERS[name](dicts), expected, rtol=2e-4, atol=1e-6)
    if name in ("MidpointLoss", "evaluate_path", "diagonal_fisher"):
        torch.testing.assert_close(TAKERS[name](others), expected, rtol=2e-4, atol=1e-6)


def test_the_midpoint_of_matching_takes_the_reported_loss() -> None:
    dicts, _, pairs = problems()
    still = sr.identity_permutations(pairs.spec)
    expected = Midpoint(*pairs.pair, pairs.spec, pairs.batches, next_token).loss(still)
    found = Midpoint(*dicts.pair, dicts.spec, dicts.batches, lambda out, _: out.loss).loss(still)
    assert found == pytest.approx(expected, rel=1e-5)


def test_next_tokens_are_counted_once_however_they_lie_in_batches() -> None:
    model = LanguageModel(reporting).eval()
    ids = tokens(0, samples=6)
    labels = ids.masked_fill(torch.arange(5) > torch.tensor([[4], [4], [2], [1], [1], [4]]), -100)
    whole = {"input_ids": ids, "labels": labels}
    parts = [{name: value[rows] for name, value in whole.items()} for rows in (slice(0, 2), slice(2, 6))]
    with torch.no_grad():
        logits = model(ids)["logits"][:, :-1]
        counted = labels[:, 1:] >= 0
        expected = F.cross_entropy(logits[counted], labels[:, 1:][counted]).item()
        right = (logits.argmax(-1) == labels[:, 1:])[counted].float().mean().item()
    for batches in ([whole], parts):
        loss, accuracy = evaluate_state(model, dict(model.named_parameters()), batches)
        assert loss == pytest.approx(expected, rel=1e-5)
        assert accuracy == pytest.approx(right)


def test_labels_are_drawn_from_the_logits_of_tokens() -> None:
    dicts, _, pairs = problems()
    model, plain = dicts.pair[0], pairs.pair[0]
    for labels in ("sampled", "observed"):
        assert sr.diagonal_fisher(model, dicts.batches, labels=labels).samples == 9

    def each(logits: Tensor, drawn: Tensor) -> Tensor:
        return F.cross_entropy(logits.movedim(-1, 1), drawn)

    for function in (sr.diagonal_fisher, sr.kronecker_fisher):
        expected = function(plain, [ids for ids, _ in pairs.batches], each, class_axis=-1).trace()
        assert function(model, dicts.batches).trace() == pytest.approx(expected, rel=1e-4)


def test_classes_of_sequences_have_an_accuracy() -> None:
    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(3, 6), nn.Linear(6, 4)

        def forward(self, x: Tensor, labels: Tensor | None = None) -> ModelOutput:
            logits = self.head(self.body(x).tanh())
            loss = {} if labels is None else {"loss": F.cross_entropy(logits, labels)}
            return ModelOutput(**loss, logits=logits)

    model, x, labels = Classifier(), torch.randn(8, 3), torch.randint(4, (8,))
    loss, accuracy = evaluate_state(model, dict(model.named_parameters()), [{"x": x, "labels": labels}])
    logits = model(x)["logits"].detach()
    assert loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert accuracy == pytest.approx((logits.argmax(1) == labels).float().mean().item())
