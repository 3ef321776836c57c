"""Classifiers of several owners weighed by the classes that each owner knows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sinkhorn_rebasin.errors import ArchitectureError, DataError
from sinkhorn_rebasin.merging.states import check_shares
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.networks.copying import evaluation_copy
from sinkhorn_rebasin.networks.execution import run_at
from sinkhorn_rebasin.networks.randomness import untouched_randomness
from sinkhorn_rebasin.networks.resizing import resized
from sinkhorn_rebasin.networks.task_loss import logits_of


def known_classes(
    networks: Sequence[nn.Module], inputs: Tensor, shares: Sequence[float] | None = None
) -> Tensor:
    r"""Estimate each owner's part of every class.

    .. math:: q_m(c) = \frac{s_m\, \bar p_m(c)}{\sum_n s_n\, \bar p_n(c)}

    with p̄ the mean probabilities on any inputs. A network without samples of a class gives it none, also on noise.

    Args:
        networks: classifiers; none is changed.
        inputs: (N, ...), unlabelled samples, or noise of their mean and deviation.
        shares: s, of the samples, one a network; equal without them.

    Returns:
        (networks, classes); each class's column adds up to one.

    Raises:
        ArchitectureError: outputs that are no (N, classes), or other numbers of classes.
        DataError: no input, or outputs that are infinite or NaN.

    Example:
        >>> known_classes([nn.Linear(2, 3)] * 2, torch.randn(5, 2)).tolist()
        [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]
    """
    shares = check_shares(shares, len(networks))
    means: list[Tensor] = []
    for network in networks:
        with torch.no_grad(), untouched_randomness():
            outputs = logits_of(run_at(evaluation_copy(network), {}, inputs))
        if not isinstance(outputs, Tensor) or outputs.dim() != 2 or len(outputs) != len(inputs):
            got = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise ArchitectureError(
                f"Expected outputs (N, classes) for {len(inputs)} inputs but got {got}: wrap the network so that it "
                f"returns them, or an object with such logits."
            )
        if means and outputs.shape[1] != len(means[0]):
            raise ArchitectureError(
                f"Expected one number of classes in all networks but got {len(means[0])} and {outputs.shape[1]}: "
                f"give all one head, with a row for every class."
            )
        if not len(outputs) or not bool(outputs.isfinite().all()):
            raise DataError(
                f"Expected finite outputs for at least one input but got {len(outputs)}, of which some may be "
                f"infinite or NaN: look at the inputs."
            )
        means.append(outputs.double().softmax(1).mean(0))
    weighted = torch.stack(means) * torch.tensor(shares, dtype=torch.float64)[:, None]
    total = weighted.sum(0)
    # A class that nobody ever gives any probability says nothing.
    known = torch.where(total > 0, weighted / total, torch.tensor(shares, dtype=torch.float64)[:, None])
    return known


def weigh_classes(
    networks: Sequence[nn.Module],
    known: Tensor,
    head: str,
    shares: Sequence[float] | None = None,
) -> list[nn.Module]:
    r"""Scale each classifier's rows by what is known.

    A mean by shares is then one by knowledge.

    .. math:: v'_{m, c} = \frac{q_m(c)}{s_m}\, v_{m, c}, \qquad \sum_m s_m v'_{m, c} = \sum_m q_m(c)\, v_{m, c}

    An owner who has never seen a class only knows that it never came: in a plain mean that says no as loudly as
    others say yes.

    Args:
        networks: of one number of classes; none is changed.
        known: q, from :func:`known_classes`, (networks, classes).
        head: name of the last layer, whose tensors have one row a class.
        shares: s, as for :func:`known_classes`.

    Returns:
        Copies. They are meant for a mean, not for use alone.

    Raises:
        ArchitectureError: no such layer, or other numbers of rows; the tensor is named.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> one, other = weigh_classes([net, net], torch.tensor([[1.0, 0.5], [0.0, 0.5]]), "2")
        >>> torch.equal(one[2].weight[0], 2 * net[2].weight[0]), other[2].weight[0].abs().sum().item()
        (True, 0.0)

    Source: this package; weights by counts of classes, which owners would have to tell: Wang et al. (2020).
    """
    shares = check_shares(shares, len(networks))
    weighed = []
    for network, row, share in zip(networks, known, shares, strict=True):
        state = tensors_of(network)
        names = [name for name in state if name.startswith(f"{head}.")]
        if not names:
            raise ArchitectureError(f"Expected a layer {head!r} with one row a class but got no such layer.")
        for name in names:
            tensor = state[name]
            if not tensor.dim() or len(tensor) != len(row):
                raise ArchitectureError(
                    f"Expected {len(row)} rows of {name!r}, one a class, but got shape {tuple(tensor.shape)}."
                )
            factors = (row / share).to(tensor).reshape(-1, *[1] * (tensor.dim() - 1))
            state[name] = tensor * factors
        weighed.append(resized(network, state))
    return weighed
