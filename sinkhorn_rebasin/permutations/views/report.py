"""A permutation spec in words: the tables that ``print(spec)`` and notebooks show."""

from __future__ import annotations

import io
import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from sinkhorn_rebasin.errors import listed
from sinkhorn_rebasin.permutations.slots import Frozen, Slot, by_first_slot
from sinkhorn_rebasin.permutations.structure import SpecStructure
from sinkhorn_rebasin.permutations.views.coverage import covered_share
from sinkhorn_rebasin.permutations.views.repeats import collapse, split

WIDTH, UNLIMITED, LONGEST_WORD = 110, 100_000, 36
_PIECES = re.compile(r"[^./,]+[./,]*|[./,]+")
MOST_GROUPS, MOST_REASONS, MOST_NAMES = 40, 25, 4


@dataclass(frozen=True)
class Table:
    """Hold rows of cells under a title.

    ``rest`` is a line for what was left out.
    """

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    rest: str = ""


def summarise(spec: SpecStructure) -> str:
    """Write a spec on one line.

    It tells groups, slots, the share covered, and how much is frozen.
    """
    groups = listed(f"{group.name} {group.shape}" for group in spec.groups)
    return (
        f"PermutationSpec({len(spec.groups)} groups: {groups}; {len(spec.slots)} slots on {len(spec.shapes)} "
        f"tensors, {100 * covered_share(spec):.4g} % of the parameters; {len(spec.frozen)} axes frozen)"
    )


def describe(spec: SpecStructure) -> str:
    """Describe a spec in tables.

    They list groups with sizes, parents and slots, the share of parameters each covers, and what is frozen and why.
    Names that differ in numbers alone share a row when their groups have the same size and the same slots.
    """
    parts = [headline(spec), *([str(spec.validity)] if spec.validity else []), *kept_apart(spec)]
    for table in tables(spec):
        parts.append(f"\n{table.title}\n{_drawn(table)}" + (f"\n{table.rest}" if table.rest else ""))
    return "\n".join(parts)


def describe_markdown(spec: SpecStructure) -> str:
    """Describe a spec in Markdown tables, for notebooks."""
    lines = [headline(spec), *(["", _escaped(str(spec.validity))] if spec.validity else [])]
    lines += [line for text in kept_apart(spec) for line in ("", _escaped(text))]
    for table in tables(spec):
        lines += ["", f"**{table.title}**", "", "| " + " | ".join(table.columns) + " |"]
        lines.append("|" + "---|" * len(table.columns))
        lines += ["| " + " | ".join(_escaped(cell) for cell in row) + " |" for row in table.rows]
        lines += ["", table.rest] if table.rest else []
    return "\n".join(lines)


def headline(spec: SpecStructure) -> str:
    """Count groups, units and slots on one line.

    It also tells what share of the parameters they cover.
    """
    units = sum(group.units for group in spec.groups)
    elements = sum(math.prod(spec.shapes[name]) for name in spec.parameters)
    return (
        f"PermutationSpec: {len(spec.groups)} groups, {units:,} units, {len(spec.slots)} slots; "
        f"{covered_share(spec):.1%} of {elements:,} parameter elements on a permutable axis"
    )


def kept_apart(spec: SpecStructure) -> list[str]:
    """Say which tensors each network keeps for itself."""
    names = collapse((name for name in spec.shapes if name in spec.ignored), leaves=True)
    return [f"ignored, each network keeps its own: {_listed(names)}"] if names else []


def tables(spec: SpecStructure) -> list[Table]:
    """List the tables of groups and frozen axes.

    Empty ones are left out.
    """
    return [table for table in (_groups(spec), _frozen(spec)) if table.rows]


def _groups(spec: SpecStructure) -> Table:
    alike: dict[object, list[str]] = {}
    for group in by_first_slot(spec.groups, spec.slots):
        places = sorted((split(s.tensor), _extent(s)) for s in spec.slots_of(group.name))
        pattern = tuple((fixed, extent) for (fixed, _), extent in places)
        parent = group.parent and split(group.parent)[0]
        key = (split(group.name)[0], group.size, group.blocks, parent, pattern)
        alike.setdefault(key, []).append(group.name)
    rows: list[tuple[str, ...]] = []
    for names in list(alike.values())[:MOST_GROUPS]:
        group = spec[names[0]]
        size = str(group.size) if group.blocks == 1 else f"{group.blocks} x {group.size}"
        parents = collapse(spec[name].parent or "" for name in names)
        slots = _listed(slot_patterns([slot for name in names for slot in spec.slots_of(name)]))
        share = f"{covered_share(spec, set(names)):.1%}"
        rows.append((", ".join(collapse(names)), str(len(names)), size, ", ".join(parents), share, slots))
    hidden = sum(len(names) for names in list(alike.values())[MOST_GROUPS:])
    return Table(
        "groups",
        ("group", "count", "size", "inside", "share", "slots"),
        rows,
        f"and {hidden} more groups" if hidden else "",
    )


def _frozen(spec: SpecStructure) -> Table:
    alike: dict[tuple[str, str, str], list[Frozen]] = {}
    for item in spec.frozen:
        alike.setdefault((item.reason, item.operation, item.source), []).append(item)
    rows: list[tuple[str, ...]] = []
    for (reason, operation, source), items in list(alike.items())[:MOST_REASONS]:
        rows.append((reason, operation, source, str(len(items)), _listed(_axis_patterns(items))))
    hidden = list(alike.values())[MOST_REASONS:]
    return Table(
        f"frozen: {len(spec.frozen)} axes",
        ("reason", "operation", "source", "axes", "parameters"),
        rows,
        f"and {sum(map(len, hidden))} more axes for {len(hidden)} more reasons" if hidden else "",
    )


def slot_patterns(slots: Sequence[Slot]) -> list[str]:
    """Write slots as ``tensor[axes]``, repeats collapsed.

    What differs from a whole axis stands there, too.
    """
    by_extent: dict[str, list[str]] = {}
    for slot in slots:
        by_extent.setdefault(_extent(slot), []).append(slot.tensor)
    return [f"{name}{extent}" for extent, names in by_extent.items() for name in collapse(names, leaves=True)]


def _extent(slot: Slot) -> str:
    axes = ",".join(str(axis) for axis in slot.axes)
    layout = slot.layout
    start = f" from {layout.offset}" if layout.offset else ""
    return f"[{axes}{start}{f' x {layout.width}' if layout.width > 1 else ''}]"


def _axis_patterns(items: Sequence[Frozen]) -> list[str]:
    axes: dict[str, list[str]] = {}
    for item in items:
        axes.setdefault(item.tensor, []).append(str(item.axis))
    by_axes: dict[str, list[str]] = {}
    for tensor, own in axes.items():
        by_axes.setdefault(",".join(own), []).append(tensor)
    return [f"{name}[{own}]" for own, names in by_axes.items() for name in collapse(names, leaves=True)]


def _listed(patterns: Sequence[str]) -> str:
    more = len(patterns) - MOST_NAMES
    return ", ".join(patterns[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _drawn(table: Table) -> str:
    state = random.getstate()  # of which the import of rich draws
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table as RichTable
    from rich.text import Text

    random.setstate(state)
    kept = [n for n in range(len(table.columns)) if any(row[n] for row in table.rows)]
    drawn = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number in kept:
        right = table.columns[number] in ("count", "size", "share", "axes")
        drawn.add_column(table.columns[number], justify="right" if right else "left", no_wrap=right)
    for row in table.rows:
        drawn.add_row(*(Text(breakable(row[number])) for number in kept))

    def console(width: int) -> Console:
        plain = {"color_system": None, "force_jupyter": False, "force_terminal": False}
        return Console(file=io.StringIO(), width=width, **plain)  # type: ignore[arg-type]

    wide = console(UNLIMITED)
    page = console(max(WIDTH, Measurement.get(wide, wide.options, drawn).minimum))
    page.print(drawn)
    text = page.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.rstrip().splitlines())


def breakable(cell: str, width: int = LONGEST_WORD) -> str:
    """Break the long words of a cell into lines, behind a separator and never inside a name.

    >>> print(breakable("layers.0.attention.query.weight[0]", 20))
    layers.0.attention.
    query.weight[0]
    """
    words = []
    for word in cell.split(" "):
        lines = [""]
        for piece in _PIECES.findall(word) if len(word) > width else [word]:
            if lines[-1] and len(lines[-1]) + len(piece) > width:
                lines.append("")
            lines[-1] += piece
        words.append("\n".join(lines))
    return " ".join(words)


def _escaped(cell: str) -> str:
    """Write a cell as code that nothing can leave.

    A spec may come from anybody's file: neither Markdown nor HTML in the cell has an effect.
    """
    if not cell:
        return ""
    plain = cell.replace("|", "¦")
    if not set(plain) & set("`<>&\\") and plain.isprintable():
        return f"`{plain}`"
    return f"<code>{''.join(c if c.isalnum() or c in ' .,' else f'&#{ord(c)};' for c in cell)}</code>"
