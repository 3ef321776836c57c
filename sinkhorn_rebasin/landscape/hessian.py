"""The sharpness of a network's loss: top eigenvalue and trace of its Hessian, by curvlinops."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from scipy.sparse.linalg import eigsh
from torch import Tensor, nn

from sinkhorn_rebasin._typing import BatchAdapter
from sinkhorn_rebasin.errors import ArchitectureError, DataError, RebasinError
from sinkhorn_rebasin.networks.architecture import parameter_names_of
from sinkhorn_rebasin.networks.batches import batches_in, move_to, read_batch
from sinkhorn_rebasin.networks.copying import evaluation_copy, standalone_copy
from sinkhorn_rebasin.networks.execution import device_of
from sinkhorn_rebasin.networks.randomness import untouched_randomness
from sinkhorn_rebasin.networks.scoring import real_loss

TensorLoss = Callable[[Tensor, Tensor], Tensor]


def hessian_top_eigenvalue(
    network: nn.Module,
    data: Iterable[Any],
    criterion: TensorLoss = nn.functional.cross_entropy,
    *,
    tolerance: float = 1e-3,
    seed: int = 0,
    batch: BatchAdapter | None = None,
) -> float:
    r"""Return the largest eigenvalue of the loss's Hessian.

    .. math:: \lambda_{\max}\bigl(\nabla_\theta^2\, \tfrac1N \textstyle\sum_n \ell(f_\theta(x_n), y_n)\bigr)

    It is found by Lanczos iterations over products with vectors, in the weights that have gradients. The network
    runs in eval mode. A scale of units changes the Hessian though not the function: compare normalised networks, see
    :func:`normalize_scales`.

    Args:
        network: never changed.
        data: batches of (inputs, labels), inputs a tensor; they are read once and held in memory.
        criterion: (outputs, labels) to the mean loss of the batch, twice differentiable.
        tolerance: relative, of the eigenvalue.
        seed: of the first vector.
        batch: a function from a batch to (inputs, labels), for data that yield something else.

    Raises:
        RebasinError: curvlinops is not installed; it comes with the extra ``hessian``.
        ArchitectureError: no module, or a complex parameter, which is named.
        DataError: no batch, or inputs that are no tensor.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> samples = [(torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1))]
        >>> value = hessian_top_eigenvalue(layer, samples, nn.functional.mse_loss)  # doctest: +SKIP
        >>> round(value, 4)  # doctest: +SKIP
        10.0

    Source: Yao, Gholami, Keutzer, Mahoney, "PyHessian" (2020); products by curvlinops, Dangel et al. (2025).
    """
    operator = _hessian(network, data, criterion, batch)
    start = torch.randn(operator.shape[1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if operator.shape[0] == 1:
        return float(operator @ torch.ones(1, dtype=operator.dtype, device=operator.device))
    linear = operator.to_scipy()
    with untouched_randomness():
        largest = eigsh(linear, k=1, which="LA", tol=tolerance, v0=start.numpy().astype(linear.dtype))
    return float(largest[0][0])


def hessian_trace(
    network: nn.Module,
    data: Iterable[Any],
    criterion: TensorLoss = nn.functional.cross_entropy,
    *,
    draws: int = 100,
    seed: int = 0,
    batch: BatchAdapter | None = None,
) -> float:
    r"""Estimate the trace of the loss's Hessian.

    .. math:: \operatorname{tr} H \approx \frac1D \sum_{d=1}^D v_d^\top H v_d, \qquad v_d \in \{-1, 1\}^n

    Args:
        network, data, criterion, batch: as for :func:`hessian_top_eigenvalue`.
        draws: D; with as many as the network has weights, or more, the trace is exact.
        seed: of the draws.

    Raises:
        RebasinError: curvlinops is not installed; it comes with the extra ``hessian``.
        ArchitectureError: no module, or a complex parameter, which is named.
        DataError: no batch, inputs that are no tensor, or no draw.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> samples = [(torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1))]
        >>> round(hessian_trace(layer, samples, nn.functional.mse_loss), 4)  # doctest: +SKIP
        10.0

    Source: Hutchinson (1989); Yao, Gholami, Keutzer, Mahoney, "PyHessian" (2020).
    """
    if draws < 1:
        raise DataError(f"Expected at least one draw but got {draws}.")
    operator = _hessian(network, data, criterion, batch)
    size = operator.shape[0]
    if draws >= size:
        return float((operator @ torch.eye(size, dtype=operator.dtype, device=operator.device)).trace())
    with untouched_randomness():
        torch.manual_seed(seed)
        return float(_curvlinops().hutchinson_trace(operator, draws))


class _Criterion(nn.Module):
    """Present a criterion as a layer.

    Curvlinops asks it how it reduces.
    """

    reduction = "mean"

    def __init__(self, criterion: TensorLoss) -> None:
        super().__init__()
        self.criterion = criterion

    def forward(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of a batch."""
        return real_loss(self.criterion(outputs, labels))


def _curvlinops() -> Any:
    try:
        with warnings.catch_warnings():
            # Of what it imports, and of what PyTorch loads for its first product.
            warnings.simplefilter("ignore", DeprecationWarning)
            import curvlinops

            torch.func.jvp(torch.sin, (torch.zeros(()),), (torch.ones(()),))
    except ImportError as error:
        raise RebasinError(
            "Expected curvlinops, which multiplies by the Hessian, but it is not installed: pip install "
            "'sinkhorn-rebasin-layer[hessian]'."
        ) from error
    return curvlinops


def _hessian(
    network: nn.Module, data: Iterable[Any], criterion: TensorLoss, batch: BatchAdapter | None
) -> Any:
    """Return the Hessian of a copy as an operator."""
    curvlinops = _curvlinops()
    twin = evaluation_copy(standalone_copy(network))
    learned = [name for name, tensor in network.named_parameters() if tensor.requires_grad]
    kept = set(learned or parameter_names_of(network))
    parameters = {name: tensor for name, tensor in twin.named_parameters() if name in kept}
    for name, parameter in parameters.items():
        if parameter.is_complex():
            raise ArchitectureError(
                f"Expected real parameters, for second derivatives, but {name!r} is {parameter.dtype}."
            )
        parameter.requires_grad_(True)
    device, samples = device_of(dict(twin.named_parameters())), []
    with untouched_randomness():
        for given in batches_in(data):
            inputs, labels = read_batch(given, batch, network=network, criterion=criterion)
            if not isinstance(inputs, Tensor):
                raise DataError(f"Expected inputs that are one tensor but got {type(inputs).__name__}.")
            samples.append(move_to((inputs, labels), device))
    if not samples:
        raise DataError("Expected at least one batch to measure the Hessian on but got none.")
    return curvlinops.HessianLinearOperator(
        twin, _Criterion(criterion), list(parameters.values()), samples, check_deterministic=False
    )
