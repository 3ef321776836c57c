"""Networks of many kinds, from discovery to a canonical form that turns freely."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sinkhorn_rebasin.errors import SymmetryError
from sinkhorn_rebasin.networks.untying import untie
from sinkhorn_rebasin.permutations import random_maps, random_permutations, transform_state
from sinkhorn_rebasin.symmetry import canonicalize, discover_continuous, discover_rescaling, discover_symmetry
from tests.symmetry.continuous.test_verdicts import CASES
from tests.symmetry.witness import difference, in_double_precision


def turns_freely(model: nn.Module, inputs: Tensor) -> None:
    """The canonical form is the same function, and so is a random element of the whole group on it."""
    spec = discover_symmetry(model, inputs)
    rescaling = discover_rescaling(model, spec, inputs, signs=False)
    continuous = discover_continuous(model, spec, inputs, rescaling=rescaling)
    canonical = canonicalize(model, spec, continuous, inputs, rescaling=rescaling)
    assert difference(model, canonical.state_dict(), inputs) < 1e-12
    generator = torch.Generator().manual_seed(0)
    maps = random_maps(continuous, generator=generator)
    orders = random_permutations(spec, generator=generator)
    moved = transform_state(canonical.state_dict(), spec, continuous, maps, orders)
    assert difference(canonical, moved, inputs) < 1e-12
    assert len(continuous.names) >= 1


def displaced(model: nn.Module) -> nn.Module:
    """In double precision, no vector at a special value."""
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


NAMES = [
    "bottleneck",
    "positions that heads share",
    "ViT",
    "Llama",
    "Gemma",
    "grouped queries",
    "norms of queries and keys",
    "rotary with grouped queries",
    "rotary in half of each head with grouped queries",
    "rotary with norms of queries and keys",
    "packed rotary with grouped queries",
    "packed rotary with one key head",
    "heads of two widths",
]


@pytest.mark.parametrize("name", [*NAMES, "batch norm folded"])
def test_the_whole_group_acts_on_the_canonical_form(name: str) -> None:
    torch.manual_seed(0)
    build, draw, _ = CASES[name]
    model = displaced(build())
    turns_freely(model, in_double_precision(draw(model)))


def test_each_of_heads_of_two_widths_is_balanced_and_stays_so() -> None:
    torch.manual_seed(0)
    model = displaced(CASES["heads of two widths"][0]())
    inputs = torch.randint(9, (3, 5))
    spec = discover_symmetry(model, inputs)
    continuous = discover_continuous(model, spec, inputs)
    canonical = canonicalize(model, spec, continuous, inputs)
    attention = canonical.blocks[0].attention
    matrix, bias, out = (
        tensor.detach() for tensor in (attention.rows.weight, attention.rows.bias, attention.out.weight)
    )
    for queries, keys, values, columns in (
        (slice(0, 3), slice(8, 11), slice(16, 20), slice(0, 4)),
        (slice(3, 8), slice(11, 16), slice(20, 26), slice(4, 10)),
    ):
        asking = torch.cat([matrix[queries], bias[queries, None]], 1)
        assert torch.allclose(asking @ asking.mT, matrix[keys] @ matrix[keys].mT, atol=1e-10)
        assert torch.allclose(
            matrix[values] @ matrix[values].mT, out[:, columns].mT @ out[:, columns], atol=1e-10
        )
        assert not bias[keys].any()
        assert not bias[values].any()
    again = canonicalize(canonical, spec, continuous, inputs).state_dict()
    for name, tensor in canonical.state_dict().items():
        assert torch.allclose(again[name], tensor, atol=1e-10), name


@pytest.mark.parametrize("name", ["GPT", "post-norm"])
def test_gains_that_nothing_takes_are_refused_by_name(name: str) -> None:
    torch.manual_seed(0)
    build, draw, _ = CASES[name]
    model = displaced(build())
    inputs = draw(model)
    spec = discover_symmetry(model, inputs)
    with pytest.raises(SymmetryError, match=r"moves the gain '.*norm.*' into what reads it but got none"):
        canonicalize(model, spec, discover_continuous(model, spec, inputs), inputs)


class Tied(nn.Module):
    """A language model with a head of its own that holds the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.norm1, self.norm = nn.Embedding(9, 6), nn.RMSNorm(6), nn.RMSNorm(6)
        self.up, self.down, self.head = nn.Linear(6, 8), nn.Linear(8, 6), nn.Linear(6, 9, bias=False)
        self.head.weight = self.words.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens)
        x = x + self.down(F.gelu(self.up(self.norm1(x))))
        output: Tensor = self.head(self.norm(x))
        return output


def test_an_untied_network_folds_what_a_tied_one_could_not() -> None:
    torch.manual_seed(0)
    model, tokens = displaced(Tied()), torch.randint(9, (3, 5))
    spec = discover_symmetry(model, tokens)
    with pytest.raises(SymmetryError, match=r"'norm.weight'.*untie"):
        canonicalize(model, spec, discover_continuous(model, spec, tokens), tokens)
    twin = untie(model)
    assert torch.equal(twin(tokens), model(tokens))
    turns_freely(twin, tokens)
