"""A model written to a folder with its card, whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sinkhorn_rebasin.cli.models.loaded import LoadedModel
from sinkhorn_rebasin.files.atomic import whole_folder
from sinkhorn_rebasin.files.receipt import package_version


def write_model(
    model: LoadedModel,
    folder: str,
    title: str,
    parents: Sequence[str],
    facts: Sequence[tuple[str, str]],
    relation: str = "merge",
) -> None:
    """Write a model's weights, configuration and card to a folder.

    Args:
        model: its module holds the weights to write.
        folder: what is there is replaced, once all is written.
        title: first line of the card.
        parents: the models it was made of.
        facts: rows of the card.
        relation: what it is to its first parent, as cards name it.
    """
    with whole_folder(folder) as part:
        model.write(part)
        write_card(model, part, title, parents, facts, relation)


def write_card(
    model: LoadedModel,
    folder: Path,
    title: str,
    parents: Sequence[str],
    facts: Sequence[tuple[str, str]],
    relation: str = "merge",
) -> None:
    """Write the card of a model into its folder."""
    text = card(model.library, model.how_to_load, title, parents, facts, relation)
    (folder / "README.md").write_text(text, encoding="utf-8")


def card(
    library: str,
    how_to_load: str,
    title: str,
    parents: Sequence[str],
    facts: Sequence[tuple[str, str]],
    relation: str = "merge",
) -> str:
    """Write a model card: parents, how it was made, and how to load it."""
    front = ["---", f"library_name: {library}", "base_model:"]
    front += [f"- {_quoted(parent)}" for parent in parents]
    front += [f"base_model_relation: {relation}", "tags:", f"- {relation}", "- sinkhorn-rebasin", "---", ""]
    rows = [
        f"| {name} | {value} |"
        for name, value in (*facts, ("made with", f"sinkhorn_rebasin {package_version()}"))
    ]
    body = [f"# {title}", "", "| | |", "|---|---|", *rows, "", "```python", how_to_load, "```", ""]
    return "\n".join([*front, *body])


def _quoted(text: str) -> str:
    """Write a text as YAML takes it, folders by their names alone."""
    name = Path(text).name if Path(text).is_dir() else text
    return '"' + name.replace("\\", "/").replace('"', "'") + '"'
