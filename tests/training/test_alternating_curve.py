from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import LossError
from sinkhorn_rebasin.training import AlternatingCurveModule
from tests.front.pairs import loader, samples, trained
from tests.training.fitting import trainer


def rebasin(**options: object) -> sr.SinkhornRebasin:
    return sr.SinkhornRebasin(trained(0), trained(1), samples()[0][:4], temperature=0.3, **options)


def parts_of(module: AlternatingCurveModule) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    scores = [scores.detach().clone() for scores in module.rebasin.scores.values()]
    return scores, [bend.detach().clone() for bend in module.curve.bends.parameters()]


def loss_at(module: AlternatingCurveModule, at: float) -> float:
    """The loss on the curve, by its formula, from the start that the module has now."""
    start, bend, end = (net.state_dict() for net in (module.curve.start, module.curve.bends[0], trained(0)))
    point = {
        name: (1 - at) ** 2 * start[name] + 2 * at * (1 - at) * bend[name] + at**2 * end[name] for name in end
    }
    x, y = samples()
    return float(F.cross_entropy(torch.func.functional_call(trained(0), point, x), y))


def test_parts_of_a_round_train_permutations_and_bends_in_turn(tmp_path: Path) -> None:
    seen: list[tuple[list[torch.Tensor], list[torch.Tensor]]] = []

    class Watched(AlternatingCurveModule):
        def on_train_epoch_start(self) -> None:
            super().on_train_epoch_start()
            seen.append(parts_of(self))

    module = Watched(rebasin(), permutation_epochs=1, bend_epochs=1, lr=0.01, compared=0)
    trainer(tmp_path, max_epochs=3).fit(module, loader(100))
    seen.append(parts_of(module))
    changed = [
        [not all(map(torch.equal, before[k], after[k])) for k in (0, 1)]
        for before, after in itertools.pairwise(seen)
    ]
    assert changed == [[True, False], [False, True], [True, False]]
    moved = module.rebasin.rebased_state(hard=True)
    assert all(torch.equal(moved[name], tensor) for name, tensor in module.curve.start.state_dict().items())
    torch.testing.assert_close(module.curve(samples()[0], at=0.0), trained(1)(samples()[0]))


def test_a_round_lowers_the_barrier_of_a_bad_start(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = AlternatingCurveModule(
        rebasin(start="identity"), permutation_epochs=2, bend_epochs=2, lr=0.02, score_lr=0.3
    )
    before = sr.evaluate_path(module.curve, loader(shuffle=False), points=5)
    trainer(tmp_path, max_epochs=4).fit(module, loader())
    after = sr.evaluate_path(module.curve, loader(shuffle=False), points=5)
    assert after.barrier < before.barrier / 2


def test_permutations_are_taken_where_the_curve_is_no_worse_and_else_put_back() -> None:
    matched = rebasin().hard_permutations()
    flipped = {name: order.flip(0) for name, order in matched.items()}
    taken, bends, losses = [], None, []
    for first, second in ((matched, flipped), (flipped, matched)):
        module = AlternatingCurveModule(rebasin(start=first))
        bends = bends or module.curve.bends.state_dict()
        module.curve.bends.load_state_dict(bends)  # both compare on the same curve
        module._kept = [samples()]
        before, start = parts_of(module)[0], module.curve.start[0].weight.clone()
        with torch.no_grad():
            for name, scores in module.rebasin.scores.items():
                scores.copy_(torch.eye(8)[second[name]])
        losses.append(sum(loss_at(module, at) for at in (0.1, 0.3, 0.5, 0.7, 0.9)))
        taken.append(module.take_permutations())
        assert all(map(torch.equal, before, parts_of(module)[0])) != taken[-1]
        assert torch.equal(start, module.curve.start[0].weight) != taken[-1]
        assert module.take_permutations()  # the same ones are no worse
    assert taken == [losses[1] <= losses[0], losses[0] <= losses[1]]
    assert sorted(taken) == [False, True]


def test_a_resumed_fit_is_one_that_was_never_stopped(tmp_path: Path) -> None:
    def module() -> AlternatingCurveModule:
        return AlternatingCurveModule(rebasin(), permutation_epochs=2, bend_epochs=1, lr=0.01)

    torch.manual_seed(0)
    whole = module()
    trainer(tmp_path, max_epochs=3).fit(whole, loader(100))
    torch.manual_seed(0)
    half = trainer(tmp_path, max_epochs=2)
    half.fit(module(), loader(100))
    half.save_checkpoint(tmp_path / "half.ckpt")
    resumed = module()
    trainer(tmp_path, max_epochs=3).fit(resumed, loader(100), ckpt_path=tmp_path / "half.ckpt")
    for one, other in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_part_without_epochs_is_refused() -> None:
    with pytest.raises(LossError, match="at least one epoch"):
        AlternatingCurveModule(rebasin(), bend_epochs=0)
