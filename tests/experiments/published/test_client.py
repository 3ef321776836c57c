"""The bridge to the published implementation; the parts that need its environment skip without PUBLISHED_PYTHON."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from experiments.models import Architecture
from experiments.published import (
    PublishedError,
    PublishedWorker,
    published_midpoint,
    published_planted,
    published_python,
    published_step_cost,
)

SMALL = Architecture("mlp", (1, 6), {"inputs": 6, "widths": [8, 8], "classes": 3})
CONVOLUTIONAL = Architecture("resnet20", (1, 3, 16, 16), {"width": 0.25})


@pytest.fixture
def python() -> Path:
    path = published_python()
    if path is None:
        pytest.skip("PUBLISHED_PYTHON does not name the published implementation's environment")
    return path


def _state(architecture: Architecture, seed: int) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = architecture.build().state_dict()
        return {k: v + torch.rand(v.shape) if "running" in k else v for k, v in state.items()}


def _output(architecture: Architecture, state: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    model = architecture.build().double().eval()
    model.load_state_dict(state)
    with torch.no_grad():
        return model(images.double())


def _planted(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The small network's state with both hidden layers in another order."""
    first, second = torch.randperm(8, generator=torch.Generator().manual_seed(0)), torch.arange(7, -1, -1)
    planted = dict(state)
    planted["layers.0.weight"], planted["layers.0.bias"] = (
        state["layers.0.weight"][first],
        state["layers.0.bias"][first],
    )
    planted["layers.2.weight"] = state["layers.2.weight"][second][:, first]
    planted["layers.2.bias"], planted["layers.4.weight"] = (
        state["layers.2.bias"][second],
        state["layers.4.weight"][:, second],
    )
    return planted


@pytest.mark.parametrize(("architecture", "shape"), [(SMALL, (6,)), (CONVOLUTIONAL, (3, 16, 16))])
def test_midpoint_returns_the_targets_function_in_a_new_place(
    python: Path, architecture: Architecture, shape: tuple[int, ...]
) -> None:
    reference, target = _state(architecture, 0), _state(architecture, 1)
    images = torch.randn(50, *shape, generator=torch.Generator().manual_seed(2))
    labels = torch.arange(50) % 3
    kept = {name: value.clone() for name, value in target.items()}
    result = published_midpoint(
        python, architecture, reference, target, images, labels, steps=7, batch_size=20, lr=1.0
    )
    assert len(result["losses"]) == 7
    assert len(result["evaluation_losses"]) == 3
    assert min(result["training_seconds"], result["evaluation_seconds"]) > 0
    rebased = result["rebased_state"]
    assert any(not torch.equal(rebased[name], target[name]) for name in target)
    torch.testing.assert_close(
        _output(architecture, rebased, images), _output(architecture, target, images), rtol=1e-9, atol=1e-9
    )
    assert all(torch.equal(target[name], kept[name]) for name in target)


def test_midpoint_losses_are_those_of_the_midpoint(python: Path) -> None:
    """Equal networks at a sharp start: the midpoint is the network itself, up to softness of the permutation."""
    state = _state(SMALL, 0)
    images, labels = torch.randn(20, 6, generator=torch.Generator().manual_seed(2)), torch.arange(20) % 3
    settings = {"steps": 1, "batch_size": 20, "lr": 0.0}
    result = published_midpoint(python, SMALL, state, state, images, labels, **settings)
    expected = torch.nn.functional.cross_entropy(_output(SMALL, state, images), labels).item()
    assert result["evaluation_losses"] == [pytest.approx(expected, abs=1e-5)]
    assert result["losses"] != result["evaluation_losses"]
    coarse = published_midpoint(python, SMALL, state, state, images, labels, bfloat16=True, **settings)
    assert coarse["evaluation_losses"] == [pytest.approx(expected, rel=0.02)]
    assert coarse["evaluation_losses"] != result["evaluation_losses"]
    assert coarse["rebased_state"].keys() == state.keys()
    assert all(torch.equal(coarse["rebased_state"][name], tensor) for name, tensor in state.items())


def test_planted_permutation_is_found(python: Path) -> None:
    reference = _state(SMALL, 0)
    result = published_planted(python, SMALL, reference, _planted(reference), iterations=200, lr=1.0)
    assert result["error"] is None
    assert result["iteration"] == result["iterations"] == len(result["losses"])
    assert 0 < result["step_seconds"] < result["seconds"]


def test_other_networks_are_not_taken_for_planted(python: Path) -> None:
    result = published_planted(python, SMALL, _state(SMALL, 0), _state(SMALL, 1), iterations=3)
    assert (result["iteration"], result["iterations"], result["error"]) == (None, 3, None)


def test_what_it_raises_is_told(python: Path) -> None:
    architecture = Architecture("resnet20", (1, 3, 16, 16), {"width": 0.25, "shortcut": "A"})
    state = _state(architecture, 0)
    result = published_planted(python, architecture, state, state, iterations=2)
    assert result["iteration"] is None
    assert "Error" in result["error"]


def test_step_cost_names_time_and_memory(python: Path) -> None:
    (cost,) = published_step_cost(python, ["ResNet20 1x"], repeat=2).values()
    assert cost["parameters"] == 272_474
    assert len(cost["train_ms_all"]) == len(cost["eval_ms_all"]) == 2
    assert min(cost["train_ms"], cost["eval_ms"]) > 0
    assert 50 < cost["start_memory_mb"] < cost["peak_memory_mb"] < 2000


def test_one_worker_answers_many_calls_and_survives_an_error(python: Path) -> None:
    with PublishedWorker(python) as worker:
        with pytest.raises(PublishedError, match="no such network"):
            worker.call("step_cost", architecture="no such network")
        first, second = (worker.call("step_cost", architecture="ResNet20 1x", repeat=1) for _ in range(2))
    assert first["start_memory_mb"] == second["start_memory_mb"]


def test_a_process_that_ends_is_told_with_its_last_words(tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no environment here >&2\n")
    broken.chmod(0o755)
    with PublishedWorker(broken) as worker, pytest.raises(PublishedError, match="no environment here"):
        worker.call("step_cost", architecture="ResNet20 1x")


def test_jobs_import_nothing_but_torch_and_the_networks() -> None:
    jobs = ", ".join(
        f"experiments.published.{name}" for name in ("worker", "midpoint", "planted", "step_cost")
    )
    program = f"import sys, {jobs}; print([m for m in sys.modules if m.split('.')[0] in sys.argv[1:]])"
    foreign = ["sinkhorn_rebasin", "lightning", "scipy", "safetensors", "rich"]
    done = subprocess.run(
        [sys.executable, "-c", program, *foreign], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
