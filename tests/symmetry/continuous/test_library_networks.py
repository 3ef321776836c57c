"""Groups of tiny transformers of the library, and of timm's architectures, are those of theory."""

from __future__ import annotations

import importlib.util
from collections import Counter
from functools import cache
from typing import NamedTuple

import pytest
import torch

from experiments.zoo import continuous as zoo
from experiments.zoo.entry import Entry
from experiments.zoo.torchvision_models import import_models
from sinkhorn_rebasin import discover_continuous, discover_symmetry
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec
from sinkhorn_rebasin.symmetry import verify_continuous
from tests.transformers_zoo import FAMILIES, inputs, library, network

pytestmark = pytest.mark.slow
HEADS = {"linear": 4}
"""Two layers of attention: queries and keys, values and outputs."""
ROTARY = {"orthogonal": 1, "linear": 2, "rotary": 2}


class Theory(NamedTuple):
    """How many groups there are of each kind, and the gains that nothing takes: their readers are tied or add up."""

    kinds: dict[str, int]
    unfoldable: tuple[str, ...] = ()
    less_one: int = 0


def post_norm(first: str, layers: str, attention: str, last: str) -> tuple[str, ...]:
    """The gains of norms behind additions; the last one is read by the head alone."""
    return (first, f"{layers}.0.{attention}", f"{layers}.0.{last}", f"{layers}.1.{attention}")


BERT = "encoder.layer", "attention.output.LayerNorm.weight", "output.LayerNorm.weight"
THEORY = {
    "gpt2": Theory({"orthogonal, X1 = 1": 1, **HEADS}, ("transformer.ln_f.weight",)),
    "llama": Theory(ROTARY),
    "mistral": Theory(ROTARY),
    "qwen2": Theory(ROTARY),
    "gemma": Theory(ROTARY, ("model.norm.weight",), less_one=4),
    "bert": Theory(
        {"orthogonal, X1 = 1": 1, **HEADS},
        post_norm("bert.embeddings.LayerNorm.weight", f"bert.{BERT[0]}", *BERT[1:]),
    ),
    "roberta": Theory(
        {"orthogonal, X1 = 1": 1, **HEADS},
        post_norm("roberta.embeddings.LayerNorm.weight", f"roberta.{BERT[0]}", *BERT[1:]),
    ),
    # GELU acts on what the tied embedding reads.
    "masked bert": Theory(HEADS),
    "distilbert": Theory(
        {"orthogonal, X1 = 1": 1, **HEADS},
        post_norm(
            *("distilbert.embeddings.LayerNorm.weight", "distilbert.transformer.layer"),
            *("sa_layer_norm.weight", "output_layer_norm.weight"),
        ),
    ),
    "vit": Theory({"orthogonal, X1 = 1": 1, **HEADS}),
    "t5": Theory({"orthogonal": 1, "linear": 12}, ("decoder.final_layer_norm.weight",)),
}


def kinds_of(continuous: ContinuousSpec) -> dict[str, int]:
    """How many groups there are of each kind."""
    return Counter(one.kind + ", X1 = 1" * one.fixes_ones for one in continuous.symmetries)


def test_every_family_has_its_theory() -> None:
    assert THEORY.keys() == FAMILIES.keys()


@pytest.mark.parametrize("name", FAMILIES)
def test_the_groups_of_transformers_are_those_of_theory(name: str) -> None:
    library()
    if importlib.util.find_spec("torchvision"):
        import_models()  # transformers imports torchvision where it is installed
    model, examples = network(name), inputs(name)
    spec = discover_symmetry(model, examples)
    continuous = discover_continuous(model, spec, examples)
    theory = THEORY[name]
    assert kinds_of(continuous) == theory.kinds, str(continuous)
    assert tuple(gain for one in continuous.symmetries for gain in one.unfoldable) == theory.unfoldable
    assert sum(len(one.less_one) for one in continuous.symmetries) == theory.less_one
    assert zoo.described(spec, continuous)["not larger without a reason"] == []
    again = torch.Generator().manual_seed(1)
    assert verify_continuous(model, spec, continuous, examples, generator=again) < 1e-9


@cache
def timm_entries() -> dict[str, Entry]:
    """Those of timm's architectures that are measured, where it is installed."""
    pytest.importorskip("timm", reason="timm is not installed; it comes with pip install timm torchvision")
    return {entry.name: entry for entry in zoo.entries("timm")}


TIMM: dict[str, dict[str, int]] = {
    # Queries and keys of three blocks, whose heads share a table of relative positions.
    "botnet26t_256": {"linear": 3},
    **{
        key: {"orthogonal, X1 = 1": 1, "linear": 24}
        for key in ("deit_tiny_patch16_224", "vit_tiny_patch16_224")
    },
    "eva02_tiny_patch14_224": {"orthogonal, X1 = 1": 1, "linear": 12, "rotary": 12},
}
# An activation, a batch norm or a gain of its own stands on every stream.
for key in (
    *("convmixer_768_32", "convnext_atto", "convnextv2_atto", "densenet121", "edgenext_xx_small"),
    *("efficientnet_b0", "efficientvit_m0", "fastvit_t8"),
):
    TIMM[key] = {}
# What theory says, of those where somebody has worked it out; of the others the proof and the reasons are asked.


@pytest.mark.parametrize("name", sorted(zoo.TIMM))
def test_the_groups_of_timm_are_those_of_theory(name: str) -> None:
    entry = timm_entries().get(name)
    if entry is None:
        pytest.skip(f"this timm has no {name}")
    torch.manual_seed(0)
    model, examples = entry.make().eval(), entry.inputs()
    spec = discover_symmetry(model, examples)
    continuous = discover_continuous(model, spec, examples)
    assert kinds_of(continuous) == TIMM.get(name, kinds_of(continuous)), str(continuous)
    assert continuous.error < 1e-9
    assert zoo.described(spec, continuous)["not larger without a reason"] == []
