"""From the text that names a model to the model."""

from __future__ import annotations

from pathlib import Path

from sinkhorn_rebasin.cli.failures import UsageError
from sinkhorn_rebasin.cli.models.from_function import is_function, model_of_factory
from sinkhorn_rebasin.cli.models.hugging_face import model_of_folder
from sinkhorn_rebasin.cli.models.loaded import LoadedModel
from sinkhorn_rebasin.cli.models.zoos import timm_model, torchvision_model
from sinkhorn_rebasin.cli.verb import MODEL_HELP


def load_model(text: str) -> LoadedModel:
    """Load the model that a text names.

    Raises:
        UsageError: the text names none.
        CheckpointError: a file of it is missing or damaged.
        NotMergeableError: its weights are of another architecture.
    """
    if text.startswith("timm:"):
        return timm_model(text)
    if text.startswith("torchvision:"):
        return torchvision_model(text)
    if Path(text).is_dir():
        return model_of_folder(text)
    if is_function(":".join(text.split(":", 2)[:2])):
        return model_of_factory(text)
    if Path(text).exists():
        raise UsageError(
            f"Expected a model but {text} is a file alone: say what its weights belong to, such as "
            f"package.module:factory:{text}."
        )
    raise UsageError(
        f"Expected a model but got {text!r}, which is neither a folder nor one of: {MODEL_HELP}."
    )
