"""``diagnose A B``: what two models have in common, and what blocks a merge."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor

from sinkhorn_rebasin._typing import State, StateLike
from sinkhorn_rebasin.cli.aligning import Wish, align_models
from sinkhorn_rebasin.cli.failures import NotMergeableError
from sinkhorn_rebasin.cli.models.hugging_face import described_module
from sinkhorn_rebasin.cli.models.loaded import LoadedModel
from sinkhorn_rebasin.cli.models.source import load_model
from sinkhorn_rebasin.cli.pair import inputs_of, reasons_against
from sinkhorn_rebasin.cli.terminal import say, table
from sinkhorn_rebasin.cli.verb import Options, Verb, add_ignore, add_inputs, add_models
from sinkhorn_rebasin.errors import listed
from sinkhorn_rebasin.networks.architecture import tensors_of, tied_names

SAME_START = 0.5
"""Cosine of all weights above which two networks are taken to have started from the same ones."""
_TOLD = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size")


def distance(first: StateLike, second: StateLike) -> float:
    r"""Return :math:`\lVert\theta_1-\theta_2\rVert / \lVert\theta_1\rVert` over all floating tensors.

    >>> import torch
    >>> distance({"w": torch.tensor([3.0, 4.0])}, {"w": torch.tensor([3.0, 0.0])})
    0.8
    """
    gap, size = 0.0, 0.0
    for name in _weights(first):
        gap += float((first[name].double() - second[name].double()).square().sum())
        size += float(first[name].double().square().sum())
    return (gap / size) ** 0.5 if size else 0.0


def cosine(first: StateLike, second: StateLike) -> float:
    """Return the cosine of all matrices of two states; vectors, such as gains of norms, start alike everywhere.

    >>> import torch
    >>> round(cosine({"w": torch.eye(2)}, {"w": 2 * torch.eye(2)}), 6)
    1.0
    """
    inner = own = other = 0.0
    for name in _weights(first):
        if first[name].ndim > 1:
            one, two = first[name].double(), second[name].double()
            inner += float((one * two).sum())
            own += float(one.square().sum())
            other += float(two.square().sum())
    return inner / (own * other) ** 0.5 if own and other else 0.0


def without(state: StateLike, apart: Collection[str]) -> State:
    """Leave tensors out of a state.

    >>> without({"a": 1, "b": 2}, ["a"])
    {'b': 2}
    """
    return {name: tensor for name, tensor in state.items() if name not in apart}


def _weights(state: StateLike) -> list[str]:
    return [
        name for name, tensor in state.items() if isinstance(tensor, Tensor) and tensor.is_floating_point()
    ]


def _add_options(parser: Any) -> None:
    add_models(parser, "reference", "target")
    add_inputs(parser)
    add_ignore(parser)


def _run(options: Options) -> None:
    first, second = load_model(options.reference), load_model(options.target)
    rows = [(name, f"{one} | {two}" if one != two else one) for name, one, two in _compared(first, second)]
    blocked = reasons_against(first, second)
    if not blocked:
        try:
            rows += _distances(first, second, options.inputs, tuple(options.ignore or ()))
        except NotMergeableError as error:
            blocked = [str(error)]
    say(table(rows))
    if blocked:
        raise NotMergeableError(" ".join(blocked))
    say("nothing blocks a merge")


def _compared(first: LoadedModel, second: LoadedModel) -> list[tuple[str, str, str]]:
    """List facts with their values for both models."""
    facts = [_facts(model) for model in (first, second)]
    names = dict.fromkeys([*facts[0], *facts[1]])
    return [(name, facts[0].get(name, "none"), facts[1].get(name, "none")) for name in names]


def _facts(model: LoadedModel) -> dict[str, str]:
    module, state = model.module, tensors_of(model.module)
    config = getattr(module, "config", None)
    told = {name: getattr(config, name, None) for name in _TOLD}
    norms = {type(layer).__name__ for layer in module.modules() if "norm" in type(layer).__name__.lower()}
    widths = dict.fromkeys(tensor.shape[0] for tensor in state.values() if tensor.ndim > 1)
    return {
        "class": described_module(module),
        "tensors": str(len(state)),
        "types": listed(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in state.values()})),
        **{name: str(value) for name, value in told.items() if value is not None},
        "widths": listed(widths, most=6),
        "norms": listed(sorted(norms)) or "none",
        "tied": listed(("=".join(names) for names in tied_names(module)), most=2) or "none",
    }


def _distances(
    first: LoadedModel, second: LoadedModel, inputs: str | None, ignore: tuple[str, ...]
) -> list[tuple[str, str]]:
    alignment = align_models(first, second, inputs_of(first, inputs), wish=Wish(ignore=ignore))
    apart = alignment.spec.ignored
    one, two = without(tensors_of(first.module), apart), without(tensors_of(second.module), apart)
    alike = cosine(one, two)
    rows = [
        (
            "same initialization",
            f"{'yes' if alike > SAME_START else 'no'} (cosine of the weights {alike:.3f})",
        ),
        ("distance", f"{distance(one, two):.4g} of the norm of the first"),
    ]
    moved = without(alignment.apply(second.module), apart)
    rows.append(("after weight matching", f"{distance(one, moved):.4g} (cosine {cosine(one, moved):.3f})"))
    if apart:
        rows.append(("kept apart", f"{listed(sorted(apart), most=8)}; each network keeps its own"))
    return rows


DIAGNOSE = Verb(
    "diagnose",
    "Compare two models: class, widths, vocabulary, norms, ties, distance, and what blocks a merge.",
    "sinkhorn-rebasin diagnose ./model_a ./model_b",
    _add_options,
    _run,
    ("reference", "target"),
)
