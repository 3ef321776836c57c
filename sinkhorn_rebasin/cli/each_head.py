"""A merge written once for each model, with the layers that it keeps for itself."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from torch import nn

from sinkhorn_rebasin._typing import StateLike
from sinkhorn_rebasin.cli.failures import UsageError
from sinkhorn_rebasin.cli.models.loaded import LoadedModel
from sinkhorn_rebasin.cli.output_folder import write_card
from sinkhorn_rebasin.errors import listed
from sinkhorn_rebasin.files.atomic import whole_folder
from sinkhorn_rebasin.networks.architecture import tensors_of


def add_heads(parser: Any) -> None:
    """Add the option for whose heads a merge has."""
    parser.add_argument(
        "--heads",
        choices=["reference", "each"],
        default="reference",
        help="layers that are kept apart are those of A, or a merge is written for each model, with its own",
    )


def check_heads_apart(heads: str, ignored: Collection[str]) -> None:
    """Raise UsageError where no head is kept apart.

    That is wrong where each model shall keep its own.

    >>> check_heads_apart("each", ["head.weight"])
    """
    if heads == "each" and not ignored:
        raise UsageError(
            "Expected layers that each model keeps for --heads each but all are mixed: name them by --ignore, such "
            "as --ignore fc."
        )


def write_each_head(
    models: Sequence[LoadedModel],
    merged: nn.Module,
    states: Sequence[StateLike],
    ignored: Collection[str],
    folder: str,
    title: str,
    facts: Sequence[tuple[str, str]],
) -> None:
    """Write one folder a model into a folder.

    They are called 0, 1 and so on.

    Args:
        models: what they hold is replaced by the merge with their own heads.
        merged: the merge with the first one's.
        states: the models' tensors in the order of the first.
        ignored: names of the tensors that each keeps.
        folder: what is there is replaced, once all is written.
        title: first line of the cards.
        facts: rows of the cards.
    """
    trunk = {name: tensor for name, tensor in tensors_of(merged).items() if name not in ignored}
    parents = [model.text for model in models]
    with whole_folder(folder) as part:
        for number, (model, state) in enumerate(zip(models, states, strict=True)):
            own = {name: state[name] for name in ignored if name in state}
            model.module.load_state_dict({**trunk, **own}, strict=False)
            place = part / str(number)
            place.mkdir()
            model.write(place)
            head = ("not mixed", f"{listed(sorted(ignored), most=8)}: those of {model.name}")
            write_card(model, place, title, parents, [*facts, head])
