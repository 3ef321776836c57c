"""Re-estimating batch-norm running statistics after weights were merged.

The statistics a network collected in training are wrong for a mixture of two networks: activations of the
mixture vary less than those of either. They are measured again on data before the mixture is judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sinkhorn_rebasin._typing import BatchAdapter, State, StateLike
from sinkhorn_rebasin.activations.moments import Moments
from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.networks.batches import batches_in, move_to, read_batch
from sinkhorn_rebasin.networks.copying import evaluation_copy, standalone_copy
from sinkhorn_rebasin.networks.execution import device_of, run_at
from sinkhorn_rebasin.networks.layers import first_argument, is_folded
from sinkhorn_rebasin.networks.randomness import untouched_randomness
from sinkhorn_rebasin.networks.support import check_values


def reset_batch_norm(
    module: nn.Module,
    dataloader: Iterable[Any],
    *,
    batches: int | None = None,
    batch: BatchAdapter | None = None,
) -> nn.Module:
    """Return a copy with freshly measured batch norm.

    The statistics are those of the data. The network itself keeps its own, so assign the copy:
    ``merged = reset_batch_norm(merged, loader)``.

    See :func:`batch_norm_statistics` for what is measured. Without batch-norm layers the copy is unchanged
    and the data are not read.

    Args:
        module: the network; it and its training mode stay as they are.
        dataloader: batches of (inputs, labels) or of inputs alone.
        batches: read at most this many batches; None reads all.
        batch: a function from a batch to (inputs, labels), for data that yield something else.

    Raises:
        DataError: no batch, or a batch with a single value per channel.

    Example:
        >>> net = nn.Sequential(nn.BatchNorm1d(2))
        >>> reset = reset_batch_norm(net, [torch.tensor([[1.0, 0.0], [3.0, 4.0]])])
        >>> reset[0].running_mean.tolist() == [2.0, 2.0] and net[0].running_mean.tolist() == [0.0, 0.0]
        True

    Reference: Jordan, Sedghi, Saukh, Entezari, Neyshabur, "REPAIR: REnormalizing Permuted Activations for
    Interpolation Repair", 2023.
    """
    check_values(module)
    reset = standalone_copy(module)
    state = batch_norm_statistics(module, tensors_of(module), dataloader, batches=batches, batch=batch)
    reset.load_state_dict(state, strict=False)
    return reset


@torch.no_grad()
def batch_norm_statistics(
    module: nn.Module,
    state: StateLike,
    dataloader: Iterable[Any],
    *,
    batches: int | None = None,
    batch: BatchAdapter | None = None,
) -> State:
    """Measure running means and variances on the data.

    Returns the state with them.

    Batch-norm layers run on the statistics of each batch, every other layer in eval mode (dropout is off).
    A layer's running mean and variance become the mean and the unbiased variance of *all* values that
    reached it: mean = Σ_b n_b·m_b / N and variance = [Σ_b n_b·(v_b + (m_b − mean)²)] / (N − 1) over batches
    b of n_b values per channel with mean m_b and biased variance v_b. Unlike an average of the batches'
    variances this is right for batches of unequal size and for data sorted by class.

    Args:
        module: the architecture; unchanged.
        state: parameters and buffers; unchanged.
        dataloader: batches of (inputs, labels) or of inputs alone.
        batches: read at most this many batches; None reads all.
        batch: a function from a batch to (inputs, labels), for data that yield something else.

    Returns:
        A new dict; tensors other than batch-norm buffers are those of the given state.

    Raises:
        DataError: no batch, or a batch with a single value per channel.

    Example:
        >>> layer = nn.BatchNorm1d(1)
        >>> state = batch_norm_statistics(layer, layer.state_dict(), [torch.tensor([[1.0], [3.0]])])
        >>> state["running_mean"].item(), state["running_var"].item()
        (2.0, 2.0)
    """
    network = evaluation_copy(module)
    layers = {name: layer for name, layer in network.named_modules() if has_statistics(layer)}
    if not layers:
        return dict(state)
    moments = {name: _InputMoments(name or type(module).__name__) for name in layers}
    for name, layer in layers.items():
        layer.training = True
        layer.register_forward_pre_hook(moments[name].hook, with_kwargs=True)
    device, read = device_of(state), 0
    with untouched_randomness():
        for found in islice(batches_in(dataloader, "dataloader"), batches):
            inputs, _ = read_batch(found, batch, network=module, labelled=False)
            run_at(network, state, move_to(inputs, device))
            read += 1
    if read == 0:
        raise DataError("Expected at least one batch to measure batch-norm statistics on but got none.")
    return {**state, **measured_buffers(state, moments)}


class BatchNormReset:
    """Measure batch-norm statistics at every position.

    It is a ``prepare`` of :func:`evaluate_path`.

    Args:
        dataloader: batches of (inputs, labels) or of inputs alone; usually of the training set.
        batches: read at most this many batches; None reads all.
        batch: a function from a batch to (inputs, labels), for data that yield something else.

    Example:
        >>> layer = nn.BatchNorm1d(1)
        >>> prepare = BatchNormReset([torch.tensor([[1.0], [3.0]])])
        >>> prepare(layer, layer.state_dict())["running_mean"].item()
        2.0
    """

    def __init__(
        self,
        dataloader: Iterable[Any],
        *,
        batches: int | None = None,
        batch: BatchAdapter | None = None,
    ) -> None:
        self.dataloader = dataloader
        self.batches = batches
        self.batch = batch

    def __call__(self, module: nn.Module, state: StateLike) -> State:
        return batch_norm_statistics(module, state, self.dataloader, batches=self.batches, batch=self.batch)


class _InputMoments(Moments):
    """Gather moments of what reaches a batch norm.

    The layer must be able to run on batch statistics.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def hook(self, layer: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Take in the inputs of one run."""
        values: Tensor = first_argument(arguments, keywords)
        count = values.numel() // values.shape[1]
        if count < 2:
            raise DataError(
                f"Expected at least two values per channel at batch-norm layer {self.name!r} but got"
                f" {count} (input of shape {tuple(values.shape)}); use larger batches or drop the last one."
            )
        self.update(values, axis=1)


def measured_buffers(state: StateLike, moments: Mapping[str, Moments]) -> State:
    """Return the buffers that measured moments give.

    They are those of the named batch-norm layers. Moments are those of the layers' inputs.
    """
    new: State = {}
    for name, moment in moments.items():
        prefix = f"{name}." if name else ""
        if not moment.count:
            continue  # the layer took no part in the forward: what it holds is still all that is known
        values = {
            "running_mean": moment.mean,
            "running_var": moment.squares / (moment.count - 1),
            "num_batches_tracked": torch.tensor(moment.calls),
        }
        for key, value in values.items():
            if prefix + key in state:
                new[prefix + key] = value.to(state[prefix + key])
    return new


def has_statistics(layer: nn.Module) -> bool:
    """Tell whether a layer keeps running statistics that are to be measured.

    It is then a batch norm that was not folded into the layer before it.
    """
    kept = isinstance(layer, _BatchNorm) and layer.track_running_stats and layer.running_mean is not None
    return kept and not is_folded(layer)
