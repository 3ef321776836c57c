"""Gains of norms that became matrices: the same function, one matrix more, and names that are no gains."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.expanding import expand


class Language(nn.Module):
    """An embedding that is read again as the head, without a name of its own there."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.words, self.norm, self.scale = nn.Embedding(7, 4), norm, nn.Parameter(torch.rand(4))
        with torch.no_grad():
            for parameter in norm.parameters():
                parameter.add_(torch.randn_like(parameter))

    def forward(self, tokens: Tensor) -> Tensor:
        return F.linear(self.norm(self.words(tokens) * self.scale), self.words.weight)


@pytest.mark.parametrize("norm", [nn.LayerNorm(4), nn.RMSNorm(4), nn.LayerNorm(4, bias=False)])
def test_the_copy_computes_the_same_with_a_gain_of_one(norm: nn.Module) -> None:
    torch.manual_seed(0)
    model, tokens = Language(norm).train(), torch.randint(7, (2, 3))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    twin = expand(model, ["norm.weight"], tokens)
    assert type(twin) is Language
    assert twin.norm.training
    torch.testing.assert_close(twin(tokens), model(tokens))
    state = twin.state_dict()
    assert torch.equal(state["norm.0.weight"], torch.ones(4))
    assert torch.equal(state["norm.1.weight"], before["norm.weight"].diag())
    assert ("norm.1.bias" in state) == ("norm.bias" in before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_layer_at_two_places_is_one_layer_afterwards() -> None:
    torch.manual_seed(0)
    norm = nn.LayerNorm(4)
    model, x = nn.Sequential(norm, nn.Linear(4, 4), norm), torch.randn(3, 4)
    twin = expand(model, ["0.weight"], x)
    assert twin[0] is twin[2]
    torch.testing.assert_close(twin(x), model(x))


def test_what_is_frozen_stays_frozen() -> None:
    model = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 2)).requires_grad_(False)
    twin = expand(model, ["0.weight"], torch.randn(3, 4))
    assert not any(parameter.requires_grad for parameter in twin.parameters())


@pytest.mark.parametrize("name", ["scale", "words.weight", "norm", "norm.other", "nowhere.weight"])
def test_a_name_that_is_no_gain_is_refused(name: str) -> None:
    with pytest.raises(ArchitectureError, match=f"but got '{name}'"):
        expand(Language(nn.LayerNorm(4)), [name], torch.randint(7, (2, 3)))


class PlusOne(nn.Module):
    """A norm whose gain is what it holds, and one more."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4))

    def forward(self, inputs: Tensor) -> Tensor:
        return F.rms_norm(inputs, (4,)) * (1 + self.weight)


def test_what_is_no_mere_factor_is_refused() -> None:
    torch.manual_seed(0)
    with pytest.raises(ArchitectureError, match=r"Expected norm.weight to multiply .* output changes by"):
        expand(Language(PlusOne()), ["norm.weight"], torch.randint(7, (2, 3)))


def test_a_gain_that_two_norms_share_is_refused() -> None:
    model = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4), nn.LayerNorm(4))
    model[2].weight = model[0].weight
    with pytest.raises(ArchitectureError, match=r"'2\.weight' is tied"):
        expand(model, ["2.weight"], torch.randn(3, 4))
