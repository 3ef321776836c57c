"""Recovery against a plain count."""

import torch

from sinkhorn_rebasin.metrics import PermutationRecovery
from tests.metrics.tester import MetricTester


class TestPermutationRecovery(MetricTester):
    def metric(self) -> PermutationRecovery:
        return PermutationRecovery()

    def batches(self) -> list[tuple]:
        truth = {"a": torch.tensor([2, 0, 1]), "b": torch.tensor([[1, 0], [0, 1]])}
        wrong = {"a": torch.tensor([2, 1, 0]), "b": torch.tensor([[0, 1], [0, 1]])}
        return [
            (truth, truth),
            (wrong, truth),
            (torch.tensor([0, 1, 2, 3]), torch.tensor([3, 2, 1, 0])),
            (torch.tensor([1, 0]), torch.tensor([1, 0])),
        ]

    def witness(self, batches: list[tuple]) -> dict[str, float]:
        def flat(permutations: dict | torch.Tensor) -> list[int]:
            groups = permutations.values() if isinstance(permutations, dict) else [permutations]
            return [index for group in groups for index in group.flatten().tolist()]

        rows = [[a == b for a, b in zip(flat(e), flat(t), strict=True)] for e, t in batches]
        return {
            "recovered": sum(map(sum, rows)) / sum(map(len, rows)),
            "exact": sum(map(all, rows)) / len(rows),
        }


def test_nothing_to_permute_is_recovered() -> None:
    metric = PermutationRecovery()
    metric.update({}, {})
    assert {name: value.item() for name, value in metric.compute().items()} == {"recovered": 1, "exact": 1}
