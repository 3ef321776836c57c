"""A model that the command loaded: its network, where its inputs come from, and how it is written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from sinkhorn_rebasin._typing import ExampleInputs, State
from sinkhorn_rebasin.cli.failures import NotMergeableError
from sinkhorn_rebasin.errors import ArchitectureError, DataError
from sinkhorn_rebasin.files.weights_file import read_weights, unwrapped
from sinkhorn_rebasin.networks.architecture import check_state, tensors_of, tied_names
from sinkhorn_rebasin.networks.support import check_values


class LoadedModel(ABC):
    """A network with the text that named it.

    Attributes:
        text: as it was typed.
        module: the network, in eval mode.
    """

    library = "pytorch"

    def __init__(self, text: str, module: nn.Module) -> None:
        self.text = text
        self.module = module.eval()

    @property
    def name(self) -> str:
        """Return a name for people: the folder or file it came from."""
        return Path(self.text.rpartition(":")[2]).name

    def example_inputs(self) -> ExampleInputs:
        """Make inputs that the network runs on.

        Raises:
            DataError: nothing says what they look like.
        """
        raise DataError(
            f"Expected example inputs for {self.text} but nothing says what they look like: pass --inputs "
            f"module:function, a function that returns them, or data."
        )

    @property
    @abstractmethod
    def how_to_load(self) -> str:
        """Return a line of Python that loads what :meth:`write` wrote."""

    def write(self, folder: Path) -> None:
        """Write the network to a folder, each tied tensor once."""
        again = {name for names in tied_names(self.module) for name in names[1:]}
        state = {name: tensor for name, tensor in tensors_of(self.module).items() if name not in again}
        separate = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
        save_file(separate, folder / "model.safetensors", metadata={"format": "pt"})


def load_weights(module: nn.Module, file: str, text: str) -> None:
    """Load a file of weights into a network.

    Raises:
        CheckpointError: the file does not load.
        NotMergeableError: the weights are of another architecture; the first other tensor is named.
    """
    put_state(module, unwrapped(read_weights(file), tensors_of(module)), text)


def put_state(module: nn.Module, state: State, text: str) -> None:
    """Load a state into a network, tied tensors under one of their names.

    Raises:
        NotMergeableError: the state is of another architecture; the first other tensor is named.
        ArchitectureError: the network's layers are not built, or quantized.
    """
    check_values(module)
    # In the order of the network, so that the first difference is the first in it.
    ordered = {name: state[name] for name in tensors_of(module) if name in state}
    try:
        check_state(module, {**ordered, **state}, "loaded")
    except ArchitectureError as error:
        raise NotMergeableError(
            f"{text}: {error} Its weights are of another architecture or width."
        ) from error
    module.load_state_dict(state, strict=False)
