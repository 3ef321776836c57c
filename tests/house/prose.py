"""What the docstrings of a package begin with."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WORDS = """
add align annotate append apply assemble assign average balance begin bring build call carry cast center change
check choose clamp clear clip close cluster collect combine compare complete compose compute concatenate contract
convert copy correct count cover cut decide describe detach differentiate discover distill divide draw drop embed
end enter estimate evaluate expand express extend extract fill find fit fix flag flip fold follow forget freeze
gather get give group guess hand handle hold identify initialize interleave interpret invert iterate join keep
label lay learn leave lend let list load log look make map mark match maximize measure merge minimize mix move
multiply name normalize note number observe offer open order overwrite pad pair pass peel penalize permute pick
place plot pool predict prepare print project propose prove put raise rank read rebuild record redirect reduce
refine refuse register relabel relate release remember remove rename render reorder repair repeat replace replay
report represent require rescale reset reshape resolve restore restrict return reverse rotate round run sample
save say scale scatter score search see select separate set settle shift show shrink simulate skip solve sort
split spread stack start step stop store strip substitute sum swap switch take teach tell test tile track train
transfer transport transpose try turn undo unite unwrap update use validate verify visit wait walk warn watch
weigh widen wrap write yield
"""
VERBS = frozenset(WORDS.split())


@dataclass(frozen=True)
class Docstring:
    """First line of a docstring of a function or class; empty where there is none."""

    where: str
    first: str
    of_class: bool
    public: bool


def docstrings(root: Path, package: str) -> Iterator[Docstring]:
    """Read every function and class of a package, nested ones and methods included."""
    for file in sorted((root / package).rglob("*.py")):
        hidden = any(part.startswith("_") for part in file.relative_to(root).with_suffix("").parts[1:-1])
        yield from _inside(ast.parse(file.read_text(encoding="utf-8")), f"{file.relative_to(root)}", hidden)


def _inside(parent: ast.AST, where: str, hidden: bool) -> Iterator[Docstring]:
    """Read what a module, class or function holds; what a function holds is nobody's to call."""
    for node in ast.iter_child_nodes(parent):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _inside(node, where, hidden)
            continue
        below = hidden or node.name.startswith("_")
        text = (ast.get_docstring(node) or "").strip()
        first = text.splitlines()[0] if text else ""
        place, of_class = f"{where}:{node.lineno} {node.name}", isinstance(node, ast.ClassDef)
        yield Docstring(place, first, of_class, not below)
        yield from _inside(node, where, below or not of_class)


def begins_with_verb(first: str, of_class: bool = False) -> bool:
    """Tell whether a line begins with a verb of the list: "Find the units", and of a class "Finds the units" too.

    "Name of a group", "Order, as a list" and "Labels that differ" begin with a noun: a first word with a comma or a
    colon, or with "of", "that", "which" or "for" after it, is none. Nor is a verb that the list does not have.

    Example:
        >>> begins_with_verb("Sum a factor."), begins_with_verb("Sum of a factor."), begins_with_verb("The sum.")
        (True, False, False)
    """
    words = [word.strip("`*\"'").lower() for word in first.split()]
    if not words or words[1:2] in (["of"], ["that"], ["which"], ["for"]):
        return False
    verb = words[0].rstrip(".;")
    return verb in VERBS or (of_class and _plain(verb) in VERBS)


def _plain(verb: str) -> str:
    """Take the ending of the third person off."""
    for ending, instead in (("ies", "y"), ("ches", "ch"), ("shes", "sh"), ("sses", "ss"), ("xes", "x")):
        if verb.endswith(ending):
            return verb.removesuffix(ending) + instead
    return verb.removesuffix("s")
