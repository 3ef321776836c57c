from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

import sinkhorn_rebasin as sr
from experiments.carry.bench import Bench, best, tuned_on
from experiments.carry.gradfix import gradfix_update
from experiments.carry.labels import copied, looked_at, mixed
from experiments.carry.logits import sum_of_logits
from experiments.carry.masks import carried_mask, own_mask
from experiments.carry.pairs import Pair
from experiments.carry.rows import row_path
from experiments.carry.setting import FewLabels, known_settings, load_setting
from experiments.carry.tasks import Task, blurred, swapped_colors
from experiments.carry.transfusion import paired_heads
from experiments.data import ImageData
from experiments.models import build_model
from sinkhorn_rebasin.networks.copying import standalone_copy
from tests.carrying.networks import at, convolutions, mlp, tuned_from


def bench(new_base: nn.Module | None = None) -> Bench:
    generator = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(60, 4, generator=generator), torch.randint(3, (60,), generator=generator)
    data = ImageData(inputs, labels, inputs, labels, 3, "noise")
    task = Task(data, (inputs[:30], labels[:30]), (inputs[30:], labels[30:]))
    base = mlp(0)
    pair = Pair(base, tuned_from(base), new_base or mlp(1), tuned_from(mlp(1)))
    return Bench(load_setting("mnist_mlp"), pair, task, task, 0)


def test_heads_that_were_moved_are_paired_whatever_is_done_inside_of_them() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_model("gpt", vocabulary=20, context=8, width=8, depth=1, heads=4).eval()
    spec = sr.discover_symmetry(network, torch.zeros(2, 8, dtype=torch.long))
    permutations = sr.random_permutations(spec, generator=torch.Generator().manual_seed(3))
    moved = standalone_copy(network)
    moved.load_state_dict(sr.permute_state(network.state_dict(), spec, permutations))
    heads = paired_heads(moved, network, spec)
    assert heads
    assert all(torch.equal(order, permutations[name]) for name, order in heads.items())


def test_gradfix_keeps_what_goes_downhill_at_the_new_base() -> None:
    case = bench()
    update = gradfix_update(case)
    network = standalone_copy(case.pair.new_base).requires_grad_(True)
    inputs, labels = case.labelled(20)
    nn.functional.cross_entropy(network(inputs), labels).backward()
    before = dict(case.pair.base.named_parameters())
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        change = (dict(case.pair.tuned.named_parameters())[name] - before[name]).detach()
        kept = change * parameter.grad < 0
        assert torch.equal(update[name], torch.where(kept, change, 0.0))
        assert 0 < kept.sum() < kept.numel()


def test_the_sum_of_a_base_with_itself_is_the_tuned_network() -> None:
    case = bench(mlp(0))
    inputs = case.base_task.test[0]
    whole = {choice["scale"]: network(inputs) for choice, network in sum_of_logits(case)}
    assert torch.allclose(whole[1.0], case.pair.tuned(inputs), atol=1e-6)


def test_a_mask_of_a_planted_copy_is_the_copy_s_own() -> None:
    base = mlp(0)
    spec = sr.discover_symmetry(base, torch.zeros(2, 4))
    permutations = sr.random_permutations(spec, generator=torch.Generator().manual_seed(1))
    case = bench(at(base, sr.permute_state(base.state_dict(), spec, permutations)))
    own = own_mask(case)
    assert all(torch.equal(mask, own[name]) for name, mask in carried_mask(case).items())


def test_held_out_samples_choose_and_the_test_is_measured() -> None:
    case = bench()

    def gives(loss: float) -> nn.Module:
        class Fixed(nn.Module):
            def forward(self, inputs: Tensor) -> Tensor:
                right = torch.isin(inputs[:, 0], case.new_task.held_out[0][:, 0])
                labels = torch.where(right[:1], case.new_task.held_out[1], case.new_task.test[1])
                scores = torch.nn.functional.one_hot(labels, 3).float()
                return scores if (loss > 0) == bool(right[0]) else 1 - scores

        return Fixed()

    row = best(
        case, [({"name": "right on the test"}, gives(-1.0)), ({"name": "right on held-out"}, gives(1.0))]
    )
    assert row["choice"] == {"name": "right on held-out"}
    assert row["new_accuracy"] == 0.0


def test_batch_norms_have_the_statistics_of_each_task_in_every_row() -> None:
    images = torch.randn(60, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(60) % 3
    tasks = []
    for shift in (0.0, 3.0):
        data = ImageData(shift + images, labels, images, labels, 3, "noise")
        tasks.append(Task(data, (images[:30], labels[:30]), (images[30:], labels[30:])))
    network, other = convolutions(0), convolutions(0)
    other[1].running_mean += 1.0
    pair = Pair(network, network, network, network)
    case = Bench(load_setting("mnist_mlp"), pair, tasks[0], tasks[1], 0)
    assert case.figures(network) == case.figures(other)
    assert case.judged(network) == case.judged(other)
    settled = [case.settled(network, task) for task in tasks]
    for shift, settled_on in zip((0.0, 3.0), settled, strict=True):
        assert isinstance(settled_on, nn.Module)
        expected = network[0](shift + images).mean((0, 2, 3))
        assert torch.allclose(settled_on[1].running_mean, expected, atol=1e-5)
    assert case.figures(network)["new_loss"] != case.figures(network)["base_loss"]
    plain = mlp(0)
    assert case.settled(plain, tasks[0]) is plain


def test_a_switch_that_is_off_changes_no_file_s_name() -> None:
    setting = load_setting("mnist_mlp")
    assert setting.tuning.facts() == {"epochs": 2, "learning_rate": 0.0003, "batch_size": 128}
    faster = replace(setting, tuning=replace(setting.tuning, bfloat16=True))
    assert faster.tuning.facts()["bfloat16"] is True
    names = [row_path(Path(), each, (0, 1), "as it is") for each in (setting, faster)]
    assert names[0] != names[1]


def test_settings_load_and_changes_change() -> None:
    assert [load_setting(name).title for name in known_settings()]
    images = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(swapped_colors(images)[:, 1], -images[:, 0])
    assert torch.equal(blurred(images), blurred(images))
    assert blurred(images).std() < images.std()


def test_copies_that_are_held_out_are_of_other_samples_and_draw_nothing() -> None:
    images = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    task = Task(
        ImageData(images, torch.arange(40), images, torch.arange(40), 40, "noise"),
        (images,) * 2,
        (images,) * 2,
    )
    setting = replace(load_setting("cifar10_vit"), labels=FewLabels(counts=(20,), copies=3))
    case = replace(bench(), setting=setting, new_task=task)
    state = torch.get_rng_state()
    seen = looked_at(case, 20)
    assert torch.equal(state, torch.get_rng_state())
    wanted = case.labelled(20)[0]
    kept, (held_out,) = torch.cat(seen["data"]), seen["validation"]
    assert (len(kept), len(held_out)) == (54, 6)
    for batch, originals in ((kept, wanted[:18]), (held_out, wanted[18:])):
        assert set(batch.flatten().tolist()) <= set(originals.flatten().tolist()) | {0.0}
        assert all(any(torch.equal(each, image) for each in batch) for image in originals)
    assert len(torch.unique(held_out, dim=0)) > 2
    assert torch.equal(copied(wanted, 1, 0), wanted)


def test_samples_lie_beside_twice_as_many_of_the_base_task_and_are_shifted_while_they_tune() -> None:
    images = torch.randn(40, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40) % 3
    base, new = (
        Task(ImageData(inputs, labels, inputs, labels, 3, "noise"), (images, labels), (images, labels))
        for inputs in (images, images + 100)
    )
    case = replace(bench(), base_task=base, new_task=new)
    together = torch.cat(mixed(case, 4))
    assert (together > 50).flatten(1).all(1).sum() == 20
    assert torch.equal(together[(together < 50).flatten(1).all(1)].sort(0).values, images.sort(0).values)
    seen: list[Tensor] = []

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(36, 3)

        def forward(self, inputs: Tensor) -> Tensor:
            seen.append(inputs)
            return self.layer(inputs.flatten(1))

    options = {"rate": 1e-3, "steps": 1, "batch_size": 8, "seed": 0}
    watched = Watched()
    state = torch.get_rng_state()
    for reach in (0, 2):
        tuned_on(watched, (images, labels), **options, reach=reach)
    assert torch.equal(state, torch.get_rng_state())
    for plain, shifted in zip(*seen, strict=True):
        padded = torch.nn.functional.pad(plain[0], (2,) * 4)
        places = [(i, j) for i in range(5) for j in range(5)]
        assert sum(torch.equal(padded[i : i + 6, j : j + 6], shifted[0]) for i, j in places) == 1
    assert not torch.equal(*seen)
