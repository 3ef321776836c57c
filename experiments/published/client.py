"""This side of the bridge: start the published implementation's process and ask it for results."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from experiments.models import COST_NETWORKS, Architecture
from sinkhorn_rebasin._typing import StateLike

REPOSITORY = Path(__file__).parents[2]


class PublishedError(RuntimeError):
    """The published implementation raised, or its process ended."""


def published_python() -> Path | None:
    """Return the Python named by the environment variable PUBLISHED_PYTHON, or None when it is not set."""
    value = os.environ.get("PUBLISHED_PYTHON")
    return Path(value).absolute() if value else None


class PublishedWorker:
    """The published implementation's process; it answers calls one by one until the context ends.

    Between two calls it waits without using the processor, so a caller can time its own code in turn with it.

        with PublishedWorker(python) as worker:
            worker.call("step_cost", architecture="ResNet20 1x", repeat=3)
    """

    def __init__(self, python: Path, threads: int = 1) -> None:
        self._resources = ExitStack()
        errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 (closed with the process)
        self._errors = self._resources.enter_context(errors)
        process = subprocess.Popen(
            # absolute() and not resolve(): a virtual environment is found through the link that its python is
            [str(python.absolute()), "-m", "experiments.published.worker", str(threads)],
            cwd=REPOSITORY,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._process = self._resources.enter_context(process)

    def call(self, job: str, **request: Any) -> dict[str, Any]:
        """Have one job done and return its answer.

        Raises:
            PublishedError: the job raised, or the process is gone; the text says what happened there.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"job": job, **request}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._errors.seek(0)
            raise PublishedError(
                f"Expected an answer to {job} but got: {self._errors.read()[-2000:].strip()}"
            )
        answer: dict[str, Any] = json.loads(line)
        if "raised" in answer:
            raise PublishedError(f"Expected an answer to {job} but got {answer['raised']}")
        return answer

    def close(self) -> None:
        """End the process, by ending its input."""
        with suppress(BrokenPipeError):  # a process that is already gone leaves its last request unread
            self._resources.close()

    def __enter__(self) -> PublishedWorker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def published_midpoint(
    python: Path,
    architecture: Architecture,
    reference: StateLike,
    target: StateLike,
    images: Tensor,
    labels: Tensor,
    **settings: Any,
) -> dict[str, Any]:
    """Align `target` to `reference` by the published midpoint loss with the settings of its own MNIST example.

    That example (`main_lmc_mlp.py` in its repository): AdamW on the scores with lr 0.1, τ = 1, l = 1, 20 Sinkhorn
    iterations, start at the identity plus 0.1·noise, cross-entropy at the midpoint, 9,000 images in shuffled
    batches of 1,000 for 20 epochs (180 steps), and after each epoch a "validation" of the hard permutation over
    the training batches. Batch norm uses batch statistics in both, as in its ResNet example.

    Settings: steps (180), lr (0.1), batch_size (1000), loss ("midpoint" or "random"), permutation_type ("mat_mul",
    its default, or "broadcast"), evaluate (True: its validation after each epoch), bfloat16 (False: run the networks,
    and nothing else, in mixed precision), seed (0), threads (1).

    Returns:
        rebased_state (the hard-permuted target with its running statistics), losses (one a step),
        evaluation_losses (one an epoch), training_seconds, evaluation_seconds, setup_seconds.

    Raises:
        PublishedError: it raised.
    """
    tensors = {"images": images, "labels": labels}
    return _with_states(python, "midpoint", architecture, reference, target, tensors, settings)


def published_planted(
    python: Path, architecture: Architecture, reference: StateLike, target: StateLike, **settings: Any
) -> dict[str, Any]:
    """Let the published data-free loss look for the permutation that turns `target` into `reference`.

    Settings: iterations (60), lr (0.1), tau (1.0), loss ("l2" or "l1"), start ("default": identity plus 0.1·noise,
    or "identity"), max_seconds (None), seed (0), threads (1). After every step the hard-permuted target is
    compared with the reference, parameters and running statistics, bit for bit.

    Returns:
        iteration (the first at which they are equal, or None), iterations (how many were done),
        seconds (steps and comparisons), step_seconds (steps alone), losses, error (text if it raised, else None).
    """
    return _with_states(python, "planted", architecture, reference, target, {}, settings)


def published_distance(
    python: Path, architecture: Architecture, reference: StateLike, target: StateLike, **settings: Any
) -> dict[str, Any]:
    """Let the published data-free l2 loss bring `target` close to `reference`.

    Settings: lr (0.1), iterations (60), every (5: steps between two looks at the distance), seed (0), threads (1).

    Returns:
        curve: (processor seconds of the steps, steps, squared distance of the hard-permuted target's parameters).
    """
    return _with_states(python, "distance", architecture, reference, target, {}, settings)


def published_step_cost(
    python: Path, networks: Iterable[str] = tuple(COST_NETWORKS), repeat: int = 5, threads: int = 1
) -> dict[str, dict[str, Any]]:
    """Time the published data-free step on networks of `COST_NETWORKS`, each in a process of its own.

    Returns:
        for each network: train_ms and eval_ms (medians), train_ms_all and eval_ms_all, peak_memory_mb (of the
        whole process), start_memory_mb (of the process before it built the network), parameters.
    """
    costs = {}
    for name in networks:
        with PublishedWorker(python, threads) as worker:
            costs[name] = worker.call("step_cost", architecture=name, repeat=repeat)
    return costs


def _with_states(
    python: Path,
    job: str,
    architecture: Architecture,
    reference: StateLike,
    target: StateLike,
    tensors: dict[str, Tensor],
    settings: dict[str, Any],
) -> dict[str, Any]:
    threads = settings.pop("threads", 1)
    with tempfile.TemporaryDirectory() as folder, PublishedWorker(python, threads) as worker:
        for name, state in (("reference", reference), ("target", target), ("tensors", tensors)):
            copies = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
            save_file(copies, Path(folder) / f"{name}.safetensors")
        answer = worker.call(
            job,
            folder=folder,
            model=architecture.name,
            arguments=dict(architecture.arguments),
            input_shape=list(architecture.input_shape),
            **settings,
        )
        rebased = Path(folder) / "rebased.safetensors"
        return {**answer, "rebased_state": load_file(rebased)} if rebased.is_file() else answer
