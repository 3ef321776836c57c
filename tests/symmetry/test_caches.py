"""Caches of keys and values hold no unit of attention fast, and specs say that they are not kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from sinkhorn_rebasin import discover_symmetry, permute_state, random_permutations, verify_symmetry
from tests.symmetry.attention_networks import LanguageModel, ModelOutput, tokens

# Of two layers each: the heads, the units of queries and keys, those of values, the hidden units; and the stream.
GROUPS = 9


@pytest.mark.parametrize(
    ("returned", "left_out"),
    [
        (lambda logits, kept, _: (logits, kept), ("[1]",)),
        (lambda logits, kept, _: {"scores": logits, "any": kept}, ("any",)),
        (lambda logits, kept, _: ModelOutput(logits=logits, any=kept), ("any",)),
        (lambda logits, kept, _: ModelOutput(last_hidden_state=logits, past_key_values=kept.layers), None),
        (lambda logits, kept, _: (logits, {"more": [kept]}), ("[1]['more'][0]",)),
    ],
)
def test_attention_moves_whole_where_caches_are_returned(
    returned: Callable[..., Any], left_out: tuple[str, ...] | None
) -> None:
    torch.manual_seed(0)
    model = LanguageModel(returned).double().eval()
    spec = discover_symmetry(model, tokens())
    assert len(spec.groups) == GROUPS
    assert spec.validity is not None
    left_out = left_out or ("past_key_values",)
    assert spec.validity.left_out == left_out
    assert f"does not keep the outputs {', '.join(left_out)}" in str(spec)
    assert verify_symmetry(model, spec, tokens()) < 1e-12
    twin = LanguageModel(lambda logits, kept, _: logits).double()
    plain = LanguageModel(lambda logits, kept, _: logits).double()
    plain.load_state_dict(model.state_dict())
    twin.load_state_dict(permute_state(model.state_dict(), spec, random_permutations(spec)))
    torch.testing.assert_close(twin(tokens(1)), plain(tokens(1)), rtol=1e-10, atol=1e-12)


def test_keys_that_are_outputs_of_their_own_hold_the_units_fast() -> None:
    model = LanguageModel(lambda logits, kept, _: (logits, kept.layers))
    assert len(discover_symmetry(model, tokens()).groups) == 3
    chosen = discover_symmetry(model, tokens(), outputs=lambda found: found[0])
    assert len(chosen.groups) == GROUPS


def test_attention_moves_whole_where_a_plain_tuple_holds_keys_and_values() -> None:
    class Taking(LanguageModel):
        """It takes back what it returns."""

        def forward(self, ids: Any, past: Any = None) -> Any:
            return super().forward(ids)

    torch.manual_seed(0)
    model = Taking(lambda logits, kept, _: (logits, kept.layers)).double().eval()
    spec = discover_symmetry(model, tokens())
    assert len(spec.groups) == GROUPS
    assert "does not keep the outputs [1]" in str(spec)
    assert verify_symmetry(model, spec, tokens()) < 1e-12
