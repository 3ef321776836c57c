"""The package as a whole: what importing it pulls in, and its public names."""

from __future__ import annotations

import subprocess
import sys

import pytest

import sinkhorn_rebasin


@pytest.mark.parametrize(
    "statement",
    ["import sinkhorn_rebasin", "from sinkhorn_rebasin import SinkhornRebasin, MidpointLoss, evaluate_path"],
)
def test_importing_pulls_in_neither_lightning_nor_matplotlib_nor_pot(statement: str) -> None:
    heavy = "{'lightning', 'matplotlib', 'networkx', 'ot', 'rich'}"
    code = f"import sys; {statement}; print(sorted({heavy} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    assert sorted(sinkhorn_rebasin.__all__) == sorted(sinkhorn_rebasin._FOLDER)
    for name in sinkhorn_rebasin.__all__:
        assert getattr(sinkhorn_rebasin, name).__name__ == name
        assert name in dir(sinkhorn_rebasin)


def test_other_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = sinkhorn_rebasin.no_such_name
