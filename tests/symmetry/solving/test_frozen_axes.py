from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin.permutations import Frozen, PermutationSpec
from sinkhorn_rebasin.permutations.views.coverage import MEETS_COMPUTED
from sinkhorn_rebasin.symmetry import discover_symmetry
from sinkhorn_rebasin.symmetry.labels.origin import relative_file
from tests.cases import CASES, Case, case, spec_of


class Ordered(nn.Module):
    """Its units stay because of one line, which the test finds by its text."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        hidden = hidden.cumsum(-1)
        return self.last(hidden)


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(3, 3), Ordered()), nn.Linear(2, 4)])

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks[1](self.blocks[0](x))


def line_of(function: Any, text: str) -> str:
    """``file:line`` of a line of a function, from its source."""
    lines, start = inspect.getsourcelines(function)
    (number,) = [start + n for n, line in enumerate(lines) if text in line]
    return f"tests/symmetry/solving/test_frozen_axes.py:{number}"


def frozen_at(spec: PermutationSpec, tensor: str, axis: int) -> Frozen:
    (found,) = [item for item in spec.frozen if (item.tensor, item.axis) == (tensor, axis)]
    return found


def test_the_operation_the_module_and_the_line_that_fixed_an_axis() -> None:
    spec = discover_symmetry(Outer(), torch.randn(4, 3))
    here = line_of(Ordered.forward, "cumsum")
    for tensor, axis in (("blocks.0.1.first.weight", 0), ("blocks.0.1.first.bias", 0)):
        found = frozen_at(spec, tensor, axis)
        assert (found.operation, found.module, found.source) == ("aten.cumsum", "blocks.0.1", here)
    # What follows reads the sums, of which each is a position of its own: it stays because of the same line.
    found = frozen_at(spec, "blocks.0.1.last.weight", 1)
    assert (found.operation, found.module, found.source) == ("aten.cumsum", "blocks.0.1", here)
    assert found.reason == MEETS_COMPUTED


def test_inputs_and_outputs_name_the_layer_that_reads_or_makes_them() -> None:
    spec = discover_symmetry(Outer(), torch.randn(4, 3))
    first, last = frozen_at(spec, "blocks.0.0.weight", 1), frozen_at(spec, "blocks.1.weight", 0)
    line = line_of(Outer.forward, "self.blocks[1](self")
    assert (first.operation, first.module, first.source) == ("aten.addmm", "blocks.0.0", line)
    assert (last.operation, last.module, last.source) == ("aten.addmm", "blocks.1", line)
    assert last.reason == "output of the network"


def test_a_network_of_library_modules_names_their_lines() -> None:
    spec = discover_symmetry(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), torch.randn(2, 3))
    lines, start = inspect.getsourcelines(nn.Linear.forward)
    (number,) = [start + n for n, line in enumerate(lines) if "F.linear" in line]
    assert frozen_at(spec, "0.weight", 1).source == f"torch/nn/modules/linear.py:{number}"


def test_relations_alone_name_the_operation_that_relates() -> None:
    rolled = case("rolled_and_added")
    spec = discover_symmetry(rolled.make(), rolled.make_inputs())
    told = [item for item in spec.frozen if "told apart" in item.reason]
    assert told
    assert {item.operation for item in told} == {"aten.add"}
    assert all(item.source.startswith("tests/zoo/") for item in told)


class Halves(nn.Module):
    """A part of the units is read by itself first; the order of all is read last."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 6)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.a(x)
        return hidden[:, :3].sum(1), hidden.cumsum(1)


def test_what_fixes_each_unit_counts_before_what_tells_halves_apart() -> None:
    spec = discover_symmetry(Halves(), torch.randn(2, 3))
    assert frozen_at(spec, "a.weight", 0).operation == "aten.cumsum"


def test_an_axis_that_no_operation_uses_has_no_origin() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    net.unused = nn.Linear(3, 3)
    net.forward = lambda x: net[1](net[0](x))  # type: ignore[method-assign]
    found = frozen_at(discover_symmetry(net, torch.randn(2, 3)), "unused.weight", 0)
    assert (found.operation, found.module, found.source) == ("", "", "")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_frozen_axis_has_an_origin_without_the_machine_s_paths(case: Case) -> None:
    spec = spec_of(case)
    paths = {name for name, _ in case.make().named_modules()}
    for item in spec.frozen:
        if item.reason == "no operation used the tensor":
            continue
        assert item.operation.startswith("aten."), item
        assert item.module in paths
        file, _, line = item.source.rpartition(":")
        assert file.startswith(("tests/zoo/", "torch/nn/modules/")), item
        assert int(line) > 0
    assert str(Path(__file__).parents[2]) not in spec.to_json()
    assert sys.prefix not in spec.to_json()


def test_origins_survive_json_and_old_texts_are_read() -> None:
    spec = discover_symmetry(Outer(), torch.randn(4, 3))
    read = PermutationSpec.from_json(spec.to_json())
    assert [vars(item) for item in read.frozen] == [vars(item) for item in spec.frozen]
    data = json.loads(spec.to_json())
    for item in data["frozen"]:
        for field in ("operation", "module", "source"):
            del item[field]
    old = PermutationSpec.from_json(json.dumps(data))
    assert old == spec
    assert {item.source for item in old.frozen} == {""}


def test_origins_do_not_decide_equality() -> None:
    assert Frozen("w", 0, "why", source="a.py:1") == Frozen("w", 0, "why", source="b.py:2")
    assert hash(Frozen("w", 0, "why", "aten.a")) == hash(Frozen("w", 0, "why", "aten.b"))
    assert Frozen("w", 0, "why") != Frozen("w", 0, "why not")


def test_files_are_told_without_the_folder_they_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "project" / "nets" / "deep"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    file = str(package / "model.py")
    assert relative_file(file) == "nets/deep/model.py"
    relative_file.cache_clear()
    monkeypatch.syspath_prepend(str(package))
    assert relative_file(file) == "model.py"
    relative_file.cache_clear()


def in_order(x: Tensor) -> Tensor:
    return x.cumsum(-1)


class CallsFunction(Ordered):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(in_order(self.first(x)))


def test_the_line_is_the_innermost_and_the_module_the_one_around_it() -> None:
    found = frozen_at(discover_symmetry(nn.Sequential(CallsFunction()), torch.randn(4, 3)), "0.first.bias", 0)
    assert (found.module, found.source) == ("0", line_of(in_order, "cumsum"))
