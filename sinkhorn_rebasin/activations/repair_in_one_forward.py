"""REPAIR in one forward of the data: every layer is put right the moment its outputs appear."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from sinkhorn_rebasin._typing import State, StateLike
from sinkhorn_rebasin.activations.affine_layers import AffineLayer
from sinkhorn_rebasin.activations.batch_norm import measured_buffers
from sinkhorn_rebasin.activations.lockstep import Meet, in_lockstep
from sinkhorn_rebasin.activations.moments import Moments
from sinkhorn_rebasin.activations.repair_sites import Stages, check_finite
from sinkhorn_rebasin.networks.batches import move_to
from sinkhorn_rebasin.networks.execution import device_of, run_at
from sinkhorn_rebasin.networks.frozen import own_buffers
from sinkhorn_rebasin.networks.layers import first_argument
from sinkhorn_rebasin.networks.observed_run import TensorReads
from sinkhorn_rebasin.networks.private_run import private_copy
from sinkhorn_rebasin.networks.randomness import untouched_randomness

Correction: TypeAlias = Callable[[AffineLayer, Moments], tuple[Tensor, Tensor] | None]
"""Layer and moments of its outputs to a scale and a shift of them, or to None where they stay."""

# The activations of all batches are in memory at once: so many batches, and so many bytes of one layer, at most. A
# batch has a thread and a copy of the network's modules, half a megabyte.
MOST_BATCHES, MOST_BYTES = 256, 1 << 30
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


@torch.no_grad()
def corrected_in_one_forward(
    network: nn.Module,
    stages: Stages,
    state: StateLike,
    inputs: Sequence[Any],
    correction: Correction,
) -> State | None:
    """Correct a state in one forward.

    Each correction is found with all layers that run before it corrected. All batches are run together, from one
    layer to the next: each is run once.

    Args:
        network: a copy of the network.
        stages: the layers to correct and the batch norms to measure.
        state: parameters and buffers; unchanged.
        inputs: the batches.
        correction: asked for each layer when its outputs of all batches are there.

    Returns:
        None where that is not what one layer after the other gives: a layer runs more than once, or its weight is
        read outside of it as well, so that its correction depends on runs that come later; batches take the layers
        in different orders; something is drawn at random, or is set for this thread alone; norms share statistics.
        Also where the activations of all batches would take too much memory.
    """
    if len(inputs) > 1 and (len(inputs) > MOST_BATCHES or _thread_is_special()):
        return None
    names = [stage if isinstance(stage, str) else stage.name for stage in stages.values()]
    own = dict(network.named_modules())
    kept = [own[name]._buffers[key] for name in names for key in _BUFFERS if _is_norm(own[name])]
    if len({id(tensor) for tensor in kept if tensor is not None}) < sum(t is not None for t in kept):
        return None
    joint = _Together(state, stages, correction, MOST_BYTES if len(inputs) > 1 else float("inf"))
    batches = [_Batch(network, joint, batch) for batch in inputs]
    drawn = torch.get_rng_state()
    with untouched_randomness():
        try:
            together = in_lockstep(batches, names, joint.decide)
        except _TooMuchError:
            return None
        if not together or not all(batch.is_plain() for batch in batches):
            return None
        if len(inputs) > 1 and not torch.equal(torch.get_rng_state(), drawn):
            return None
    return joint.corrected()


class _TooMuchError(MemoryError):
    """Say that activations take too much memory.

    Those of all batches do not fit what they may take.
    """


def _is_norm(layer: nn.Module) -> bool:
    return "running_mean" in layer._buffers


def _thread_is_special() -> bool:
    """Tell whether this thread runs operations differently.

    A new thread would not run them so.
    """
    modes = torch._C._len_torch_function_stack() or _get_current_dispatch_mode() is not None
    return bool(modes) or any(map(torch.is_autocast_enabled, ("cpu", "cuda", "xpu", "mps")))


class _Together:
    """Hold what all batches have in common.

    These are the stages by name, and what was found at them.

    Attributes:
        state: the tensors before any correction.
        layers, norms: what is corrected and what is measured, by name.
        buffers: new statistics of norms.
    """

    def __init__(self, state: StateLike, stages: Stages, correction: Correction, most_bytes: float) -> None:
        self.state = state
        self.layers = {stage.name: stage for stage in stages.values() if isinstance(stage, AffineLayer)}
        self.norms = [stage for stage in stages.values() if isinstance(stage, str)]
        self._correction = correction
        self._corrections: dict[str, tuple[Tensor, Tensor]] = {}
        self.buffers: State = {}
        self._most_bytes, self._held = most_bytes, 0

    def statistics(self) -> list[str]:
        """Name the buffers of the norms."""
        return [f"{name}.{key}" if name else key for name in self.norms for key in _BUFFERS]

    def watched(self) -> set[str]:
        """Name the tensors whose reads tell whether a run is plain."""
        return {layer.weight for layer in self.layers.values()}.union(self.statistics())

    def moments(self, values: Tensor, axis: int) -> Moments:
        """Measure what one batch brings to a layer.

        Raises:
            MemoryError: the batches that wait there hold too much.
        """
        self._held += values.numel() * values.element_size()
        if self._held > self._most_bytes:
            raise _TooMuchError
        moments = Moments()
        moments.update(values, axis)
        return moments

    def decide(self, name: str, found: Sequence[Moments]) -> Any:
        """Decide on a layer's correction or norm's buffers.

        None stands for no correction.
        """
        self._held = 0
        moments = Moments()
        for part in found:
            moments.merge(part)
        check_finite({name: moments})
        if name in self.layers:
            correction = self._correction(self.layers[name], moments)
            if correction is not None:
                self._corrections[name] = correction
            return correction
        buffers = measured_buffers(self.state, {name: moments}) if moments.count > 1 else {}
        self.buffers.update(buffers)
        return {full.rpartition(".")[2]: tensor for full, tensor in buffers.items()}

    def corrected(self) -> State:
        """Return the state with all that was found."""
        corrected = dict(self.state)
        corrected.update(self.buffers)
        for name, found in self._corrections.items():
            corrected.update(self.layers[name].transformed(self.state, *found))
        return corrected


class _Batch:
    """Run one batch on a copy of the network.

    The copy is of its own and has the state for good.
    """

    def __init__(self, network: nn.Module, joint: _Together, inputs: Any) -> None:
        self._network, self._joint, self._inputs = network, joint, inputs
        self._runs: dict[str, int] = dict.fromkeys(chain(joint.layers, joint.norms), 0)
        self._readers = TensorReads(joint.state)

    def __call__(self, meet: Meet) -> None:
        state, watched = self._joint.state, self._joint.watched()
        written = [name for name in own_buffers(self._network) if name in state and name not in watched]
        twin = private_copy(self._network, {**state, **{name: state[name].clone() for name in written}})
        layers = dict(twin.named_modules())
        for name, stage in self._joint.layers.items():
            # In front of a layer's own hooks, which then see what the corrected weights give.
            layers[name].register_forward_hook(self._after(stage, meet), prepend=True)
        for name in self._joint.norms:
            layers[name].register_forward_pre_hook(self._before(name, meet), with_kwargs=True)
        inputs = move_to(self._inputs, device_of(state))
        with self._readers:
            run_at(twin, {}, inputs)

    def is_plain(self) -> bool:
        """Tell whether the run was plain.

        Each layer ran at most once then, and nothing else read what is corrected.
        """
        joint = self._joint
        reads = [self._readers.reads(layer.weight) for layer in joint.layers.values()]
        # The norms themselves read the buffers that they were given instead.
        stray = [self._readers.reads(name) for name in joint.statistics() if name in joint.buffers]
        return max([*self._runs.values(), *reads], default=0) < 2 and not any(stray)

    def _after(self, stage: AffineLayer, meet: Meet) -> Callable[..., Tensor]:
        axis = (
            1 - self._joint.state[stage.weight].ndim
        )  # from the end, where there are as many axes of positions

        def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            """Correct a layer's outputs at its first run."""
            self._runs[stage.name] += 1
            if self._runs[stage.name] > 1:
                return output
            found = meet(stage.name, self._joint.moments(output, axis))
            if found is None:
                return output
            scale, shift = found
            return _transformed(output, axis, scale, shift, stage.has_bias)

        return hook

    def _before(self, name: str, meet: Meet) -> Callable[..., None]:
        def hook(norm: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            """Give a norm its statistics before its first run."""
            self._runs[name] += 1
            if self._runs[name] > 1:
                return
            values = first_argument(arguments, keywords)
            norm._buffers.update(meet(name, self._joint.moments(values, 1)))

        return hook


def _transformed(output: Tensor, axis: int, scale: Tensor, shift: Tensor, has_bias: bool) -> Tensor:
    """Apply a correction to what a layer gives.

    The shift counts as part of the bias; a layer without a bias has none.
    """
    shape = [1] * output.ndim
    shape[axis] = -1
    # Rounded to half precision once, not twice.
    wide = output.to(torch.promote_types(output.dtype, torch.float32))
    moved = wide * scale.to(wide).reshape(shape)
    if has_bias:
        moved = moved + shift.to(wide).reshape(shape)
    return moved.to(output.dtype)
