"""Folders that PEFT writes, carried, and loaded onto the new base by PEFT itself."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.copying import standalone_copy
from tests.carrying.adapters.networks import moved_base
from tests.carrying.networks import difference, farthest

peft = pytest.importorskip("peft", reason="peft is not installed: pip install peft")
transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed; it comes with the extra 'hub'"
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]
CLASSIFIER = "GPT2ForSequenceClassification"
TOKENS = torch.arange(24).reshape(3, 8) % 50
INPUTS = {"input_ids": TOKENS}
SIZES = {"vocab_size": 50, "n_positions": 16, "n_embd": 8, "n_layer": 2, "n_head": 2}


def gpt(seed: int, kind: str = "GPT2LMHeadModel", **more: Any) -> Any:
    torch.manual_seed(seed)
    special = {"eos_token_id": 0, "bos_token_id": 0, "pad_token_id": 0, "initializer_range": 0.2}
    return getattr(transformers, kind)(transformers.GPT2Config(**SIZES, **special, **more)).eval()


@cache
def reordering(kind: str = "GPT2LMHeadModel") -> sr.Alignment:
    """Another order of the units and heads of every network of a kind."""
    labels = {"num_labels": 3} if kind == CLASSIFIER else {}
    network = llama() if kind == "llama" else gpt(0, kind, **labels)
    spec = sr.discover_symmetry(network, INPUTS)
    spec = spec.ignoring("score") if "score.weight" in spec.shapes else spec
    return sr.Alignment(sr.random_permutations(spec, generator=torch.Generator().manual_seed(3)), spec)


def llama() -> Any:
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **heads)).eval()


def adapted(base: nn.Module, folder: Path, **options: Any) -> Any:
    """A PEFT model of a copy of the base, every trained tensor moved, and written to a folder."""
    config = peft.LoraConfig(**{"r": 4, "fan_in_fan_out": True, **options})
    model = peft.get_peft_model(standalone_copy(base), config).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                moved = 0.3 * torch.randn(parameter.shape, generator=generator)
                parameter.add_(moved.abs() if "magnitude" in name else moved)
    model.save_pretrained(folder)
    return model


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        outputs: Tensor = model(**INPUTS).logits
    return outputs


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["c_attn", "c_proj", "c_fc"]},
        {"target_modules": ["c_attn", "c_fc"], "use_dora": True, "bias": "all"},
        {"target_modules": ["c_attn", "wte"], "use_rslora": True, "bias": "lora_only"},
        {
            "target_modules": "all-linear",
            "lora_bias": True,
            "rank_pattern": {"c_fc": 2},
            "alpha_pattern": {"c_fc": 5},
        },
        {"target_modules": ["c_proj"], "modules_to_save": ["ln_f", "wpe"], "layers_to_transform": [1]},
    ],
    ids=["factors", "dora", "embedding", "lora_bias", "modules_to_save"],
)
def test_peft_loads_the_carried_folder_and_computes_the_same_function(tmp_path: Path, options: Any) -> None:
    base, alignment = gpt(0), reordering()
    new_base = moved_base(base, alignment)
    model = adapted(base, tmp_path / "old", **options)
    carried = sr.carry_adapter(tmp_path / "old", base, new_base, alignment, 1.0, example_inputs=INPUTS)
    carried.save(tmp_path / "new")
    loaded = peft.PeftModel.from_pretrained(standalone_copy(new_base), tmp_path / "new").eval()
    scale = logits(model).abs().max()
    assert (logits(loaded) - logits(model)).abs().max() < 1e-4 * scale
    assert (logits(model) - logits(base)).abs().max() > 0.02 * scale
    stale = peft.PeftModel.from_pretrained(standalone_copy(new_base), tmp_path / "old").eval()
    assert (logits(stale) - logits(model)).abs().max() > 0.02 * scale
    torch.testing.assert_close(logits(carried.apply(new_base)), logits(loaded), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        logits(sr.Adapter.load(tmp_path / "old").apply(base)), logits(model), atol=1e-4, rtol=1e-4
    )


def test_what_peft_merges_is_the_carried_full_update(tmp_path: Path) -> None:
    base, new_base = gpt(0), gpt(1)
    alignment = reordering()
    model = adapted(base, tmp_path / "old", target_modules=["c_attn", "c_proj", "c_fc"])
    carried = sr.carry_adapter(tmp_path / "old", base, new_base, alignment, 1.0, example_inputs=INPUTS)
    carried.save(tmp_path / "new")
    wide = [standalone_copy(network).double() for network in (base, new_base)]
    for network, folder in zip(wide, ("old", "new"), strict=True):
        model = peft.PeftModel.from_pretrained(standalone_copy(network), tmp_path / folder)
        merged = model.double().merge_and_unload()
        network.tuned = (merged,)
    (tuned,), (new_tuned,) = (network.__dict__.pop("tuned") for network in wide)
    full = sr.carry(tuned, *wide, alignment, 1.0, example_inputs=INPUTS)
    names = [name for name, _ in new_base.named_parameters()]
    assert farthest(difference(new_tuned, wide[1]), {name: full.state[name] for name in names}) < 1e-6
    ranks = {len(t) for key, t in carried.tensors.items() if "lora_A" in key}
    assert ranks == {4}


def test_a_head_of_other_labels_is_left_and_peft_loads_the_rest(tmp_path: Path) -> None:
    base, new_base = gpt(0, CLASSIFIER, num_labels=3), gpt(1, CLASSIFIER, num_labels=5)
    adapted(base, tmp_path / "old", target_modules=["c_attn"], modules_to_save=["score"])
    alignment = reordering(CLASSIFIER)
    carried = sr.carry_adapter(tmp_path / "old", base, new_base, alignment, 1.0, example_inputs=INPUTS)
    assert carried.notes == ("heads of other labels stay as they are: score.weight",)
    carried.save(tmp_path / "new")
    loaded = peft.PeftModel.from_pretrained(standalone_copy(new_base), tmp_path / "new").eval()
    torch.testing.assert_close(logits(loaded), logits(carried.apply(new_base)), atol=1e-4, rtol=1e-4)
    assert (logits(loaded) - logits(new_base)).abs().max() > 1e-3


def test_a_saved_head_of_the_same_labels_goes_along(tmp_path: Path) -> None:
    base, alignment = gpt(0, CLASSIFIER, num_labels=3), reordering(CLASSIFIER)
    new_base = moved_base(base, alignment)
    model = adapted(base, tmp_path / "old", target_modules=["c_attn"], task_type="SEQ_CLS")
    sr.carry_adapter(tmp_path / "old", base, new_base, alignment, 1.0, example_inputs=INPUTS).save(
        tmp_path / "new"
    )
    loaded = peft.PeftModel.from_pretrained(standalone_copy(new_base), tmp_path / "new").eval()
    torch.testing.assert_close(logits(loaded), logits(model), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["IA3", "LOHA"])
def test_other_kinds_of_adapters_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    feedforward = {"feedforward_modules": []} if kind == "IA3" else {}
    config = {"IA3": peft.IA3Config, "LOHA": peft.LoHaConfig}[kind](target_modules=["last"], **feedforward)
    peft.get_peft_model(nn.ModuleDict({"last": nn.Linear(2, 2)}), config).save_pretrained(tmp_path)
    with pytest.raises(ArchitectureError, match=f"its config says '{kind}'"):
        sr.Adapter.load(tmp_path)


def test_llama_is_carried_with_its_grouped_heads(tmp_path: Path) -> None:
    base, alignment = llama(), reordering("llama")
    new_base = moved_base(base, alignment)
    options = {"target_modules": "all-linear", "fan_in_fan_out": False, "modules_to_save": ["embed_tokens"]}
    model = adapted(base, tmp_path / "old", **options)
    sr.carry_adapter(tmp_path / "old", base, new_base, alignment, 1.0, example_inputs=INPUTS).save(
        tmp_path / "new"
    )
    loaded = peft.PeftModel.from_pretrained(standalone_copy(new_base), tmp_path / "new").eval()
    scale = logits(model).abs().max()
    assert (logits(loaded) - logits(model)).abs().max() < 1e-4 * scale
