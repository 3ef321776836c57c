"""What networks say together takes the place of labels."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import ArchitectureError, DataError

INPUTS = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
SHORT = sr.Recipe(steps=30, cycles=1, closing_steps=10, evaluate_every=10, trials=1)


def network(seed: int, outputs: int = 3) -> nn.Sequential:
    """A network with batch norm, which must not move, and dropout, which must draw nothing."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, outputs)
        )


class Drawing(nn.Module):
    """Draw a number in every mode, and return what comes in."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 0 * torch.rand(())


def said_by_hand(networks: list[nn.Sequential], inputs: Tensor = INPUTS) -> Tensor:
    return torch.stack([net.eval()(inputs).softmax(1) for net in networks]).mean(0).detach()


def test_targets_are_the_mean_of_probabilities_and_nothing_is_changed() -> None:
    networks, before = [network(seed) for seed in range(3)], torch.get_rng_state()
    states = [{name: tensor.clone() for name, tensor in net.state_dict().items()} for net in networks]
    drawing = [nn.Sequential(net, Drawing()) for net in networks]
    inputs, targets = sr.EnsembleTargets(drawing)((INPUTS, torch.zeros(6)))
    assert inputs is INPUTS
    assert not targets.requires_grad
    assert torch.equal(torch.get_rng_state(), before)
    for net, state in zip(networks, states, strict=True):
        assert net.training
        assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())
        assert all(parameter.requires_grad and parameter.grad is None for parameter in net.parameters())
    torch.testing.assert_close(targets, said_by_hand(networks))


def test_the_mean_of_outputs_has_any_shape() -> None:
    networks = [nn.Conv1d(2, 3, 3), nn.Conv1d(2, 3, 3)]
    inputs = torch.randn(4, 2, 7)
    found = sr.EnsembleTargets(networks, probabilities=False)(inputs)[1]
    torch.testing.assert_close(found, (networks[0](inputs) + networks[1](inputs)).detach() / 2)


class Reporting(nn.Module):
    """Return its own loss where it is given labels, as networks of Hugging Face do."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.inner = network(seed)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> OrderedDict[str, Tensor]:
        logits = self.inner(x)
        loss = {} if labels is None else {"loss": F.cross_entropy(logits, labels)}
        return OrderedDict(logits=logits, **loss)


def test_labels_in_a_dict_are_not_shown_to_networks_that_would_learn_from_them() -> None:
    networks = [Reporting(seed) for seed in range(2)]
    inputs, targets = sr.EnsembleTargets(networks)({"x": INPUTS, "labels": torch.zeros(6).long()})
    assert list(inputs) == ["x"]
    torch.testing.assert_close(targets, said_by_hand([each.inner for each in networks]))


class Summing(nn.Module):
    """Take two inputs, of which one has a name that labels may have too."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.inner = network(seed)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        found: Tensor = self.inner(x if y is None else x + y)
        return found


def test_an_input_with_a_name_that_labels_may_have_is_kept() -> None:
    networks = [Summing(seed) for seed in range(2)]
    given = {"x": INPUTS, "y": torch.ones(6, 5)}
    inputs, targets = sr.EnsembleTargets(networks)((given, torch.zeros(6)))
    assert list(inputs) == ["x", "y"]
    torch.testing.assert_close(targets, said_by_hand([each.inner for each in networks], INPUTS + 1))


class Needing(Reporting):
    """Answer with labels alone."""

    def forward(self, x: Tensor, labels: Tensor) -> OrderedDict[str, Tensor]:  # type: ignore[override]
        return super().forward(x, labels)


def test_networks_that_need_labels_are_refused() -> None:
    with pytest.raises(
        DataError, match="answer without labels but Needing needs them among its inputs: give"
    ):
        sr.EnsembleTargets([Needing(0)])({"x": INPUTS, "labels": torch.zeros(6).long()})


def test_networks_are_aligned_to_what_they_say_together_without_labels() -> None:
    torch.manual_seed(0)
    first, other = (nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(2))
    with torch.no_grad():
        first[-1].weight.mul_(8)
    spec = sr.discover_symmetry(first, INPUTS)
    planted = sr.random_permutations(spec, generator=torch.Generator().manual_seed(1))
    other.load_state_dict(sr.permute_state(first.state_dict(), spec, planted))
    batches, held_out = list(torch.randn(128, 5).split(16)), torch.randn(64, 5)
    result = sr.align(
        *(first, other, batches, [held_out]),
        batch=sr.EnsembleTargets([first, other]),
        recipe=SHORT,
        progress=False,
        trainer={"accelerator": "cpu"},
    )
    assert result.before is not None
    assert result.after is not None
    # Halfway the aligned pair answers as both do: the loss is the entropy of their answers, which is the least.
    answers = said_by_hand([first], held_out)
    torch.testing.assert_close(said_by_hand([result.to_model()], held_out), answers)
    entropy = float(torch.distributions.Categorical(answers).entropy().mean())
    assert result.after.midpoint_loss == pytest.approx(entropy, rel=1e-5)
    assert result.after.barrier == pytest.approx(0.0, abs=1e-5)
    assert result.before.barrier > 0.05


def test_bad_networks_and_outputs_are_refused_by_name() -> None:
    with pytest.raises(
        ArchitectureError, match=r"Expected a list of networks that answer but got none: pass \["
    ):
        sr.EnsembleTargets([])
    with pytest.raises(ArchitectureError, match="that answer but got Linear"):
        sr.EnsembleTargets(nn.Linear(2, 2))  # type: ignore[arg-type]
    with pytest.raises(ArchitectureError, match="Expected network 1 to be a module"):
        sr.EnsembleTargets([network(0), {}])  # type: ignore[list-item]
    with pytest.raises(ArchitectureError, match=r"network 0 gives \(6, 3\) and network 1 \(6, 4\)"):
        sr.EnsembleTargets([network(0), network(1, outputs=4)])(INPUTS)
    with pytest.raises(
        DataError, match=r"network 0 to answer with scores of classes.*\(4, 3, 5\): pass prob"
    ):
        sr.EnsembleTargets([nn.Conv1d(2, 3, 3)])(torch.randn(4, 2, 7))
    several = nn.LSTM(2, 3)
    with pytest.raises(DataError, match="logits among other outputs, but got tuple: wrap it"):
        sr.EnsembleTargets([several], probabilities=False)(torch.randn(4, 2))
