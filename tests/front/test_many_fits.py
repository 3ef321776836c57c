"""What several networks' fits keep, and what is told of it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.front import many_fits
from sinkhorn_rebasin.front.data import AlignmentData
from sinkhorn_rebasin.front.many_fits import ManyFits
from sinkhorn_rebasin.front.mean_loss import LossOfMean
from sinkhorn_rebasin.losses.base import mean_loss
from tests.front.pairs import CPU, batches, samples, trained

SHORT = {"steps": 30, "cycles": 2, "closing_steps": 10, "evaluate_every": 10}


def networks() -> list[nn.Module]:
    return [trained(seed) for seed in range(3)]


def test_the_best_start_is_taken_and_all_are_told() -> None:
    recipe = sr.Recipe.many(steps=0, closing_steps=0)
    many = sr.align_many(networks(), train=batches(), recipe=recipe, trainer=CPU, progress=False)
    spec, held_out = many.spec, batches()[18:]  # the last tenth of the batches
    starts = {
        m: sr.match_many(networks(), spec, method=m, generator=seeded())
        for m in ("merge_many", "frank_wolfe")
    }
    losses = {name: loss_of(start, held_out) for name, start in starts.items()}
    told = many.notes[0]
    assert told.startswith("start: ")
    assert all(f"{name} {loss:.4f}" in told for name, loss in losses.items())
    assert loss_of(many, held_out) <= min(losses.values()) + 1e-6
    assert many.notes[1] == "No step made the start better on held-out data, so it is kept."
    assert many.notes[2] == "judged on last 2 of 20 training batches"
    assert many.notes[1] in str(many)
    assert many.notes[1] in many._repr_html_()


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def loss_of(many: sr.ManyAlignment, held_out: list) -> float:
    net = many.to_model(networks())
    return sum(float(F.cross_entropy(net(x), labels).detach()) for x, labels in held_out) / len(held_out)


@pytest.mark.parametrize("repair", [False, True])
def test_a_fit_lowers_the_loss_of_the_mean_as_it_is_used(repair: bool) -> None:
    recipe = sr.Recipe.many(**{**SHORT, "steps": 60})
    found = {}
    for steps in (0, 60):
        short = sr.Recipe.many(**{**vars(recipe), "steps": steps, "closing_steps": min(steps, 20)})
        many = sr.align_many(
            networks(), train=batches(), recipe=short, repair=repair, trainer=CPU, progress=False
        )
        mean = many.to_model(networks(), repair=batches() if repair else None)
        x, labels = samples()
        found[steps] = float(F.cross_entropy(mean(x), labels).detach())
    assert found[60] < 0.95 * found[0]
    assert ("repaired" in many.notes[0]) is repair
    assert "at the start" in many.notes[1]
    x = samples()[0]
    for alignment, net in zip(many, networks(), strict=True):
        moved = torch.func.functional_call(net, alignment.apply(net), x)
        torch.testing.assert_close(moved, net(x), atol=1e-4, rtol=1e-4)


def test_a_start_that_no_step_makes_better_is_put_back() -> None:
    same = [trained(0)] * 3
    # Nothing is nearer to a network's outputs than the mean of the network with itself.
    own = [(x, same[0](x).detach()) for x, _ in batches()]
    recipe = sr.Recipe.many(**SHORT, learning_rate=3.0, scale_learning_rate=3.0, closing_learning_rate=3.0)
    many = sr.align_many(same, train=own, criterion=F.mse_loss, recipe=recipe, trainer=CPU, progress=False)
    assert "No step made the start better on held-out data, so it is kept." in many.notes
    for alignment in many:
        assert all(torch.equal(order, torch.arange(8)) for order in alignment.permutations.values())
        assert all((scale == 0).all() for scale in alignment.log_scales.values())


def test_a_start_without_a_number_is_not_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    joints = [object(), object(), object()]
    losses = dict(zip(joints, [float("nan"), 0.5, 0.25], strict=True))
    monkeypatch.setattr(many_fits, "mean_loss", lambda joint, *_: losses[joint])
    monkeypatch.setattr(many_fits, "losses_on", lambda joint, *_: [losses[joint]])
    fits = ManyFits(AlignmentData([], [0], ""), LossOfMean(F.cross_entropy, []), *([None] * 4))  # type: ignore[arg-type]
    best, told = fits.best(joints, ["a", "b", "c"])  # type: ignore[arg-type]
    assert best is joints[2]
    assert told == "start: c (loss of the mean on held-out data: a inf, b 0.5000, c 0.2500)"


def test_networks_with_signs_are_repaired_without_them() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        nets = [nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 4)).eval() for _ in range(3)]
    options = {"train": batches(), "trainer": CPU, "progress": False}
    many = sr.align_many(nets, recipe=sr.Recipe.many(**SHORT), repair=True, **options)
    assert not any(alignment.signs or alignment.log_scales for alignment in many)


def test_repair_wants_data() -> None:
    with pytest.raises(DataError, match="training data to do REPAIR with but got none"):
        sr.align_many(networks(), example_inputs=samples()[0][:2], repair=True, progress=False)


def test_the_mean_is_judged_as_it_will_be_used_and_anew_after_a_change() -> None:
    nets, (x, labels) = networks(), samples()
    joint = sr.JointRebasin(nets, x[:2], rescale=True)
    held_out, statistics, shares = [(x, labels)], [x[:100]], [0.5, 0.2, 0.3]
    values = []
    judge = LossOfMean(F.cross_entropy, statistics, repair=True, shares=shares)
    for _ in range(2):
        value = mean_loss(joint, judge, held_out)
        merged = joint.merge(shares, repair=statistics)
        assert value == pytest.approx(float(F.cross_entropy(merged(x), labels).detach()), rel=1e-5)
        values.append(value)
        with torch.no_grad():
            next(iter(joint.log_scales.parameters())).normal_(generator=seeded())
    assert values[0] != values[1]


def test_batch_norm_is_measured_on_training_data() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        nets = [
            nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4)) for _ in range(3)
        ]
    x, labels = samples()
    for net in nets:
        net.train()(x)
        net.eval()
    joint = sr.JointRebasin(nets, x[:2])
    found = mean_loss(joint, LossOfMean(F.cross_entropy, [(x, labels)]), [(x, labels)])
    expected = sr.reset_batch_norm(joint.merge(), [(x, labels)])
    assert found == pytest.approx(float(F.cross_entropy(expected(x), labels).detach()), rel=1e-5)
    assert found != pytest.approx(float(F.cross_entropy(joint.merge()(x), labels).detach()), rel=1e-3)
