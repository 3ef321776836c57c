"""Permutations of groups inside groups, planted in networks of every family, are found again."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import nn

from experiments.find_permutation.methods import matched, ours
from experiments.find_permutation.problems import FLAT, NESTED, PROBLEMS, Problem, plant
from experiments.models import Architecture
from sinkhorn_rebasin import discover_symmetry, permute_state, random_permutations
from sinkhorn_rebasin.permutations import inverse

DEPTHS = {"gpt": 1, "vit": 1, "lstm": 0, "resnext": 1}


@pytest.mark.parametrize("name", NESTED)
@pytest.mark.parametrize("seed", range(2))
def test_gradient_descent_without_data_finds_it(name: str, seed: int) -> None:
    problem = PROBLEMS[name]
    reference, target, spec, answer = plant(problem, seed)
    nested = [group for group in spec.groups if group.parent is not None]
    assert bool(nested) == bool(DEPTHS[problem.architecture.name])
    result = ours(problem, reference, target, spec, answer, seed)
    assert result["recovered"] == 1.0
    assert result["iteration"] < 25


@pytest.mark.parametrize("name", NESTED)
@pytest.mark.parametrize("seed", range(2))
def test_weight_matching_finds_it_from_one_order(name: str, seed: int) -> None:
    result = matched(*plant(PROBLEMS[name], seed), seed, "invariants")
    assert result["recovered"] == 1.0
    assert result["iteration"] <= 2


def test_from_the_identity_the_tied_embedding_of_a_language_model_misleads_weight_matching() -> None:
    """Its columns are short, and neighbours in a wrong order outweigh them: why invariants come first."""
    found = [matched(*plant(PROBLEMS["GPT 2x64, 4 heads"], seed), seed, "identity") for seed in range(3)]
    assert all(result["iteration"] is None for result in found)


def test_a_wrong_answer_is_not_called_found() -> None:
    small = Problem(
        Architecture("vit", (2, 3, 8, 8), {"size": 8, "width": 8, "depth": 1, "heads": 2}), 1.0, 3
    )
    reference, target, spec, answer = plant(small, 0)
    wrong = {name: order.flip(-1) for name, order in answer.items()}
    assert ours(small, reference, target, spec, wrong, 0)["iteration"] is None
    assert matched(reference, target, spec, wrong, 0, "invariants")["iteration"] is None


def test_the_networks_that_the_published_implementation_runs_have_no_nested_groups() -> None:
    assert set(FLAT).isdisjoint(NESTED)
    assert all(PROBLEMS[name].published_seeds for name in FLAT)
    assert not any(PROBLEMS[name].published_seeds for name in NESTED)


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")
def test_gpt2_as_transformers_has_it() -> None:
    import transformers

    # Without the cache of keys and values, an output that fixes the heads, and with every position read.
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 99, "n_positions": 16}
    config = transformers.GPT2Config(**sizes, use_cache=False, bos_token_id=0, eos_token_id=0)

    def make() -> nn.Module:
        return transformers.GPT2LMHeadModel(config).eval()

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        reference, target = make(), make()
        spec = discover_symmetry(reference, {"input_ids": torch.randint(99, (2, 16))})
        planted = random_permutations(spec)
    target.load_state_dict(permute_state(reference.state_dict(), spec, planted))
    answer = inverse(spec, planted)
    assert any(group.parent for group in spec.groups)
    assert matched(reference, target, spec, answer, 0, "invariants")["recovered"] == 1.0
    problem = Problem(Architecture("gpt", (2, 16)), 1.0, 60)
    assert ours(problem, reference, target, spec, answer, 0)["recovered"] == 1.0
