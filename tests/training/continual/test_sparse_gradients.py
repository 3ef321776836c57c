"""Learners, methods and curvature find with sparse gradients of embeddings what they find with dense ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.training import continual
from tests.training.continual.tasks import LEARNERS
from tests.training.fitting import trainer

WORDS, LABELS = torch.randint(11, (24, 5)), torch.randint(3, (24,))


class Bag(nn.Module):
    """Words to classes, through a table that is read by a layer, a bag, or a function."""

    def __init__(self, kind: str, sparse: bool) -> None:
        super().__init__()
        self.kind, self.sparse = kind, sparse
        made = {"layer": nn.Embedding, "bag": nn.EmbeddingBag}.get(kind, nn.Embedding)
        self.table = made(11, 6, sparse=sparse)
        self.hidden, self.out = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, words: Tensor) -> Tensor:
        if self.kind == "function":
            found = F.embedding(words, self.table.weight, sparse=self.sparse).mean(1)
        else:
            found = self.table(words) if self.kind == "bag" else self.table(words).mean(1)
        return self.out(self.hidden(found).relu())


def pair(kind: str, sparse: bool) -> list[Bag]:
    nets = []
    for seed in range(2):
        torch.manual_seed(seed)
        nets.append(Bag(kind, sparse))
    return nets


@pytest.mark.parametrize("at", [None, 0.5, torch.tensor(0.3)])
@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("kind", ["layer", "bag", "function"])
def test_scores_have_the_gradient_of_dense_embeddings(kind: str, rescale: bool, at: Any) -> None:
    gradients = []
    for sparse in (False, True):
        rebasin = sr.SinkhornRebasin(*pair(kind, sparse), WORDS[:2], rescale=rescale)
        F.cross_entropy(rebasin(WORDS, at=at), LABELS).backward()
        gradients.append([p.grad for p in rebasin.parameters()])
    for dense, found in zip(*gradients, strict=True):
        torch.testing.assert_close(found, dense)


@pytest.mark.parametrize("name", sorted(LEARNERS.keys() - {"joint"}))
def test_learners_learn_what_they_learn_with_dense_embeddings(name: str, tmp_path: Path) -> None:
    learned = []
    for sparse in (False, True):
        torch.manual_seed(0)
        options = {"example_inputs": WORDS[:2]} if name in ("rebasin", "distilling") else {}
        made = {
            "rebasin": continual.RebasinLearner,
            "distilling": continual.DistillingRebasinLearner,
        }.get(name, LEARNERS[name])
        learner = made(Bag("layer", sparse), tasks=2, **options)
        for _ in range(2):
            trainer(tmp_path, max_epochs=1).fit(learner, DataLoader(TensorDataset(WORDS, LABELS), 8))
        learned.append(learner.network.state_dict())
    for key, dense in learned[0].items():
        torch.testing.assert_close(learned[1][key], dense, rtol=1e-4, atol=1e-5)


def repaired_loss(
    first: nn.Module, second: nn.Module, spec: sr.PermutationSpec, *, data: Any, criterion: Any
) -> list[float]:
    """The loss at the repaired midpoint, and the sum of the scores' squared gradients."""
    rebasin = sr.SinkhornRebasin(first, second, spec=spec)
    loss = sr.RepairLoss(criterion, sr.RepairAlongPath(first, second, spec, data), 0.5, 0.5)(rebasin, data[0])
    loss.backward()
    return [loss.item(), sum(scores.grad.square().sum().item() for scores in rebasin.scores.values())]


METHODS: dict[str, Callable[..., Any]] = {
    "straight_through": lambda *a, **k: sr.straight_through(*a, epochs=2, **k).objective,
    "sinkhorn_matching": lambda *a, **k: sr.sinkhorn_matching(*a, steps=3, loss="midpoint", **k).objective,
    "repaired": repaired_loss,
}


@pytest.mark.parametrize("name", METHODS)
def test_methods_find_what_they_find_with_dense_embeddings(name: str) -> None:
    found = []
    for sparse in (False, True):
        first, second = pair("layer", sparse)
        spec = sr.discover_symmetry(first, WORDS[:2])
        found.append(METHODS[name](first, second, spec, data=[(WORDS, LABELS)], criterion=F.cross_entropy))
    torch.testing.assert_close(torch.tensor(found[0]), torch.tensor(found[1]))


@pytest.mark.filterwarnings("ignore:torch.func.vmap")
@pytest.mark.parametrize("chunk_size", [1, 8])
@pytest.mark.parametrize("kind", ["layer", "function"])
def test_curvature_is_that_of_dense_embeddings(kind: str, chunk_size: int) -> None:
    found = []
    for sparse in (False, True):
        net = pair(kind, sparse)[0]
        data = [(WORDS, LABELS)]
        fisher = sr.diagonal_fisher(net, data, labels="observed", chunk_size=chunk_size)
        blocks = sr.kronecker_fisher(net, data, labels="observed")
        found.append([*fisher.diagonal.values(), *blocks.diagonal.values()])
    torch.testing.assert_close(found[0], found[1])
