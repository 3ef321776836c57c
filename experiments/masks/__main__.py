"""Does the mask of one pruned network serve another, once it is carried by an alignment?

    python -m experiments.masks digits_mlp
    python -m experiments.masks mnist_mlp --cache runs/endpoints

Networks of other seeds are trained. Each is pruned by magnitude, and goes back to its early weights. Its mask is then
carried to the next network, which trains from its own early weights under it. Two masks bound what can be had: the
lottery ticket is the source's mask at the source's own early weights, and the naive mask is the source's mask as it
is. The accuracy of the lottery ticket is that of the source, all others are of the receiver. Some masks also move
while the receiver trains: small weights are dropped, and others grow where gradients are large, as RigL does it.
Held-out images, which no network trains on, decide which permutations of ours are kept. Finished pairs are kept in
OUT/finished. Leaves in OUT a picture and a receipt of all that is finished there.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from typing import Any

from torch import Tensor

from experiments.data import ImageData
from experiments.masks.methods import Problem, methods, timed
from experiments.masks.setting import Setting, load_setting
from experiments.masks.table_and_picture import draw, table
from experiments.masks.tickets import Masks, Ticket, accuracy, retrained, sparsity_of, ticket
from experiments.models.family import Batches
from experiments.reporting.question import Question, Row, console, numbered

MOVING = ", moving"
MOVED = ("naive mask", "random mask", "ours, on the path")


def rows(setting: Setting, data: Any, options: Namespace) -> dict[str, Callable[[], Row]]:
    """Return what measures each pair."""
    tickets: dict[int, Ticket] = {}
    return numbered(setting.networks, options, lambda number: pair_row(setting, number, data, tickets))


def pair_row(
    setting: Setting, number: int, data: tuple[ImageData, Batches, Batches], tickets: dict[int, Ticket]
) -> dict[str, Any]:
    """Carry the mask of one network to the next by every method, and train under each."""
    images, held, tests = data
    source, receiver = (
        tickets.get(seed) or tickets.setdefault(seed, ticket(setting, images, tests, seed))
        for seed in (number, (number + 1) % setting.networks)
    )
    rows: list[dict[str, Any]] = []

    def note(
        name: str, mask: Masks, seconds: float = 0.0, reached: float | None = None, moving: bool = False
    ) -> None:
        network = retrained(receiver.with_mask(mask), setting, images, moving) if reached is None else None
        found = {
            "mask": f"{name}{MOVING if moving else ''}",
            "accuracy": reached if network is None else accuracy(network, tests),
            "sparsity": sparsity_of(mask),
            "shared": shared(mask, receiver.mask),
            "seconds": seconds,
        }
        console.print(f"{found['mask']}: {100 * found['accuracy']:.2f} %, shared {found['shared']:.2f}")
        rows.append(found)

    dense = {"mask": "dense", "accuracy": accuracy(receiver.dense, tests), "sparsity": 0.0}
    rows.append({**dense, "shared": 1.0, "seconds": 0.0})
    for name, own in (("lottery ticket", source), ("receiver's own mask", receiver)):
        note(name, own.mask, reached=own.accuracy)
    for name, way in methods(Problem.of(source, receiver, images, held, setting)).items():
        mask, seconds = timed(way)
        note(name, mask, seconds)
        if setting.moves.every and name in MOVED:
            note(name, mask, seconds, moving=True)
    seeds = [number, (number + 1) % setting.networks]
    return {"setting": setting.title, "pair": number, "seeds": seeds, "rows": rows}


def shared(mask: Masks, other: Masks) -> float:
    """Return the share of the weights of one mask that another leaves too.

    >>> shared({"weight": torch.tensor([True, True, False])}, {"weight": torch.tensor([True, False, True])})
    0.5
    """
    both: list[Tensor] = [mask[name] & other[name] for name in mask]
    return sum(int(part.sum()) for part in both) / sum(int(part.sum()) for part in mask.values())


QUESTION = Question(
    *("masks", __doc__, "pairs", load_setting, rows, table, draw),
    seeds=lambda pairs: sorted({seed for pair in pairs for seed in pair["seeds"]}),
)


if __name__ == "__main__":
    QUESTION.answer()
