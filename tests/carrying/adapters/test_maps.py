"""Adapters carried by maps, and there and back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import ArchitectureError
from tests.carrying.adapters.networks import TOKENS, lora, mixed, moved_base, normal
from tests.carrying.networks import farthest, tuned_from
from tests.carrying.test_along_alignment import Untied
from tests.carrying.test_carry import random_alignment

INPUTS = torch.arange(10).reshape(2, 5)


def turned(base: nn.Module) -> sr.Alignment:
    """An alignment of random maps of a network whose gains are one."""
    spec = sr.discover_symmetry(base, INPUTS)
    continuous = sr.discover_continuous(base, spec, INPUTS)
    generator = torch.Generator().manual_seed(0)
    maps = sr.random_maps(continuous, generator=generator)
    order = sr.random_permutations(spec, generator=generator)
    return sr.Alignment(
        {n: p for n, p in order.items() if n not in maps}, spec, maps=maps, continuous=continuous
    )


def adapter(**config: object) -> sr.Adapter:
    shapes = {
        "up.lora_A.weight": (2, 6),
        "up.lora_B.weight": (8, 2),
        "down.lora_A.weight": (2, 8),
        "down.lora_B.weight": (6, 2),
        "embedding.lora_embedding_A": (2, 10),
        "embedding.lora_embedding_B": (6, 2),
        "head.lora_A.weight": (2, 6),
        "head.lora_B.weight": (3, 2),
    }
    tensors = {key: normal(*shape, seed=seed) for seed, (key, shape) in enumerate(shapes.items())}
    return sr.Adapter({"peft_type": "LORA", "lora_alpha": 2, **config}, tensors)


def test_maps_turn_factors_and_the_function_stays() -> None:
    torch.manual_seed(0)
    base = Untied().eval()
    alignment = turned(base)
    assert alignment.maps
    new_base = moved_base(base, alignment)
    carried = sr.carry_adapter(adapter(), base, new_base, alignment, 1.0, example_inputs=INPUTS)
    expected = adapter().apply(base)(INPUTS)
    torch.testing.assert_close(carried.apply(new_base)(INPUTS), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(new_base(INPUTS), base(INPUTS), atol=1e-4, rtol=1e-4)
    assert (adapter().apply(new_base)(INPUTS) - expected).abs().max() > 0.1


def test_maps_of_canonical_forms_are_refused_for_networks_in_another_form() -> None:
    torch.manual_seed(0)
    base = Untied().eval()
    alignment = turned(base)
    bases = tuned_from(base), tuned_from(base, 1)
    with pytest.raises(ArchitectureError, match=r"forms.*'last.weight' of the base.*symmetry='permutation'"):
        sr.carry_adapter(adapter(), *bases, alignment, example_inputs=INPUTS)
    # What the message says to do instead.
    assert sr.carry(adapter().apply(bases[0]), *bases, alignment, example_inputs=INPUTS).frame


def test_a_result_for_canonical_forms_is_taken_for_bases_that_have_this_form() -> None:
    torch.manual_seed(0)
    bases = tuned_from(Untied().eval()), tuned_from(Untied().eval(), 1)
    result = sr.align(bases[1], bases[0], example_inputs=INPUTS, rescale=False, progress=False)
    continuous = result.alignment.continuous
    assert continuous is not None
    with pytest.raises(ArchitectureError, match=r"canonical forms.*of the base"):
        sr.carry_adapter(adapter(), *bases, result, example_inputs=INPUTS)
    forms = [sr.canonicalize(each, result.alignment.spec, continuous, INPUTS) for each in bases]
    carried = sr.carry_adapter(adapter(), *forms, result, 1.0, example_inputs=INPUTS).apply(forms[1])
    full = sr.carry(adapter().apply(forms[0]), *forms, result, 1.0, example_inputs=INPUTS).apply(forms[1])
    torch.testing.assert_close(carried(INPUTS), full(INPUTS), atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        forms[0].down.bias.add_(1.0)  # a mean, which the form does not have
    with pytest.raises(ArchitectureError, match=r"'down.bias' of the base is another one there"):
        sr.carry_adapter(adapter(), *forms, result, example_inputs=INPUTS)


def test_the_magnitudes_of_dora_are_refused_where_maps_mix_outputs() -> None:
    torch.manual_seed(0)
    base = Untied().eval()
    alignment = turned(base)
    new_base = moved_base(base, alignment)
    given = adapter(use_dora=True)
    up = sr.Adapter(given.config, {**given.tensors, "up.lora_magnitude_vector": normal(8).abs() + 0.5})
    carried = sr.carry_adapter(up, base, new_base, alignment, 1.0, example_inputs=INPUTS)
    expected = up.apply(base)(INPUTS)
    torch.testing.assert_close(carried.apply(new_base)(INPUTS), expected, atol=1e-4, rtol=1e-4)
    down = sr.Adapter(given.config, {**given.tensors, "down.lora_magnitude_vector": normal(6).abs() + 0.5})
    with pytest.raises(ArchitectureError, match=r"outputs of 'down.weight' that are permuted"):
        sr.carry_adapter(down, base, new_base, alignment, 1.0, example_inputs=INPUTS)


@pytest.mark.parametrize("dora", [False, True])
def test_there_and_back_is_the_adapter_itself(dora: bool) -> None:
    base, given = mixed(0).double(), lora(dora=dora)
    wide = sr.Adapter(given.config, {key: tensor.double() for key, tensor in given.tensors.items()})
    alignment = random_alignment(mixed(0), TOKENS)
    new_base = moved_base(base, alignment) if dora else mixed(1).double()
    there = sr.carry_adapter(wide, base, new_base, alignment, 1.0, example_inputs=TOKENS)
    back = sr.carry_adapter(there, new_base, base, alignment.invert(), 1.0, example_inputs=TOKENS)
    assert farthest(back.tensors, wide.tensors) < 1e-6
    assert farthest(there.tensors, wide.tensors) > 0.5
