"""Factors carried as factors: against the carried full update, and as functions on bases in another order."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import ArchitectureError, CheckpointError, SpecError
from sinkhorn_rebasin.files.adapter_folder import PREFIX, read_adapter
from sinkhorn_rebasin.files.receipt import Receipt
from tests.carrying.adapters.networks import TOKENS, lora, mixed, moved_base, normal
from tests.carrying.networks import difference, farthest
from tests.carrying.test_carry import random_alignment

KINDS = [nn.ReLU, nn.Tanh]


@pytest.mark.parametrize("activation", KINDS)
@pytest.mark.parametrize("dora", [False, True])
def test_on_a_base_in_other_coordinates_the_adapter_is_the_same_function(
    activation: type[nn.Module], dora: bool
) -> None:
    base = mixed(0, activation)
    adapter = lora(dora=dora)
    alignment = random_alignment(base, TOKENS)
    assert (alignment.signs if activation is nn.Tanh else alignment.log_scales).keys()
    new_base = moved_base(base, alignment)
    carried = sr.carry_adapter(adapter, base, new_base, alignment, 1.0, example_inputs=TOKENS)
    expected = adapter.apply(base)(TOKENS)
    torch.testing.assert_close(carried.apply(new_base)(TOKENS), expected, atol=1e-4, rtol=1e-4)
    assert (expected - base(TOKENS)).abs().max() > 0.5
    torch.testing.assert_close(new_base(TOKENS), base(TOKENS), atol=1e-4, rtol=1e-4)
    assert {key: t.shape for key, t in carried.tensors.items()} == {
        key: t.shape for key, t in adapter.tensors.items()
    }


def test_the_product_is_the_carried_full_update() -> None:
    base, new_base = mixed(0), mixed(1)
    adapter = lora()
    alignment = random_alignment(base, TOKENS)
    carried = sr.carry_adapter(adapter, base, new_base, alignment, 0.5, example_inputs=TOKENS)
    doubled = [network.double() for network in (mixed(0), mixed(1))]
    wide = replace(carried, tensors={key: t.double() for key, t in carried.tensors.items()})
    merged = replace(adapter, tensors={key: t.double() for key, t in adapter.tensors.items()})
    tuned = merged.apply(doubled[0])
    full = sr.carry(tuned, *doubled, alignment, 0.5, example_inputs=TOKENS)
    added = difference(wide.apply(doubled[1]), doubled[1])
    assert farthest(added, {name: 0.5 * tensor for name, tensor in full.state.items()}) < 1e-6
    assert max(float(tensor.abs().max()) for tensor in full.state.values()) > 1
    assert carried.scales["first.weight"] == 0.5


def test_without_an_alignment_a_planted_copy_is_found_and_nothing_passed_in_changes() -> None:
    base = mixed(0)
    planted = replace(random_alignment(base, TOKENS), rescaling=None, log_scales={})
    new_base = moved_base(base, planted)
    adapter = lora()
    before = [{n: t.clone() for n, t in net.state_dict().items()} for net in (base, new_base)]
    kept, state = {key: t.clone() for key, t in adapter.tensors.items()}, torch.get_rng_state()
    carried = sr.carry_adapter(adapter, base, new_base, scale=1.0, example_inputs=TOKENS)
    exact = sr.carry_adapter(adapter, base, new_base, planted, 1.0, example_inputs=TOKENS)
    assert farthest(carried.tensors, exact.tensors) == 0
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(tensor, kept[key]) for key, tensor in adapter.tensors.items())
    for network, tensors in zip((base, new_base), before, strict=True):
        assert all(torch.equal(tensor, tensors[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("dora", [False, True])
def test_scale_zero_is_the_new_base(dora: bool) -> None:
    base, new_base = mixed(0), mixed(1)
    carried = sr.carry_adapter(lora(dora=dora), base, new_base, scale=0.0, example_inputs=TOKENS)
    torch.testing.assert_close(carried.apply(new_base)(TOKENS), new_base(TOKENS), atol=1e-5, rtol=1e-5)
    assert sr.carry_adapter(lora(), base, new_base, example_inputs=TOKENS).scales["head.bias"] == 0.75


def test_data_choose_the_scale_and_the_new_base_is_kept_where_it_is_better() -> None:
    base, adapter = mixed(0), lora()
    alignment = random_alignment(base, TOKENS)
    new_base = moved_base(base, alignment)
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randint(11, (8, 6), generator=generator) for _ in range(4)]
    criterion = torch.nn.functional.mse_loss
    for teacher, best in ((adapter.apply(base), 1.0), (base, 0.0)):
        data = [(each, teacher(each).detach()) for each in inputs]
        carried = sr.carry_adapter(adapter, base, new_base, alignment, data=data, criterion=criterion)
        assert set(carried.scales.values()) == {best}
        assert carried.judged[best] < 1e-4 < carried.judged[0.5]
        assert f"scale {best:g}: loss" in str(carried)
        assert any("does better than the new base" in note for note in carried.notes) == (best == 0)
    followed = sr.carry_adapter(adapter, base, new_base, alignment, data=inputs)
    assert followed.judged[1.0] < 1e-6 < followed.judged[0.0]


def test_scales_by_pattern() -> None:
    carried = sr.carry_adapter(lora(), mixed(0), mixed(1), scale={"head*": 0.0}, example_inputs=TOKENS)
    torch.testing.assert_close(carried.tensors["head.weight"], mixed(1).head.weight.detach())
    assert carried.scales["first.weight"] == 1.0
    for scale in (math.nan, {"first*": math.inf}):
        with pytest.raises(SpecError, match="finite number"):
            sr.carry_adapter(lora(), mixed(0), mixed(1), scale=scale, example_inputs=TOKENS)


def test_a_folder_in_and_a_folder_out(tmp_path: Path) -> None:
    base, new_base = mixed(0), mixed(1)
    lora(lora_dropout=0.1).save(tmp_path / "old")
    carried = sr.carry_adapter(tmp_path / "old", base, new_base, scale=1.0, example_inputs=TOKENS)
    carried.save(tmp_path / "new")
    config, tensors = read_adapter(tmp_path / "new")
    assert farthest(tensors, carried.tensors) == 0
    assert config["lora_dropout"] == 0.1
    assert config["r"] == 2
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    from safetensors.torch import load_file

    assert all(name.startswith(PREFIX) for name in load_file(tmp_path / "new" / "adapter_model.safetensors"))


def test_a_saved_head_of_other_labels_is_left_and_that_is_said() -> None:
    adapter = lora()
    tensors = {**adapter.tensors, "head.weight": normal(5, 8), "head.bias": normal(5)}
    base, new_base = mixed(0), mixed(1)
    carried = sr.carry_adapter(
        replace(adapter, tensors=tensors), base, new_base, scale=1.0, example_inputs=TOKENS
    )
    assert "heads of other labels stay as they are: head.bias, head.weight" in carried.notes
    assert not any(key.startswith("head") for key in carried.tensors)
    assert carried.config["modules_to_save"] is None
    assert torch.equal(carried.apply(new_base).head.weight, new_base.head.weight)


def test_embeddings_that_are_tied_are_adapted_by_themselves() -> None:
    base = mixed(0)
    base.embedding = nn.Embedding(5, 5)
    base.first = nn.Linear(5, 5, bias=False)
    base.first.weight = base.embedding.weight
    tensors = {"embedding.lora_embedding_A": normal(2, 5), "embedding.lora_embedding_B": normal(5, 2)}
    merged = sr.Adapter({"peft_type": "LORA", "lora_alpha": 2}, tensors).apply(base)
    assert torch.equal(merged.first.weight, base.first.weight)
    product = tensors["embedding.lora_embedding_B"] @ tensors["embedding.lora_embedding_A"]
    torch.testing.assert_close(merged.embedding.weight, base.embedding.weight + product.T)


def changed(key: str, tensor: torch.Tensor | None) -> sr.Adapter:
    adapter = lora()
    kept = {name: t for name, t in adapter.tensors.items() if name != key}
    return replace(adapter, tensors=kept if tensor is None else {**kept, key: tensor})


@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        (lora(peft_type="IA3"), "its config says 'IA3'"),
        (lora(peft_type="PREFIX_TUNING"), "its config says 'PREFIX_TUNING'"),
        (lora(init_lora_weights="pissa"), "'init_lora_weights': 'pissa'"),
        (lora(trainable_token_indices=[1]), "'trainable_token_indices'"),
        (changed("last.lora_A.weight", normal(2, 5)), "counterpart of the adapter's target 'last'"),
        (changed("first.lora_A.weight", None), "lacks its A"),
        (
            changed("first.lora_A.weight", normal(2, 9)),
            r"factors for 'first.weight' of the base, of shape \(7, 5\)",
        ),
        (changed("first.lora_mystery", normal(2)), "holds 'first.lora_mystery'"),
        (changed("head.weight", normal(3, 9)), r"'head.weight' in the base's shape \(3, 8\)"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_what_cannot_be_carried_is_refused_by_name(adapter: sr.Adapter, said: str) -> None:
    with pytest.raises(ArchitectureError, match=said):
        sr.carry_adapter(adapter, mixed(0), mixed(1), example_inputs=TOKENS)


def test_an_adapter_that_adds_nothing_is_refused() -> None:
    zero = {"first.lora_A.weight": normal(2, 5), "first.lora_B.weight": torch.zeros(7, 2)}
    with pytest.raises(ArchitectureError, match="nothing to carry"):
        sr.carry_adapter(replace(lora(), tensors=zero), mixed(0), mixed(1), example_inputs=TOKENS)


def test_weights_that_are_integers_are_refused_by_name() -> None:
    networks = mixed(0), mixed(1)
    for network in networks:
        network.first.weight = nn.Parameter(network.first.weight.detach().to(torch.int8), requires_grad=False)
    with pytest.raises(ArchitectureError, match=r"'first.weight' of the base is torch.int8"):
        sr.carry_adapter(lora(), *networks, example_inputs=TOKENS)


def test_the_adapter_of_another_base_is_refused_by_the_name_in_its_config(tmp_path: Path) -> None:
    base, new_base = mixed(0), mixed(1)
    base.name_or_path, new_base.name_or_path = "here/old-base", "there/new-base"
    adapter = lora(base_model_name_or_path="org/another-base")
    with pytest.raises(
        ArchitectureError, match=r"its config says is 'org/another-base', but got 'here/old-base'"
    ):
        sr.carry_adapter(adapter, base, new_base, example_inputs=TOKENS)
    adapter = lora(base_model_name_or_path="org/Old-Base", revision="main")
    carried = sr.carry_adapter(adapter, base, new_base, example_inputs=TOKENS)
    assert carried.config["base_model_name_or_path"] == "there/new-base"
    assert carried.config["revision"] is None


def test_bases_that_differ_and_alignments_of_others_are_refused() -> None:
    base, other = mixed(0), mixed(1, nn.GELU)
    with pytest.raises(ArchitectureError, match="differs by"):
        sr.carry_adapter(lora(), base, other, example_inputs=TOKENS)
    alignment = sr.weight_matching(mixed(1), base, sr.discover_symmetry(base, TOKENS))
    alignment = replace(alignment, receipt=Receipt.of(mixed(1).state_dict(), base.state_dict()))
    sr.carry_adapter(lora(), base, mixed(1), alignment, example_inputs=TOKENS)
    with pytest.raises(ArchitectureError, match="reference of this alignment"):
        sr.carry_adapter(lora(), base, mixed(2), alignment, example_inputs=TOKENS)


def test_files_that_are_damaged_or_missing_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    lora().save(folder)
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="does not load"):
        sr.Adapter.load(folder)
    weights.rename(folder / "adapter_model.bin")
    with pytest.raises(CheckpointError, match="a pickle, which is not read"):
        sr.Adapter.load(folder)
    lora().save(folder)
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="Expected JSON"):
        sr.Adapter.load(folder)
    (folder / "adapter_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no adapter_config.json"):
        sr.Adapter.load(folder)
