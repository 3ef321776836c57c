"""Models in folders of Hugging Face: config.json and safetensors, in one file or in shards."""

from __future__ import annotations

import fnmatch
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sinkhorn_rebasin._typing import ExampleInputs
from sinkhorn_rebasin.cli.failures import NotMergeableError, UsageError
from sinkhorn_rebasin.cli.models.loaded import LoadedModel
from sinkhorn_rebasin.cli.models.zoos import library
from sinkhorn_rebasin.errors import CheckpointError, DataError, listed
from sinkhorn_rebasin.files.shards import Shards

_BESIDE = (
    "*token*",
    "vocab*",
    "merges.txt",
    "*.model",
    "preprocessor_config.json",
    "processor_config.json",
    "generation_config.json",
    "chat_template*",
)


class HuggingFaceModel(LoadedModel):
    """A network of the transformers library with its folder."""

    library = "transformers"

    @property
    def config(self) -> Any:
        """Return the network's configuration."""
        return self.module.config

    def example_inputs(self) -> ExampleInputs:
        """Make inputs of the kind that the configuration tells: tokens or images."""
        name = getattr(self.module, "main_input_name", "")
        generator = torch.Generator().manual_seed(0)
        text = getattr(self.config, "get_text_config", lambda: self.config)()
        if name == "input_ids" and getattr(text, "vocab_size", None):
            tokens = torch.randint(text.vocab_size, (2, 8), generator=generator)
            second = {"decoder_input_ids": tokens.flip(1)} if self.config.is_encoder_decoder else {}
            return {"input_ids": tokens, **second}
        size = getattr(self.config, "image_size", None)
        if name == "pixel_values" and size:
            height, width = (size, size) if isinstance(size, int) else size
            channels = getattr(self.config, "num_channels", 3)
            return {name: torch.randn(2, channels, height, width, generator=generator)}
        return super().example_inputs()

    @property
    def how_to_load(self) -> str:
        """Return a line of Python that loads what was written."""
        return loading_line(type(self.module).__name__)

    def write(self, folder: Path) -> None:
        """Write the network and its configuration, with the files of its tokenizer beside them."""
        with quiet(library("transformers", self.text)):
            self.module.save_pretrained(folder)  # type: ignore[operator]
        copy_beside(Path(self.text), folder)


def loading_line(name: str) -> str:
    """Write the line of Python that loads a network of this class from a folder.

    >>> loading_line("GPT2LMHeadModel")
    'from transformers import GPT2LMHeadModel as M; net = M.from_pretrained(FOLDER)'
    """
    return f"from transformers import {name} as M; net = M.from_pretrained(FOLDER)"


def copy_beside(source: Path, folder: Path) -> None:
    """Copy the files of a tokenizer and the like, but for those that are there."""
    for file in sorted(source.iterdir()):
        beside = any(fnmatch.fnmatch(file.name, pattern) for pattern in _BESIDE)
        if beside and file.is_file() and not (folder / file.name).exists():
            shutil.copyfile(file, folder / file.name)


def model_of_folder(text: str) -> HuggingFaceModel:
    """Load the network in a folder of Hugging Face; no code from the folder is run.

    Raises:
        CheckpointError: a file is missing or damaged.
        UsageError: transformers is not installed, or does not know the class.
        NotMergeableError: the weights do not fit the configuration.
    """
    folder = Path(text)
    config = _config(folder)
    check_weights(folder)
    transformers = library("transformers", text)
    name = next(iter(config.get("architectures") or ()), None)
    kind = getattr(transformers, name or "", None)
    if kind is None:
        raise UsageError(
            f"Expected the class of the network under 'architectures' in {folder / 'config.json'} but got {name!r}, "
            f"which transformers {transformers.__version__} does not have. Code in the folder is never run."
        )
    try:
        with quiet(transformers):
            module, report = kind.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype="auto", output_loading_info=True
            )
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise NotMergeableError(
            f"Expected weights in {folder} that fit its config.json but got: {error}"
        ) from error
    _check_report(report, folder)
    return HuggingFaceModel(text, module)


def check_weights(folder: Path) -> None:
    """Raise CheckpointError unless all files of weights are there and whole."""
    try:
        Shards(folder)
    except CheckpointError as error:
        raise CheckpointError(f"{error}{_pickled_hint(folder)}") from error


def _pickled_hint(folder: Path) -> str:
    pickled = [file.name for file in folder.glob("*.bin")]
    return (
        f" {listed(pickled)} holds a pickle, which is not read: convert it to safetensors." if pickled else ""
    )


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.is_file():
        raise CheckpointError(f"Expected a folder of Hugging Face in {folder} but it has no config.json.")
    try:
        config = json.loads(file.read_text())
    except ValueError as error:
        raise CheckpointError(f"Expected JSON in {file} but it is damaged: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"Expected an object of JSON in {file} but got {type(config).__name__}.")
    return config


def _check_report(report: dict[str, Any], folder: Path) -> None:
    for kind, said in (("missing_keys", "lack"), ("unexpected_keys", "have, but the class does not,")):
        if report.get(kind):
            raise CheckpointError(
                f"Expected weights in {folder} for the class under 'architectures' but they {said} "
                f"{listed(sorted(report[kind]))}."
            )


@contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """Hold back the library's own messages and progress bars."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def described_module(module: nn.Module) -> str:
    """Name a network's class and size.

    >>> described_module(nn.Linear(2, 1))
    'Linear, 3 parameters'
    """
    return (
        f"{type(module).__name__}, {sum(parameter.numel() for parameter in module.parameters()):,} parameters"
    )


__all__ = ["DataError", "HuggingFaceModel", "check_weights", "described_module", "model_of_folder"]
