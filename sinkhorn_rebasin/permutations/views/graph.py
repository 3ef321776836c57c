"""A permutation spec as a graph: for networkx, and as text that Mermaid draws."""

from __future__ import annotations

from typing import Any

from sinkhorn_rebasin.permutations.slots import Frozen, Group, Slot, by_first_slot
from sinkhorn_rebasin.permutations.structure import SpecStructure
from sinkhorn_rebasin.permutations.views.repeats import collapse

MOST_NAMES = 3
INPUT, OUTPUT, FIXED = "input", "output", "fixed"


def to_networkx(spec: SpecStructure) -> Any:
    """Build a ``networkx.MultiDiGraph`` of groups and tensors.

    Its edges are slots and parents. Nodes are ("group", name) with ``size``, ``blocks`` and ``bipartite=0``, and
    ("tensor", name) with ``shape``, ``buffer``, ``frozen`` (axis to reason) and ``bipartite=1``. Edges of kind "slot"
    lead from a group to a tensor and have ``axes``, ``width`` and ``layout``; edges of kind "parent" lead from a
    group to those nested in it. Tensors without a slot are there, too.

    Raises:
        ImportError: when networkx is not installed; it comes with the extra ``graph``.

    Example:
        >>> from torch import nn
        >>> from sinkhorn_rebasin.permutations import PermutationSpec
        >>> spec = PermutationSpec.from_axes_to_perm({"weight": ("P", None), "bias": ("P",)}, nn.Linear(3, 4))
        >>> graph = to_networkx(spec)
        >>> [(tensor, edge["axes"]) for _, (_, tensor), edge in graph.out_edges(("group", "P"), data=True)]
        [('weight', (0,)), ('bias', (0,))]
    """
    try:
        import networkx as nx
    except ImportError as error:
        raise ImportError(
            "Expected networkx to be installed but it is not: pip install 'sinkhorn-rebasin-layer[graph]'."
        ) from error
    graph = nx.MultiDiGraph()
    for group in spec.groups:
        graph.add_node(("group", group.name), kind="group", bipartite=0, size=group.size, blocks=group.blocks)
        if group.parent is not None:
            graph.add_edge(("group", group.parent), ("group", group.name), kind="parent")
    frozen: dict[str, dict[int, str]] = {}
    for item in spec.frozen:
        frozen.setdefault(item.tensor, {})[item.axis] = item.reason
    for name, shape in spec.shapes.items():
        graph.add_node(
            ("tensor", name),
            kind="tensor",
            bipartite=1,
            shape=tuple(shape),
            buffer=name in spec.buffers,
            frozen=frozen.get(name, {}),
        )
    for slot in spec.slots:
        graph.add_edge(
            ("group", slot.group),
            ("tensor", slot.tensor),
            kind="slot",
            axes=slot.axes,
            width=slot.layout.width,
            layout=slot.layout,
        )
    return graph


def to_mermaid(spec: SpecStructure) -> str:
    """Draw a spec as a Mermaid flowchart.

    Groups are nodes. A tensor is an arrow from the group that comes in to the one that goes out. As in linear and
    convolution layers, axis 0 is what goes out of a tensor and a later axis what comes in. Ends without a group are
    the nodes "input", "output", or "fixed" where something else froze the axis; dotted arrows lead to nested groups.
    Tensors with one group only (biases, norms) are not drawn.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> print(discover_symmetry(net, torch.ones(4, 3)).to_mermaid())
        flowchart LR
            input([input])
            g0["0<br/>8 units"]
            output([output])
            input -- "0.weight" --> g0
            g0 -- "2.weight" --> output
    """
    groups = by_first_slot(spec.groups, spec.slots)
    identifiers = {group.name: f"g{number}" for number, group in enumerate(groups)}
    arrows: dict[tuple[str, str], list[str]] = {}
    for tensor in spec.shapes:
        for source, target in _arrows(spec, tensor):
            ends = identifiers.get(source[1:], source), identifiers.get(target[1:], target)
            arrows.setdefault(ends, []).append(tensor)
    used = {end for ends in arrows for end in ends}
    lines = [f"{INPUT}([{INPUT}])"] if INPUT in used else []
    lines += [f'{identifiers[group.name]}["{_label(group)}"]' for group in groups]
    lines += [f"{end}([{end}])" for end in (OUTPUT, FIXED) if end in used]
    for (start, end), tensors in arrows.items():
        lines.append(f'{start} -- "{_listed(tensors)}" --> {end}')
    for group in spec.groups:
        if group.parent is not None:
            lines.append(f"{identifiers[group.parent]} -. holds .-> {identifiers[group.name]}")
    return "\n".join(["flowchart LR", *(f"    {line}" for line in lines)])


def _arrows(spec: SpecStructure, tensor: str) -> list[tuple[str, str]]:
    """List a tensor's arrows as (from, to).

    ":name" is a group.
    """
    slots = spec.slots_on(tensor)
    outgoing = _outermost(spec, [slot for slot in slots if slot.axes[0] == 0])
    incoming = _outermost(spec, [slot for slot in slots if slot.axes[0] > 0])
    if outgoing and incoming:
        return [(f":{source}", f":{target}") for source in incoming for target in outgoing]
    frozen = [item for item in spec.frozen if item.tensor == tensor and item.axis < 2]
    if not frozen or len(spec.shapes[tensor]) < 2:
        return []
    end = _end(frozen[0])
    if outgoing or end == INPUT:
        return [(end, f":{target}") for target in outgoing or incoming]
    return [(f":{source}", end) for source in incoming]


def _end(item: Frozen) -> str:
    if item.reason == "output of the network":
        return OUTPUT
    looked_up = item.operation.startswith("aten.embedding")
    return INPUT if looked_up or item.reason.startswith("meets fixed positions") else FIXED


def _outermost(spec: SpecStructure, slots: list[Slot]) -> list[str]:
    """Name the slots' groups without nested ones.

    A group is left out that is nested in another of them.
    """
    names = {slot.group for slot in slots}
    return [
        name for name in dict.fromkeys(slot.group for slot in slots) if names.isdisjoint(spec.ancestors(name))
    ]


def _label(group: Group) -> str:
    size = f"{group.blocks} x {group.size}" if group.blocks > 1 else str(group.size)
    return f"{_quoted(group.name)}<br/>{size} units"


def _listed(tensors: list[str]) -> str:
    patterns = collapse(tensors)
    more = f"<br/>and {len(patterns) - MOST_NAMES} more" if len(patterns) > MOST_NAMES else ""
    return "<br/>".join(_quoted(pattern) for pattern in patterns[:MOST_NAMES]) + more


def _quoted(text: str) -> str:
    return text.replace("#", "#35;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")
