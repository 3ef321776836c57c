"""Which outputs of a network count, asked for or not."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.counted_outputs import (
    count_only,
    counted,
    fields_of,
    names_left_out,
    names_that_count,
)
from sinkhorn_rebasin.networks.nested_tensors import tensors_in

ONE, TWO = torch.ones(1), torch.ones(2)


class ModelOutput(OrderedDict[str, Any]):
    """What networks of the transformers library return."""


class DynamicCache:
    """Keys and values, as the transformers library keeps them."""

    __module__ = "transformers.cache_utils"

    def __init__(self) -> None:
        self.keys = [torch.ones(3)]


class Named(NamedTuple):
    logits: Tensor
    state: Tensor


@dataclass
class Fields:
    logits: Tensor
    state: Tensor | None = None


def sizes(outputs: Any, returned: Any, training: bool = False) -> list[int]:
    """Lengths of the tensors that count."""
    network = nn.Linear(1, 1).train(training)
    count_only(network, outputs)
    return [len(tensor) for tensor in tensors_in(counted(network, returned))]


@pytest.mark.parametrize(
    ("names", "count"),
    [
        (["loss", "logits", "past_key_values"], ["logits"]),
        (["logits_per_image", "logits_per_text", "text_embeds"], ["logits_per_image", "logits_per_text"]),
        (["start_logits", "end_logits", "hidden_states"], ["start_logits", "end_logits"]),
        (["logits", "pred_boxes", "last_hidden_state"], ["logits", "pred_boxes"]),
        (["logits", "router_logits", "aux_loss"], ["logits"]),
        (["last_hidden_state", "pooler_output"], []),
    ],
)
def test_the_logits_of_a_model_output_count(names: list[str], count: list[str]) -> None:
    returned = ModelOutput((name, ONE) for name in names)
    assert names_that_count(returned) == tuple(count)
    assert names_that_count(dict(returned)) == ()
    assert len(sizes(None, returned)) == len(count or names)
    left_out = names_left_out(nn.Linear(1, 1), returned, names_that_count(returned))
    assert left_out == tuple(name for name in names if count and name not in count)


@pytest.mark.parametrize("returned", [Named(ONE, TWO), Fields(ONE, TWO), {"logits": ONE, "state": TWO}])
def test_containers_of_any_kind_have_names_and_count_whole(returned: Any) -> None:
    assert list(fields_of(returned)) == ["logits", "state"]
    assert sizes(None, returned) == [1, 2]
    assert sizes("state", returned) == [2]
    assert sizes(["state", "logits"], returned) == [2, 1]


@pytest.mark.parametrize(
    "returned",
    [
        (TWO, DynamicCache()),
        {"logits": TWO, "past_key_values": ((ONE, ONE),)},
        ModelOutput(last_hidden_state=TWO, cache_params=[ONE]),
        ModelOutput(last_hidden_state=TWO, memory=DynamicCache()),
        [TWO, {"past_key_values": ONE}, (DynamicCache(),)],
    ],
)
def test_caches_never_count(returned: Any) -> None:
    assert sizes(None, returned) == [2]


def test_a_function_says_what_counts() -> None:
    assert sizes(lambda out: out[1], (ONE, TWO)) == [2]


@pytest.mark.parametrize(
    ("outputs", "returned", "told"),
    [
        ("logit", {"logits": ONE, "hidden": TWO}, "'logit'.*'logits', 'hidden'"),
        ("loss", {"logits": ONE, "loss": None}, "'loss'.*'logits'"),
        ("logits", ONE, "without names.*function"),
        ("logits", (ONE, TWO), "tuple, without names.*function"),
        (["logits", "x"], Named(ONE, TWO), "'x'.*'logits', 'state'"),
        (lambda out: None, ONE, "at least one tensor but it made NoneType"),
        (lambda out: out.logits, ONE, "AttributeError"),
    ],
)
def test_outputs_that_do_not_exist_are_refused_by_name(outputs: Any, returned: Any, told: str) -> None:
    with pytest.raises(ArchitectureError, match=told):
        sizes(outputs, returned)
    assert sizes(outputs, returned, training=True) == [len(t) for t in tensors_in(returned)]


@pytest.mark.parametrize("outputs", [3, [], ["logits", 1], b"logits"])
def test_what_names_no_output_is_refused(outputs: Any) -> None:
    with pytest.raises(ArchitectureError, match="name of an output, a sequence of names or a function"):
        count_only(nn.Linear(1, 1), outputs)
