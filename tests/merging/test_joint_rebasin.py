from __future__ import annotations

import copy

import lightning
import pytest
import torch
from torch import Tensor, nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import ArchitectureError, LossError
from sinkhorn_rebasin.training import JointRebasinModule
from tests.matcher_contract import equal

QUIET = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
QUIET |= {"enable_progress_bar": False, "accelerator": "cpu"}


def trained(count: int, width: int = 8) -> tuple[list[nn.Module], list[tuple[Tensor, Tensor]]]:
    """Networks of several seeds on one task, and its batches."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(480, 6, generator=generator)
    labels = (x[:, :3].square().sum(1) - x[:, 3:].square().sum(1)).gt(0).long() + (x[:, 0] > 0).long()
    networks: list[nn.Module] = []
    for seed in range(count):
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Linear(6, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3)
        )
        optimizer = torch.optim.Adam(net.parameters(), 1e-2)
        for _ in range(100):
            loss = nn.functional.cross_entropy(net(x), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        networks.append(net.eval())
    return networks, list(zip(x.split(48), labels.split(48), strict=True))


@pytest.fixture(scope="module")
def task() -> tuple[list[nn.Module], list[tuple[Tensor, Tensor]]]:
    with torch.random.fork_rng():
        return trained(3)


def test_every_network_keeps_its_function_and_the_mean_is_that_of_their_states(task: tuple) -> None:
    networks, batches = task
    joint = sr.JointRebasin(networks, batches[0][0], rescale=True).eval()
    with torch.no_grad():
        for scale in joint.log_scales.parameters():
            scale.normal_(std=0.1)
    x = batches[1][0]
    for number, net in enumerate(networks):
        shares = [float(each == number) for each in range(3)]
        torch.testing.assert_close(joint(x, shares), net(x), atol=1e-5, rtol=1e-4)
    shares = [0.5, 0.2, 0.3]
    states = joint.alignment().apply(networks)
    mixed = {
        name: sum(w * state[name] for w, state in zip(shares, states, strict=True)) for name in states[0]
    }
    torch.testing.assert_close(dict(joint.merge(shares).state_dict()), mixed)
    assert type(joint.merge()) is nn.Sequential
    assert joint.alignment().cycle_error() == 0


def test_soft_states_have_gradients_for_every_network_but_the_first(task: tuple) -> None:
    networks, batches = task
    joint = sr.JointRebasin(networks, batches[0][0])
    sr.SimplexLoss(generator=torch.Generator().manual_seed(0))(joint, batches[0]).backward()
    assert [parameter.grad is not None for parameter in joint.parameters()] == [True] * 4
    joint.temperature.fill_(0.25)
    joint.states()
    assert {float(rebasin.temperature) for rebasin in joint.rebasins} == {0.25}  # type: ignore[arg-type]
    assert len({id(rebasin.reference) for rebasin in joint.rebasins}) == 1


def test_shares_are_drawn_as_said() -> None:
    loss = sr.SimplexLoss(concentration=2.0, generator=torch.Generator().manual_seed(1))
    drawn = torch.tensor([loss.shares(3) for _ in range(4000)], dtype=torch.float64)
    torch.testing.assert_close(drawn.sum(1), torch.ones(4000, dtype=torch.float64))
    # Mean 1/3, and variance of Dirichlet(2, 2, 2): (1/3)(2/3)/7.
    torch.testing.assert_close(drawn.mean(0), torch.full((3,), 1 / 3).double(), atol=0.01, rtol=0)
    torch.testing.assert_close(drawn.var(0), torch.full((3,), 2 / 63).double(), atol=0.003, rtol=0)
    with pytest.raises(LossError, match="above 0 but got 0"):
        sr.SimplexLoss(concentration=0)


def test_learning_together_lowers_the_loss_of_the_mean_and_changes_nothing_else(task: tuple) -> None:
    networks, batches = task
    before = copy.deepcopy([net.state_dict() for net in networks])
    random = torch.get_rng_state()
    recipe = sr.Recipe.many(steps=60, closing_steps=20, evaluate_every=20)
    many = sr.align_many(
        networks, train=batches, recipe=recipe, progress=False, trainer={"accelerator": "cpu"}
    )
    assert torch.equal(random, torch.get_rng_state())
    assert all(equal(old, net.state_dict()) for old, net in zip(before, networks, strict=True))
    spec = sr.discover_symmetry(networks[0], batches[0][0])
    x, labels = (torch.cat(part) for part in zip(*batches, strict=True))

    def loss(state: dict[str, Tensor]) -> float:
        logits = torch.func.functional_call(networks[0], state, x)
        return float(nn.functional.cross_entropy(logits, labels))

    matched = sr.match_many(networks, spec)
    assert loss(many.merge(networks)) < 0.9 * loss(matched.merge(networks))
    for alignment, net in zip(many, networks, strict=True):
        moved = torch.func.functional_call(net, alignment.apply(net), x)
        torch.testing.assert_close(moved, net(x), atol=1e-4, rtol=1e-4)


def test_a_trainer_validates_tests_and_predicts_with_the_mean(task: tuple) -> None:
    networks, batches = task
    joint = sr.JointRebasin(networks, batches[0][0])
    module = JointRebasinModule(joint, sr.SimplexLoss())
    loader = torch.utils.data.DataLoader(batches, batch_size=None)  # type: ignore[arg-type]
    trainer = lightning.Trainer(max_epochs=1, **QUIET)
    trainer.fit(module, loader, loader)
    logged = trainer.callback_metrics["val_merged_loss"]
    merged = joint.merge()
    x, labels = (torch.cat(part) for part in zip(*batches, strict=True))
    torch.testing.assert_close(logged, nn.functional.cross_entropy(merged(x), labels))
    assert "test_merged_loss" in trainer.test(module, loader, verbose=False)[0]
    predicted = trainer.predict(module, loader)
    torch.testing.assert_close(torch.cat(predicted), merged(x))  # type: ignore[arg-type]


def test_validations_that_were_broken_off_do_not_count(task: tuple) -> None:
    networks, batches = task
    of_all = JointRebasinModule(sr.JointRebasin(networks, batches[0][0]), sr.SimplexLoss())
    of_two = sr.training.RebasinModule(sr.SinkhornRebasin(*networks[:2], batches[0][0]), sr.MidpointLoss())
    for module, metric in ((of_all, of_all.val_merged_loss), (of_two, of_two.val_midpoint_loss)):
        values = []
        for given in ([batches[0], batches[1]], [batches[1]]):
            for batch in given:
                module.on_validation_epoch_start()
                module.validation_step(batch, 0)
            values.append(float(metric.compute()))
        assert values[0] == values[1]


def test_too_few_networks_and_other_alignments_are_named(task: tuple) -> None:
    networks, batches = task
    x = batches[0][0]
    with pytest.raises(ArchitectureError, match="at least two networks to align but got 1"):
        sr.JointRebasin(networks[:1], x)
    pair = sr.match_many(networks[:2], sr.discover_symmetry(networks[0], x))
    with pytest.raises(ArchitectureError, match="alignment of 3 networks to start from but got one of 2"):
        sr.JointRebasin(networks, x, start=pair)
    with pytest.raises(ArchitectureError, match="a module and example inputs"):
        sr.align_many([net.state_dict() for net in networks], progress=False)


def test_shares_below_zero_are_those_of_the_formula(task: tuple) -> None:
    networks, batches = task
    joint = sr.JointRebasin(networks, batches[0][0]).eval()
    states = joint.states()
    for shares in ([-1.0, 1.0, 1.0], [1.0, -2.0, 2.0], [0.5, 0.75, -0.25]):
        mixed = {n: sum(w * s[n] for w, s in zip(shares, states, strict=True)) for n in states[0]}
        torch.testing.assert_close(joint.state_at(shares), mixed, atol=1e-5, rtol=1e-4)


def test_two_means_with_signs_in_one_loss() -> None:
    torch.manual_seed(0)
    networks = [nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)) for _ in range(3)]
    x = torch.randn(4, 3)
    joint = sr.JointRebasin(networks, x, rescale=True)
    losses = [joint(x, shares).square().sum() for shares in ([0.2, 0.3, 0.5], [0.5, 0.3, 0.2])]
    sum(losses).backward()
    assert all(parameter.grad is not None for parameter in joint.sign_scores.parameters())
