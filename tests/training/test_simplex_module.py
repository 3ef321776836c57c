from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sinkhorn_rebasin.connectivity import LearnedComplex
from sinkhorn_rebasin.errors import LossError
from sinkhorn_rebasin.training import SimplexModule
from tests.front.pairs import loader, trained
from tests.training.fitting import trainer


def mean_loss(complex: LearnedComplex) -> float:
    points = complex.draw_states(8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        losses = [
            F.cross_entropy(complex.run(state, x), y) for state in points for x, y in loader(shuffle=False)
        ]
    return float(torch.stack(losses).mean())


def test_training_lowers_the_loss_inside_and_networks_stay(tmp_path: Path) -> None:
    complex = LearnedComplex([trained(0), trained(1)])
    kept = [tensor.clone() for network in complex.networks for tensor in network.state_dict().values()]
    trainer(tmp_path, max_epochs=2).fit(SimplexModule(complex, lr=0.1, points=2), loader())
    beginning = LearnedComplex([trained(0), trained(1)])
    beginning.grow()
    assert mean_loss(complex) < 0.8 * mean_loss(beginning)
    moved = [tensor for network in complex.networks for tensor in network.state_dict().values()]
    assert all(map(torch.equal, kept, moved))


def test_a_finished_vertex_stays_while_the_next_is_trained(tmp_path: Path) -> None:
    complex = LearnedComplex([trained(0)], vertices=2)
    seen = []

    class Watched(SimplexModule):
        def on_train_batch_end(self, *_: object) -> None:
            seen.append((self.current_epoch, [v[0].weight.detach().clone() for v in self.complex.vertices]))

    trainer(tmp_path, max_epochs=2).fit(Watched(complex, lr=0.1, epochs_per_vertex=1), loader())
    last_of_first = [weights for epoch, weights in seen if epoch == 0][-1]
    of_second = [weights for epoch, weights in seen if epoch == 1]
    assert torch.equal(last_of_first[0], of_second[-1][0])
    assert not torch.equal(of_second[0][1], of_second[-1][1])


def test_the_loss_is_the_mean_over_points_less_the_weighted_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    complex = LearnedComplex([trained(0), trained(1)])
    complex.grow()
    module, (x, y) = SimplexModule(complex, volume_weight=[0.01], points=3), next(iter(loader()))
    torch.manual_seed(5)
    loss = module.training_step((x, y), 0)
    torch.manual_seed(5)
    outputs = [torch.func.functional_call(complex.networks[0], state, x) for state in complex.draw_states(3)]
    mean = sum(F.cross_entropy(output, y) for output in outputs) / 3
    expected = mean - 0.01 * complex.log_volume()
    torch.testing.assert_close(loss, expected.to(loss))
    loss.backward()
    assert all(p.grad is not None for p in complex.vertices[0].parameters())


def test_a_larger_volume_weight_gives_a_larger_simplex(tmp_path: Path) -> None:
    volumes = []
    for weight in (0.0, 0.3):
        torch.manual_seed(0)
        module = SimplexModule(
            LearnedComplex([trained(0)]), volume_weight=weight, epochs_per_vertex=1, points=1
        )
        trainer(tmp_path, max_epochs=1).fit(module, loader())
        volumes.append(float(module.complex.log_volume().detach()))
    assert volumes[1] > volumes[0] + 0.5


def test_batch_norm_runs_on_the_batch_in_training() -> None:
    def net(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 4))

    complex = LearnedComplex([net(0), net(1)]).train()
    complex.grow()
    x, shares = torch.randn(50, 2) * 7 + 3, [0.2, 0.3, 0.5]
    point = complex.simplexes()[0].module_at(shares)
    torch.testing.assert_close(complex(x, shares), point.train()(x))
    assert not torch.allclose(complex(x, shares), point.eval()(x))


def test_a_resumed_fit_is_one_that_was_never_stopped(tmp_path: Path) -> None:
    def module() -> SimplexModule:
        return SimplexModule(LearnedComplex([trained(0)], vertices=2), lr=0.1, epochs_per_vertex=1, points=1)

    torch.manual_seed(0)
    whole = module()
    trainer(tmp_path, max_epochs=2).fit(whole, loader())
    torch.manual_seed(0)
    half = trainer(tmp_path, max_epochs=1)
    half.fit(module(), loader())
    half.save_checkpoint(tmp_path / "half.ckpt")
    resumed = module()
    trainer(tmp_path, max_epochs=2).fit(resumed, loader(), ckpt_path=tmp_path / "half.ckpt")
    for one, other in zip(whole.complex.parameters(), resumed.complex.parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("options", [{"volume_weight": [0.1, 0.2]}, {"points": 0}, {"epochs_per_vertex": 0}])
def test_options_that_do_not_fit_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(LossError, match="volume weight for each of the 1 vertices"):
        SimplexModule(LearnedComplex([trained(0)]), **options)
