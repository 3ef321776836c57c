"""Units are held fast by the outputs that count, and by no others."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin import (
    PermutationSpec,
    SinkhornRebasin,
    discover_rescaling,
    discover_symmetry,
    permute_state,
    random_permutations,
    verify_symmetry,
)
from sinkhorn_rebasin.errors import ArchitectureError, SpecError, SymmetryError

X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


class ModelOutput(OrderedDict[str, Any]):
    """What networks of the transformers library return."""


class Encoder(nn.Module):
    """Returns the state of its encoder beside its logits; in training mode those of an auxiliary head too."""

    def __init__(self, kind: Callable[..., Any] = dict) -> None:
        super().__init__()
        self.enc, self.mid, self.head, self.aux = (
            nn.Linear(3, 8),
            nn.Linear(8, 6),
            nn.Linear(6, 2),
            nn.Linear(8, 5),
        )
        self.kind = kind

    def forward(self, x: Tensor) -> Any:
        h = self.enc(x).relu()
        logits = self.head(self.mid(h).relu())
        if self.training:
            return logits, self.aux(h)
        return self.kind(logits=logits, encoder_last_hidden_state=h)


def sizes(spec: PermutationSpec) -> list[int]:
    return sorted(group.size for group in spec.groups)


def change_of_logits(model: nn.Module, spec: PermutationSpec) -> float:
    """Largest change of the logits on fresh inputs, in float64, by load_state_dict and a plain forward."""
    wide, twin = copy.deepcopy(model).double().eval(), copy.deepcopy(model).double().eval()
    twin.load_state_dict(permute_state(wide.state_dict(), spec, random_permutations(spec)))
    x = torch.randn(7, 3, dtype=torch.float64)
    return float((wide(x)["logits"] - twin(x)["logits"]).detach().abs().max())


@pytest.mark.parametrize(
    ("kind", "outputs", "expected"),
    [
        (dict, None, [6]),
        (dict, "logits", [6, 8]),
        (dict, ["logits"], [6, 8]),
        (dict, ["logits", "encoder_last_hidden_state"], [6]),
        (dict, "encoder_last_hidden_state", [6]),
        (dict, lambda out: out["logits"], [6, 8]),
        (dict, lambda out: (out["logits"], out["encoder_last_hidden_state"].sum(-1)), [6, 8]),
        (dict, lambda out: (out["logits"], out["encoder_last_hidden_state"].cumsum(-1)), [6]),
        (ModelOutput, None, [6, 8]),
        (ModelOutput, dict, [6]),
    ],
)
def test_what_counts_holds_fast(kind: Callable[..., Any], outputs: Any, expected: list[int]) -> None:
    torch.manual_seed(0)
    model = Encoder(kind).eval()
    spec = discover_symmetry(model, X, outputs=outputs)
    assert sizes(spec) == expected
    assert verify_symmetry(model, spec, X) < 1e-12
    if outputs != "encoder_last_hidden_state":
        assert change_of_logits(model, spec) < 1e-13
    if expected == [6, 8]:
        with pytest.raises(SymmetryError, match="'enc'"):
            verify_symmetry(model, spec, X, outputs="encoder_last_hidden_state")


def test_a_spec_remembers_what_counts() -> None:
    model = Encoder(ModelOutput)
    spec = discover_symmetry(model, X)
    assert spec.validity is not None
    assert spec.validity.outputs == ("logits",)
    assert spec.validity.left_out == ("encoder_last_hidden_state",)
    assert "keeps the outputs logits" in str(spec)
    assert "does not keep the outputs encoder_last_hidden_state" in str(spec)
    again = PermutationSpec.from_json(spec.to_json())
    assert again.validity == spec.validity
    assert verify_symmetry(model, again, X) < 1e-12


def test_a_function_is_remembered_by_its_name_alone() -> None:
    def logits(output: Any) -> Tensor:
        found: Tensor = output["logits"]
        return found

    model = Encoder()
    spec = discover_symmetry(model, X, outputs=logits)
    assert "logits makes of the output" in str(spec)
    assert verify_symmetry(model, spec, X) < 1e-12
    again = PermutationSpec.from_json(spec.to_json())
    assert again == spec
    with pytest.raises(SpecError, match=r"function .*logits.*outputs="):
        verify_symmetry(model, again, X)
    assert verify_symmetry(model, again, X, outputs=logits) < 1e-12


def test_rescaling_and_rebasin_use_the_outputs_of_the_spec() -> None:
    torch.manual_seed(0)
    reference, target = Encoder(), Encoder()
    spec = discover_symmetry(reference, X, outputs="logits")
    scaled = discover_rescaling(reference, spec, X)
    assert sorted(one.group for one in scaled.generators if one.kind == "positive") == ["enc", "mid"]
    whole = discover_rescaling(reference, spec, X, outputs=["logits", "encoder_last_hidden_state"])
    assert sorted({one.group for one in whole.generators}) == ["mid"]
    for rebasin in (
        SinkhornRebasin(reference, target, X, outputs="logits", rescale=True),
        SinkhornRebasin(reference, target, X, spec=spec),
    ):
        assert sizes(rebasin.spec) == [6, 8]
        found = rebasin.to_model().eval()(X)["logits"]
        torch.testing.assert_close(found, target.eval()(X)["logits"], rtol=1e-4, atol=1e-5)
    with pytest.raises(SymmetryError, match="'enc'"):
        SinkhornRebasin(reference, target, X, spec=spec, outputs="encoder_last_hidden_state")


@pytest.mark.parametrize(
    ("outputs", "told"),
    [
        ([], "name of an output"),
        ("logit", "'logit'.*'logits', 'encoder_last_hidden_state'"),
        (lambda out: None, "at least one tensor"),
        (lambda out: out.logits, "AttributeError"),
        (3, "name of an output"),
    ],
)
def test_outputs_that_do_not_exist_are_refused(outputs: Any, told: str) -> None:
    model = Encoder()
    spec = discover_symmetry(model, X)
    for call in (
        lambda: discover_symmetry(model, X, outputs=outputs),
        lambda: verify_symmetry(model, spec, X, outputs=outputs),
        lambda: discover_rescaling(model, spec, X, outputs=outputs),
        lambda: SinkhornRebasin(model, Encoder(), X, outputs=outputs),
    ):
        with pytest.raises((ArchitectureError, SpecError), match=told):
            call()
