"""Evaluating paths against parabolas worked out by hand and against plain loops."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sinkhorn_rebasin.connectivity import LinearPath, evaluate_path, evaluate_state
from sinkhorn_rebasin.connectivity.evaluate_path import as_curve
from sinkhorn_rebasin.errors import ArchitectureError, DataError, LossError


def classifier(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))


def batches(sizes: tuple[int, ...] = (5, 2, 8), seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(n, 4, generator=generator), torch.randint(3, (n,), generator=generator)) for n in sizes
    ]


def test_linear_regression_has_a_known_parabola() -> None:
    """Mean squared error of w·x against v·x on white inputs is |w(λ) − v|², here with three equal batches."""
    start, end = nn.Linear(2, 1, bias=False).double(), nn.Linear(2, 1, bias=False).double()
    first, last, truth = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 6.0]]), torch.tensor([[1.0, 1.0]])
    with torch.no_grad():
        start.weight.copy_(first)
        end.weight.copy_(last)
    x = 2**0.5 * torch.eye(2, dtype=torch.float64)
    data = [(x, x @ truth.T.double())] * 3
    path = evaluate_path((start, end), data, F.mse_loss, points=11)
    for position, loss in zip(path.positions.tolist(), path.losses.tolist(), strict=True):
        expected = (2 * (1 - position) - 1) ** 2 + (6 * position - 1) ** 2
        assert loss == pytest.approx(expected, abs=1e-12)
    assert path.accuracies is None
    assert path.barrier == 0.0
    assert path.endpoints == pytest.approx((2.0, 26.0))


def test_a_concave_criterion_has_a_known_barrier() -> None:
    """The product a·b with (a, b) from (1, 0) to (0, 1) is λ(1−λ): a bump of height ¼ and area ⅙."""

    class Product(nn.Module):
        def __init__(self, a: float, b: float) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(torch.tensor(a)), nn.Parameter(torch.tensor(b))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a * self.b * x

    data = [(torch.ones(4), torch.zeros(4))]
    pair = Product(1.0, 0.0), Product(0.0, 1.0)
    path = evaluate_path(pair, data, lambda y, _: y.mean(), points=101)
    assert path.barrier == pytest.approx(0.25, abs=1e-6)
    assert path.auc == pytest.approx(1 / 6, abs=1e-4)
    assert path.midpoint_loss == pytest.approx(0.25, abs=1e-6)


def test_equals_a_loop_over_modules_and_samples() -> None:
    start, end = classifier(0), classifier(1)
    data = batches()
    inputs, labels = (torch.cat(parts) for parts in zip(*data, strict=True))
    path = evaluate_path((start, end), data, points=5)
    curve = LinearPath.between(start, end)
    for index, position in enumerate(path.positions.tolist()):
        with torch.no_grad():
            outputs = curve.module_at(position).eval()(inputs)
        right = sum(int(row.argmax()) == int(label) for row, label in zip(outputs, labels, strict=True))
        each = [F.cross_entropy(row, label).item() for row, label in zip(outputs, labels, strict=True)]
        assert path.losses[index].item() == pytest.approx(sum(each) / len(each), rel=1e-6)
        assert path.accuracies is not None
        assert path.accuracies[index].item() == right / len(each)


def test_nothing_is_changed() -> None:
    start, end = classifier(0).train(), classifier(1).eval()
    start[1].eval()
    nets = start, end
    before = [copy.deepcopy(net.state_dict()) for net in nets]
    modes = [[child.training for child in net.modules()] for net in nets]
    loader = DataLoader(TensorDataset(*batches((12,))[0]), batch_size=4, shuffle=True)
    torch.manual_seed(3)
    random_state = torch.get_rng_state()
    evaluate_path(nets, loader, points=3)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [[child.training for child in net.modules()] for net in nets] == modes
    for net, state in zip(nets, before, strict=True):
        torch.testing.assert_close(net.state_dict(), state, rtol=0, atol=0)
        assert all(parameter.requires_grad and parameter.grad is None for parameter in net.parameters())
    assert torch.is_grad_enabled()


def test_every_position_sees_the_same_samples() -> None:
    """A shuffling loader that drops the rest would otherwise make a flat path look rough."""
    net = classifier(0)
    loader = DataLoader(TensorDataset(*batches((13,))[0]), batch_size=5, shuffle=True, drop_last=True)
    path = evaluate_path((net, copy.deepcopy(net)), loader, points=7)
    assert path.losses.unique().numel() == 1


def test_prepare_is_called_at_every_position_and_used() -> None:
    seen = []

    def prepare(module: nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        assert not module.training
        seen.append(state["4.bias"].clone())
        return {**state, "4.weight": torch.zeros(3, 8), "4.bias": torch.zeros(3)}

    pair = classifier(0), classifier(1)
    path = evaluate_path(pair, batches(), points=3, prepare=prepare)
    torch.testing.assert_close(torch.stack(seen)[1], (pair[0][4].bias + pair[1][4].bias) / 2)
    torch.testing.assert_close(path.losses, torch.full((3,), 3.0).log().double())


def test_everything_that_counts_as_a_path() -> None:
    pair = classifier(0), classifier(1)
    curve = LinearPath.between(*pair)

    class Trained(nn.Module):
        def path(self) -> LinearPath:
            return curve

    results = [evaluate_path(path, batches(), points=3) for path in (pair, list(pair), curve, Trained())]
    assert all(torch.equal(result.losses, results[0].losses) for result in results)
    with pytest.raises(ArchitectureError, match="pair of networks but got Linear"):
        as_curve(nn.Linear(2, 2))
    with pytest.raises(ArchitectureError, match="'weight'"):
        as_curve((nn.Linear(2, 2), nn.Linear(3, 2)))


def test_tuple_and_dict_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.layer(x - y)

    x, y, labels = torch.randn(6, 2), torch.randn(6, 2), torch.randint(2, (6,))
    pair = Two(), Two()
    results = [
        evaluate_path(pair, [(inputs, labels)], points=3) for inputs in ((x, y), [x, y], {"y": y, "x": x})
    ]
    assert all(torch.equal(result.losses, results[0].losses) for result in results)


def test_accuracy_only_where_it_means_something() -> None:
    state = {"weight": torch.ones(2, 2), "bias": torch.zeros(2)}
    net, x = nn.Linear(2, 2), torch.randn(4, 2)
    assert evaluate_state(net, state, [(x, torch.zeros(4, dtype=torch.long))])[1] == 1.0
    assert evaluate_state(net, state, [(x, torch.full((4, 2), 0.5))])[1] is None
    assert evaluate_state(net, state, [(x, torch.zeros(4, 2))], F.mse_loss)[1] is None


def test_progress_shows_and_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    pair = classifier(0), classifier(1)
    plain = evaluate_path(pair, batches(), points=3)
    assert capsys.readouterr().out == ""
    shown = evaluate_path(pair, batches(), points=3, progress=True)
    assert torch.equal(plain.losses, shown.losses)


def test_errors() -> None:
    pair = classifier(0), classifier(1)
    data = batches()
    with pytest.raises(DataError, match="dataloader is empty"):
        evaluate_path(pair, [])
    with pytest.raises(DataError, match="one-shot iterator"):
        evaluate_path(pair, iter(data))
    with pytest.raises(DataError, match=r"odd number of points.*got 10"):
        evaluate_path(pair, data, points=10)
    with pytest.raises(DataError, match=r"odd number of points.*got 1"):
        evaluate_path(pair, data, points=1)
    with pytest.raises(DataError, match=r"pair \(inputs, labels\)"):
        evaluate_path(pair, [data[0][0]])
    with pytest.raises(LossError, match=r"one number per batch but got shape \(5,\)"):
        evaluate_path(pair, data, lambda y, labels: F.cross_entropy(y, labels, reduction="none"))


def test_several_labels_of_a_sample_count_in_equal_parts() -> None:
    scores = torch.zeros(3, 2, 4)  # three samples, two classes, four places: always the first class
    labels = torch.tensor([[0, 0, 0, 0], [0, 0, 1, 1], [1, 1, 1, 0]])
    batches = [(scores[:1], labels[:1]), (scores[1:], labels[1:])]
    loss, accuracy = evaluate_state(nn.Identity(), {}, batches)
    assert accuracy == pytest.approx(7 / 12)
    assert loss == pytest.approx(0.6931, abs=1e-4)


def test_a_complex_loss_is_refused() -> None:
    ends = nn.Linear(3, 2, dtype=torch.complex64), nn.Linear(3, 2, dtype=torch.complex64)
    batch = torch.ones(4, 3, dtype=torch.complex64), torch.ones(4, 2)
    with pytest.raises(LossError, match=r"real loss but got torch\.complex64: take the \.abs\(\)"):
        evaluate_path(ends, [batch], criterion=lambda outputs, labels: (outputs - labels).mean())
