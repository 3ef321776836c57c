"""What the operations of one forward return, for whoever looks for hidden units where no layer shows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from sinkhorn_rebasin._typing import ExampleInputs, StateLike
from sinkhorn_rebasin.networks.dispatch_mode import DispatchMode
from sinkhorn_rebasin.networks.execution import run_at
from sinkhorn_rebasin.networks.nested_tensors import tensors_in
from sinkhorn_rebasin.networks.tensor_tables import TensorTable
from sinkhorn_rebasin.networks.uncompiled import run_uncompiled
from sinkhorn_rebasin.networks.undisturbed import plain_operations
from sinkhorn_rebasin.symmetry.labels.origin import Origin
from sinkhorn_rebasin.symmetry.tracing.call_sites import CallSites

Place: TypeAlias = tuple[Origin, int]
"""An operation at a line of code, and the number of a tensor among those it returns."""
Recording: TypeAlias = list[tuple[Place, Tensor]]


class Recorder(DispatchMode):
    """Copy what operations on the inputs return.

    The copies come in order. What is made of weights alone is left out.
    """

    def __init__(
        self, network: nn.Module, inputs: ExampleInputs, keep: Callable[[Place, Tensor], bool]
    ) -> None:
        super().__init__()
        self.recording: Recording = []
        self._keep = keep
        self._origins = CallSites()
        self._origins.follow(network)
        self._reached: TensorTable[Any] = TensorTable()
        for tensor in tensors_in(inputs):
            self._reached[tensor] = True

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        outputs = func(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunction():
            given = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor)]
            if any(tensor in self._reached for tensor in given):
                self._see(func, given, outputs)
        return outputs

    def _see(self, func: Any, given: list[Tensor], outputs: Any) -> None:
        returned = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]
        written = given[:1] if func._schema.is_mutable else []
        for tensor in (*returned, *written):
            self._reached[tensor] = True
            if written and tensor._base is not None:
                self._reached[tensor._base] = True
        self._record(func, returned)

    def _record(self, func: Any, returned: list[Tensor]) -> None:
        origin = self._origins.here(str(func.overloadpacket))
        for index, tensor in enumerate(returned):
            if (
                tensor.is_floating_point()
                and tensor.layout == torch.strided
                and self._keep((origin, index), tensor)
            ):
                self.recording.append(((origin, index), tensor.detach().clone()))


def recorded(
    network: nn.Module, state: StateLike, inputs: ExampleInputs, keep: Callable[[Place, Tensor], bool]
) -> Recording:
    """Record the results of one forward's operations.

    ``keep`` says which results are kept. Fused kernels of recurrent layers are switched off, so that every step is an
    operation.

    >>> net = nn.Sequential(nn.Linear(3, 2), nn.Tanh())
    >>> seen = recorded(net, net.state_dict(), torch.ones(1, 3), lambda place, _: "tanh" in place[0].operation)
    >>> torch.equal(seen[0][1], net(torch.ones(1, 3)))
    True
    """
    recorder = Recorder(network, inputs, keep)

    def run() -> None:
        """Run the network under the recorder."""
        with recorder:
            run_at(network, state, inputs)

    with plain_operations(), torch.backends.cudnn.flags(enabled=False), torch.no_grad():
        run_uncompiled(run)
    return recorder.recording
