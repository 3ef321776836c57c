"""What layers take, and what they or the norms behind them return."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any

from torch import Tensor, nn

from sinkhorn_rebasin.merging.partial.layer_places import LayerPlace
from sinkhorn_rebasin.networks.execution import run_at
from sinkhorn_rebasin.networks.layers import first_argument


def watched(
    network: nn.Module, places: Sequence[LayerPlace], inputs: Any
) -> dict[LayerPlace, list[tuple[Tensor, Tensor]]]:
    """Collect inputs and outputs of layers.

    The network is run; every call gives one pair.

    The outputs are those of the batch norm where one follows. The run stops where a single layer that runs once has
    been seen.

    >>> import torch
    >>> seen = watched(nn.Sequential(nn.Linear(2, 3)), [LayerPlace("0", None)], torch.ones(4, 2))
    >>> [[tuple(part.shape) for part in call] for calls in seen.values() for call in calls]
    [[(4, 2), (4, 3)]]
    """
    taken: dict[LayerPlace, list[Tensor]] = {place: [] for place in places}
    returned: dict[LayerPlace, list[Tensor]] = {place: [] for place in places}
    with ExitStack() as hooks:
        if len(places) == 1 and places[0].once:
            stop = network.get_submodule(places[0].output)
            hooks.callback(stop.register_forward_hook(_stop).remove)
        for place in places:
            before = network.get_submodule(place.path).register_forward_pre_hook(
                lambda _, given, named, place=place: taken[place].append(
                    first_argument(given, named).clone()
                ),
                with_kwargs=True,
            )
            # A later operation may write into the output in place.
            after = network.get_submodule(place.output).register_forward_hook(
                lambda _, __, output, place=place: returned[place].append(output.clone()), prepend=True
            )
            hooks.callback(before.remove)
            hooks.callback(after.remove)
        hooks.enter_context(suppress(_Stopped))
        run_at(network, {}, inputs)
    return {place: list(zip(taken[place], returned[place], strict=True)) for place in places}


class _Stopped(Exception):
    """End a run that went far enough."""


def _stop(*_: Any) -> None:
    raise _Stopped
