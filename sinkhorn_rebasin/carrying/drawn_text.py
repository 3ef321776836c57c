"""Text that a language model draws itself: tokens of what it was tuned to, where there are no data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.networks.copying import evaluation_copy
from sinkhorn_rebasin.networks.execution import device_of, run_at
from sinkhorn_rebasin.networks.randomness import untouched_randomness

LONGEST = 64
WINDOWS = 128


def position_axis(network: nn.Module, tokens: Any) -> int | None:
    """Return the axis of the positions of a language model's scores; None where it is no language model.

    It takes tokens (N, T) and gives scores of every token at every position, and no position sees later ones: that is
    tried out on a changed last token.

    Args:
        network: any network.
        tokens: what it takes.

    Example:
        >>> position_axis(nn.Embedding(5, 5), torch.zeros(2, 3, dtype=torch.long))
        1
        >>> position_axis(nn.Linear(3, 5), torch.zeros(2, 3)) is None
        True
    """
    integers = isinstance(tokens, Tensor) and not (tokens.is_floating_point() or tokens.is_complex())
    if not integers or tokens.ndim != 2 or tokens.shape[1] < 2:
        return None
    known = [layer.num_embeddings for layer in network.modules() if isinstance(layer, nn.Embedding)]
    first = tokens.clone()
    second = tokens.clone()
    second[:, -1] = (second[:, -1] + 1) % min(known, default=1)
    scores, changed = (_scores(network, each) for each in (first, second))
    if not isinstance(scores, Tensor) or scores.ndim != 3:
        return None
    length = tokens.shape[1]
    for axis in (1, 2):
        if scores.shape[axis] != length or scores.shape[3 - axis] not in known:
            continue
        moved = (scores - changed).abs().movedim(axis, 0)
        if not moved[:-1].any() and bool(moved[-1].any()):
            return axis
    return None


def class_axis(network: nn.Module, inputs: Any, outputs: Any) -> int:
    """Return the axis of the classes.

    - Of a language model the axis that is not that of positions, see :func:`position_axis`.
    - Of four axes or more the second, as ``F.cross_entropy`` takes it.
    - Else the last.

    Args:
        network: that gave the outputs.
        inputs: what it takes.
        outputs: its scores.

    Example:
        >>> tokens = torch.zeros(2, 3, dtype=torch.long)
        >>> class_axis(nn.Embedding(5, 5), tokens, torch.zeros(2, 3, 5))
        2
    """
    if not isinstance(outputs, Tensor) or outputs.ndim < 3:
        return -1
    if outputs.ndim > 3:
        return 1
    positions = position_axis(network, inputs[:2] if isinstance(inputs, Tensor) else inputs)
    return -1 if positions is None else 3 - positions


def drawn_text(network: nn.Module, tokens: Tensor, seed: int, windows: int = WINDOWS) -> Tensor:
    r"""Draw windows of tokens from a language model, one token after the other.

    .. math:: t_{i+1} \sim \mathrm{softmax}\bigl(f(t_1, \dots, t_i)\bigr)

    The first token of each is any. Windows have the length of ``tokens``, at most 64.

    Args:
        network: a language model: see :func:`position_axis`.
        tokens: what it takes, (N, T).
        seed: of the draw.
        windows: how many are drawn.

    Returns:
        Tokens, (windows, T).

    Example:
        >>> drawn_text(nn.Embedding(5, 5), torch.zeros(2, 3, dtype=torch.long), 0).shape
        torch.Size([128, 3])
    """
    length = min(tokens.shape[1], LONGEST)
    axis = position_axis(network, tokens[:, :length])
    assert axis is not None
    generator = torch.Generator().manual_seed(seed)
    window = torch.zeros(windows, length, dtype=tokens.dtype, device=tokens.device)
    count = _scores(network, tokens[:, :length]).shape[3 - axis]
    for position in range(length):
        if not position:
            drawn = torch.randint(count, (windows,), generator=generator)
        else:
            scores = _scores(network, window[:, : max(2, position)]).select(axis, position - 1)
            drawn = torch.multinomial(scores.float().softmax(-1).cpu(), 1, generator=generator)[:, 0]
        window[:, position] = drawn.to(window)
    return window


@torch.no_grad()
def _scores(network: nn.Module, tokens: Tensor) -> Any:
    state = tensors_of(network)
    with untouched_randomness():
        outputs = run_at(evaluation_copy(network), {}, tokens.to(device_of(state)))
    return getattr(outputs, "logits", outputs)
