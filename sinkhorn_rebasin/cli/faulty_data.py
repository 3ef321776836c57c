"""When a verb fails in the middle of its data: which batch it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sinkhorn_rebasin.cli.data import check_data
from sinkhorn_rebasin.cli.models.source import load_model
from sinkhorn_rebasin.cli.verb import Options
from sinkhorn_rebasin.errors import RebasinError

_DATA, _MODELS = ("train", "data", "repair"), ("reference", "base")


@contextmanager
def told_of_data(options: Options) -> Iterator[None]:
    """Look for the batch at fault where a verb fails for a reason that nobody foresaw.

    The reference, or the base of a fine-tune, runs alone on one batch after the other. Where it runs on all of them,
    the error is no fault of the data, and stays as it is.

    Raises:
        DataError: a batch cannot be read, or neither the reference nor its loss takes it.
    """
    try:
        yield
    except (RebasinError, OSError, MemoryError):
        raise
    except Exception:
        model = next((getattr(options, name) for name in _MODELS if hasattr(options, name)), None)
        for text in (getattr(options, name, None) for name in _DATA):
            if text is not None and model is not None:
                check_data(text, load_model(model))
        raise
