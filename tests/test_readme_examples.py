"""The examples of the guide and of how discovery works, run as doctests, and the drawing of a spec."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from sinkhorn_rebasin import discover_symmetry

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"GUIDE.md": 9, "sinkhorn_rebasin/symmetry/README.md": 9}  # and how many examples each has at least


def blocks(language: str, page: str = "GUIDE.md") -> list[str]:
    """The fenced blocks of a language."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_print_what_the_page_shows(page: str) -> None:
    text = "\n".join(block for block in blocks("python", page) if ">>>" in block)
    examples = doctest.DocTestParser().get_doctest(text, {}, page, page, 0)
    assert len(examples.examples) >= PAGES[page]
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    said: list[str] = []
    runner.run(examples, out=said.append)
    assert runner.failures == 0, "".join(said)


def test_the_drawing_is_what_the_spec_draws() -> None:
    net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
    (drawing,) = blocks("mermaid")
    assert drawing.strip() == discover_symmetry(net, torch.randn(4, 3)).to_mermaid()
