"""Many names that differ in numbers alone as one pattern: ``layers.{0..11}.mlp``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_NUMBER = re.compile(r"(\d+)")
Pattern = tuple[tuple[str, ...], ...]


def collapse(names: Iterable[str], *, leaves: bool = False) -> list[str]:
    """Find patterns that stand for exactly these names.

    A pattern stands for the product of the choices in its braces. With ``leaves`` the part behind the last dot is
    such a choice, too.

    >>> collapse(["layers.0.fc", "layers.1.fc", "layers.2.fc", "head"])
    ['layers.{0..2}.fc', 'head']
    >>> collapse(["bn1.weight", "bn1.bias", "bn2.weight"], leaves=True)
    ['bn1.{weight,bias}', 'bn2.weight']
    """
    families: dict[tuple[str, ...], list[Pattern]] = {}
    for name in dict.fromkeys(names):
        fixed, chosen = split(name, leaves=leaves)
        families.setdefault(fixed, []).append(tuple((choice,) for choice in chosen))
    found = []
    for fixed, patterns in families.items():
        places = list(range(len(fixed) - 1))
        # The last one first: where it is a leaf, it binds the tensors of one layer together.
        for place in places[-1:] + places[:-1] if leaves else places:
            patterns = _merged(patterns, place)
        found += [_text(fixed, pattern) for pattern in patterns]
    return found


def split(name: str, *, leaves: bool = False) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split a name into fixed parts and choices.

    Choices are its numbers and, with ``leaves``, its last part.

    >>> split("layer1.0.bias")
    (('layer', '.', '.bias'), ('1', '0'))
    """
    stem, dot, leaf = name.rpartition(".")
    leaves = leaves and bool(dot)
    parts = _NUMBER.split(stem + dot if leaves else name)
    fixed, chosen = parts[::2], parts[1::2]
    return ((*fixed, ""), (*chosen, leaf)) if leaves else (tuple(fixed), tuple(chosen))


def _merged(patterns: Sequence[Pattern], place: int) -> list[Pattern]:
    """Merge patterns that differ at one place only."""
    rest: dict[Pattern, list[str]] = {}
    for pattern in patterns:
        rest.setdefault((*pattern[:place], *pattern[place + 1 :]), []).extend(pattern[place])
    return [(*others[:place], tuple(choices), *others[place:]) for others, choices in rest.items()]


def _text(fixed: Sequence[str], pattern: Pattern) -> str:
    choices = [_choice(values) for values in pattern]
    return "".join(part for pair in zip(fixed, [*choices, ""], strict=True) for part in pair)


def _choice(values: Sequence[str]) -> str:
    if len(values) == 1:
        return values[0]
    if not all(value.isdigit() for value in values):
        return "{" + ",".join(values) + "}"
    runs: list[list[int]] = []
    for number in sorted(int(value) for value in values):
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    texts = [f"{run[0]}..{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs]
    return "{" + ",".join(texts) + "}"
