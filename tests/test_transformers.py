"""Networks of the transformers library: their symmetries, their merges, and what is measured along paths."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.networks.architecture import tied_names
from tests.transformers_zoo import FAMILIES, VOCABULARY, batches, inputs, library, network

transformers = library()
GENERATING = [
    name for name, family in FAMILIES.items() if "LM" in family.network and name != "masked bert"
] + ["t5"]
# vmap has no rule for fused attention, and says so once.
pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")


@functools.cache
def planted(name: str) -> tuple[nn.Module, nn.Module, sr.PermutationSpec]:
    """A network, the same with its units in another order, and the symmetries."""
    reference = network(name)
    spec = sr.discover_symmetry(reference, inputs(name))
    target = copy.deepcopy(reference)
    order = sr.random_permutations(spec, generator=torch.Generator().manual_seed(1))
    target.load_state_dict(sr.permute_state(reference.state_dict(), spec, order))
    return reference, target, spec


def logits(model: nn.Module, name: str) -> Tensor:
    found: Tensor = model(**inputs(name, 7)).logits.detach()
    return found


def written(model: nn.Module, start: Tensor) -> Any:
    options = {"max_new_tokens": 5, "do_sample": False}
    return model.generate(start, **options).tolist()  # type: ignore[operator]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_unit_and_head_is_found(name: str) -> None:
    reference, target, spec = planted(name)
    assert len(spec.groups) == FAMILIES[name].groups
    assert spec.validity is not None
    assert spec.validity.outputs == ("logits",)
    assert sr.verify_symmetry(reference, spec, inputs(name)) < 1e-12
    assert any(
        not torch.equal(a, b) for a, b in zip(reference.parameters(), target.parameters(), strict=True)
    )
    torch.testing.assert_close(logits(target, name), logits(reference, name), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", GENERATING)
def test_caches_are_no_outputs_and_are_told(name: str) -> None:
    _, _, spec = planted(name)
    assert spec.validity is not None
    caches = [place for place in spec.validity.left_out if "cache" in place or "past" in place]
    assert len(caches) == 1
    assert f"does not keep the outputs {caches[0]}" in str(spec)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_planted_order_is_recovered_and_the_merge_goes_to_disk_and_back(name: str, tmp_path: Path) -> None:
    reference, target, spec = planted(name)
    start = sr.weight_matching(reference, target, spec)
    rebasin = sr.SinkhornRebasin(reference, target, spec=spec, start=start).eval()
    models = [rebasin.to_model(), rebasin.merge(0.5)]
    assert all(type(model) is type(reference) for model in models)
    models[1].save_pretrained(tmp_path)  # type: ignore[operator]
    models.append(type(reference).from_pretrained(tmp_path).eval())  # type: ignore[attr-defined]
    for model in models:
        state = model.state_dict()
        for key, tensor in reference.state_dict().items():
            torch.testing.assert_close(state[key], tensor, rtol=1e-5, atol=1e-6)
        assert tied_names(model) == tied_names(reference)
    if name in GENERATING:
        start_of_text = inputs(name)["input_ids"][:1, :2]
        expected = written(reference, start_of_text)
        assert [written(model, start_of_text) for model in [target, *models]] == [expected] * 4


def test_tied_weights_stay_one_tensor() -> None:
    reference, target, spec = planted("gpt2")
    merged: Any = sr.SinkhornRebasin(reference, target, spec=spec).eval().merge(0.5)
    assert merged.lm_head.weight is merged.transformer.wte.weight


def own_losses(models: list[nn.Module], data: list[dict[str, Tensor]]) -> list[float]:
    """The losses that models report, over all that counts as if it were one batch."""
    whole = {key: torch.cat([batch[key] for batch in data]) for key in data[0]}
    with torch.no_grad():
        return [float(model(**whole).loss) for model in models]


@pytest.mark.parametrize("name", ["gpt2", "bert", "masked bert", "t5", "vit"])
def test_paths_are_measured_by_the_reported_loss(name: str) -> None:
    first, second, data = network(name), network(name, 1), batches(name)
    result = sr.evaluate_path((first, second), data, points=3)
    middle = copy.deepcopy(first)
    with torch.no_grad():
        for parameter, other in zip(middle.parameters(), second.parameters(), strict=True):
            parameter.lerp_(other, 0.5)
    assert result.losses.tolist() == pytest.approx(own_losses([first, middle, second], data), rel=1e-4)
    assert result.accuracies is not None


def test_the_accuracy_is_that_of_the_next_token() -> None:
    model, data = network("gpt2"), batches("gpt2")
    result = sr.evaluate_path((model, model), data, points=3)
    ids, labels = (torch.cat([batch[key] for batch in data]) for key in ("input_ids", "labels"))
    counted = labels[:, 1:] >= 0
    right = (model(ids).logits[:, :-1].argmax(-1) == labels[:, 1:])[counted]
    assert result.accuracies is not None
    assert float(result.accuracies[0]) == pytest.approx(float(right.float().mean()))


@pytest.mark.parametrize("name", ["gpt2", "bert"])
@pytest.mark.filterwarnings("ignore:Expected a layer whose outputs are hidden units")
def test_alignment_repair_matching_and_losses_take_dicts(name: str) -> None:
    first, second, data = network(name), network(name, 1), batches(name, 4)
    spec = planted(name)[2]
    recipe = sr.Recipe(steps=4, cycles=1, closing_steps=0, evaluate_every=4, points=3)
    result = sr.align(first, second, data, spec=spec, rescale=False, recipe=recipe, progress=False)
    expected = own_losses([first], data[-1:])[0]
    assert float(result.before.losses[-1]) == pytest.approx(expected, rel=1e-4)
    for merged in (result.merge(0.5, repair=data), result.merge(0.5)):
        assert torch.isfinite(logits(merged, name)).all()
    matched = sr.activation_matching(first, second, spec, data=data)
    assert matched.weight_matched == ()
    assert set(matched.permutations) == {group.name for group in spec.groups}
    rebasin = sr.SinkhornRebasin(first, second, spec=spec).eval()
    repair = sr.RepairAlongPath(first, second, spec, data)
    for loss in (sr.MidpointLoss(), sr.RandomPointLoss(low=0.5, high=0.5)):
        expected = own_losses([rebasin.merge(0.5)], data[:1])[0]
        assert loss(rebasin, data[0]).item() == pytest.approx(expected, rel=1e-4)
    assert torch.isfinite(sr.RepairLoss(sr.task_loss, repair)(rebasin, data[0]))


@pytest.mark.parametrize("name", ["gpt2", "bert"])
@pytest.mark.filterwarnings("ignore:torch.func.vmap cannot run")
def test_fisher_information_is_that_of_the_reported_loss(name: str) -> None:
    model, data = network(name), batches(name, 1)
    fisher = sr.diagonal_fisher(model, data, labels="observed")
    expected = {key: torch.zeros_like(tensor) for key, tensor in model.named_parameters()}
    for row in range(3):
        model.zero_grad()
        model(**{key: value[row : row + 1] for key, value in data[0].items()}).loss.backward()
        for key, parameter in model.named_parameters():
            if parameter.grad is not None:
                expected[key] += parameter.grad.square() / 3
    torch.testing.assert_close(dict(fisher.diagonal), expected, rtol=1e-3, atol=1e-7)
    assert sr.kronecker_fisher(model, data, labels="observed").trace() > 0
    assert sr.diagonal_fisher(model, data).trace() > 0


def test_a_criterion_that_is_given_takes_the_logits() -> None:
    model, data = network("bert"), batches("bert")
    halved = sr.evaluate_path((model, model), data, lambda out, labels: out.loss / 2, points=3)
    smooth = sr.evaluate_path((model, model), data, nn.CrossEntropyLoss(label_smoothing=0.1), points=3)
    ids, labels = (torch.cat([batch[key] for batch in data]) for key in ("input_ids", "labels"))
    expected = model(ids).logits.detach()
    assert float(halved.losses[0]) == pytest.approx(F.cross_entropy(expected, labels).item() / 2, rel=1e-5)
    with_smoothing = F.cross_entropy(expected, labels, label_smoothing=0.1).item()
    assert float(smooth.losses[0]) == pytest.approx(with_smoothing, rel=1e-5)


def test_batches_of_a_tokenizer_are_dicts() -> None:
    data = [transformers.BatchEncoding(batch) for batch in batches("bert")]
    model = network("bert")
    plain = sr.evaluate_path((model, model), batches("bert"), points=3)
    assert torch.equal(sr.evaluate_path((model, model), data, points=3).losses, plain.losses)


def test_spans_of_answers_are_labels_that_the_network_knows() -> None:
    config = transformers.BertConfig(**FAMILIES["bert"].options)
    model = transformers.BertForQuestionAnswering(config).eval()
    generator = torch.Generator().manual_seed(0)
    places = {key: torch.tensor([1, 2, 3]) for key in ("start_positions", "end_positions")}
    batch = {"input_ids": torch.randint(VOCABULARY, (3, 5), generator=generator), **places}
    result = sr.evaluate_path((model, model), [batch], points=3)
    assert float(result.losses[0]) == pytest.approx(model(**batch).loss.item(), rel=1e-5)
