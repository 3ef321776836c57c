from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.carrying import ByWeights, Learned
from sinkhorn_rebasin.errors import LossError, SpecError
from tests.carrying.networks import at, difference, farthest, mlp, tuned_from

DATA = list(torch.randn(200, 4, generator=torch.Generator().manual_seed(0)).split(50))


def planted(base: nn.Module) -> tuple[nn.Module, sr.PermutationSpec, dict[str, Tensor]]:
    spec = sr.discover_symmetry(base, DATA[0])
    permutations = sr.random_permutations(spec, generator=torch.Generator().manual_seed(1))
    return at(base, sr.permute_state(base.state_dict(), spec, permutations)), spec, permutations


def test_a_planted_copy_keeps_the_start_which_is_exact() -> None:
    base, tuned = mlp(0), tuned_from(mlp(0))
    new_base, spec, permutations = planted(base)
    update = sr.carry(tuned, base, new_base, way=Learned(steps=0), scale=1.0, data=DATA)
    expected = sr.permute_state(difference(tuned, base), spec, permutations)
    assert farthest(dict(update.state), expected) < 1e-6
    assert any("the start is kept" in note for note in update.notes)


def test_learning_leaves_a_wrong_start_behind_and_ends_hard() -> None:
    base, tuned = mlp(0), tuned_from(mlp(0), size=0.3)
    new_base, spec, _ = planted(base)
    wrong = sr.Alignment(sr.random_permutations(spec, generator=torch.Generator().manual_seed(5)), spec)
    way = Learned(steps=60, learning_rate=0.2, temperatures=(1.0, 0.1))
    update = sr.carry(tuned, base, new_base, alignment=wrong, way=way, data=DATA)
    started = sr.carry(tuned, base, new_base, alignment=wrong, data=DATA)
    assert min(update.judged.values()) < 0.5 * min(started.judged.values())
    for (
        name,
        tensor,
    ) in update.state.items():  # a hard permutation: the same sizes in another order, times a factor
        own = difference(tuned, base)[name].abs().flatten().sort().values
        theirs = tensor.abs().flatten().sort().values
        assert torch.allclose(theirs / theirs.norm(), own / own.norm(), atol=1e-5), name


def test_it_is_no_worse_than_its_start_on_held_out_examples() -> None:
    base, tuned, new_base = mlp(0), tuned_from(mlp(0)), mlp(1)
    update = sr.carry(tuned, base, new_base, way=Learned(steps=60), data=DATA)
    by_weights = sr.carry(tuned, base, new_base, way=ByWeights(), data=DATA)
    assert min(update.judged.values()) <= min(by_weights.judged.values()) + 1e-9
    assert min(update.judged.values()) < update.judged[0.0]


def test_labels_train_it_and_nothing_given_is_changed() -> None:
    base, tuned, new_base = mlp(0), tuned_from(mlp(0)), mlp(1)
    labels = [tuned(inputs).argmax(1) for inputs in DATA]
    data = list(zip(DATA, labels, strict=True))
    before = [{n: t.clone() for n, t in net.state_dict().items()} for net in (base, tuned, new_base)]
    state = torch.get_rng_state()
    update = sr.carry(
        *(tuned, base, new_base), way=Learned(steps=40), data=data, criterion=nn.functional.cross_entropy
    )
    assert update.judged[min(update.judged, key=lambda scale: update.judged[scale])] < update.judged[0.0]
    assert torch.equal(state, torch.get_rng_state())
    for network, kept in zip((base, tuned, new_base), before, strict=True):
        assert all(torch.equal(kept[name], tensor) for name, tensor in network.state_dict().items())
        assert not any(parameter.grad is not None for parameter in network.parameters())


def test_the_sum_of_outputs_can_be_followed() -> None:
    base, tuned, new_base = mlp(0), tuned_from(mlp(0)), mlp(1)
    update = sr.carry(tuned, base, new_base, way=Learned(steps=30, follow="sum"), scale=1.0, data=DATA)
    wanted = new_base(DATA[0]) + tuned(DATA[0]) - base(DATA[0])

    def far(network: nn.Module) -> float:
        loss = F.kl_div(
            network(DATA[0]).log_softmax(1), wanted.log_softmax(1), reduction="batchmean", log_target=True
        )
        return float(loss.detach())

    assert far(update.apply(new_base)) < far(new_base)


def test_what_it_needs_is_said() -> None:
    base, tuned, new_base = mlp(0), tuned_from(mlp(0)), mlp(1)
    with pytest.raises(SpecError, match="follow"):
        sr.carry(tuned, base, new_base, way=Learned(follow="me"), data=DATA)  # type: ignore[arg-type]
    with pytest.raises(LossError, match="criterion"):
        sr.carry(tuned_from(mlp(0, labels=5)), base, new_base, way=Learned(), data=DATA)
