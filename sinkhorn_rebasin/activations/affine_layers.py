"""The layers whose outputs can be rescaled and shifted, unit by unit, by changing their weights and biases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from sinkhorn_rebasin._typing import State, StateLike
from sinkhorn_rebasin.activations.sites import has_transposed_weight
from sinkhorn_rebasin.networks.layers import is_plain_affine
from sinkhorn_rebasin.permutations import PermutationSpec


@dataclass(frozen=True)
class AffineLayer:
    r"""Describe an affine layer and its hidden units.

    The layer is linear or a convolution, :math:`y = W x + b`.

    Attributes:
        name: path of the layer in the network.
        units: positions along the output that a permutation group moves, ascending.
        outputs: how many output units there are.
        has_bias: whether there is a bias to shift by.
        convolution_groups: of a layer whose weight is (in, out / groups, ...): a transposed convolution, or a linear
            layer that is written so, in one group; else None.
    """

    name: str
    units: tuple[int, ...]
    outputs: int
    has_bias: bool
    convolution_groups: int | None = None

    @property
    def weight(self) -> str:
        """Name the weight as the state does."""
        return _joined(self.name, "weight")

    @property
    def bias(self) -> str:
        """Name the layer's bias.

        It is the name in the state, if there is a bias.
        """
        return _joined(self.name, "bias")

    def transformed(self, state: StateLike, scale: Tensor, shift: Tensor) -> State:
        r"""Scale and shift a layer's output.

        With the new weight and bias it gives :math:`s\, y + t` in place of :math:`y`.

        Without a bias the shift is left out.

        Args:
            state: tensors of the network; unchanged.
            scale, shift: (outputs,), of any floating type.

        Example:
            >>> import torch
            >>> layer = nn.Linear(3, 2)
            >>> affine = AffineLayer("", (0, 1), 2, True)
            >>> s, t, x = torch.tensor([2.0, 1.0]), torch.tensor([0.0, 1.0]), torch.randn(4, 3)
            >>> new = affine.transformed(layer.state_dict(), s, t)
            >>> torch.allclose(torch.func.functional_call(layer, new, (x,)), s * layer(x) + t, atol=1e-6)
            True
        """
        weight = state[self.weight]
        new = {self.weight: (weight * self._per_weight(scale, weight)).to(weight.dtype)}
        if self.has_bias:
            bias = state[self.bias]
            new[self.bias] = (bias * scale + shift).to(bias.dtype)
        return new

    def _per_weight(self, scale: Tensor, weight: Tensor) -> Tensor:
        """Spread the outputs' scales over the weight.

        Each entry gets the scale of the output that it leads to. Axes along which the scale is broadcast have length
        one.
        """
        if self.convolution_groups is None:
            return scale.reshape(-1, *[1] * (weight.ndim - 1))
        # Inputs of the i-th convolution group lead to the i-th part of the outputs.
        parts = scale.reshape(self.convolution_groups, 1, weight.shape[1])
        rows = weight.shape[0] // self.convolution_groups
        return parts.expand(-1, rows, -1).reshape(*weight.shape[:2], *[1] * (weight.ndim - 2))


def affine_layers(network: nn.Module, spec: PermutationSpec) -> dict[nn.Module, AffineLayer]:
    """List the layers that put out hidden units.

    They are linear and convolution layers, in the order of registration. Linear layers of other libraries with a
    weight (in, out) are among them.

    Left out are layers that share a weight or bias with another layer, such as an embedding, whose function
    would change with it, layers whose weight is computed from other parameters, and those with a forward of their
    own, which need not be affine in the weight (low-rank adapters, standardised weights).

    >>> import torch
    >>> from sinkhorn_rebasin import discover_symmetry
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> [layer.name for layer in affine_layers(net, discover_symmetry(net, torch.randn(2, 4))).values()]
    ['0']
    """
    owners = _owners(network)
    found: dict[nn.Module, AffineLayer] = {}
    for name, child in network.named_modules():
        turned = has_transposed_weight(child)
        if not (is_plain_affine(child) or turned) or _why_fixed(child, owners):
            continue
        units = _hidden_units(network, child, name, spec, turned)
        if units:
            found[child] = AffineLayer(name, units, *_shape_of(child, turned))
    return found


def _shape_of(layer: Any, turned: bool) -> tuple[int, bool, int | None]:
    """Return how many outputs a layer has, whether it has a bias, and groups where its weight is (in, out)."""
    if turned:
        return layer.weight.shape[1], True, 1
    outputs = layer.out_channels if isinstance(layer, _ConvNd) else layer.out_features
    return outputs, layer.bias is not None, layer.groups if isinstance(layer, _ConvTransposeNd) else None


def fixed_layers(network: nn.Module, spec: PermutationSpec) -> dict[str, str]:
    """Name the layers that cannot be rescaled.

    They put out hidden units. Each comes with the reason.

    >>> import torch
    >>> from sinkhorn_rebasin import discover_symmetry
    >>> net = nn.Sequential(nn.GRU(4, 8, batch_first=True))
    >>> net.append(nn.Module()).append(nn.Linear(8, 3))[1].forward = lambda found: found[0]
    >>> fixed_layers(net, discover_symmetry(net, torch.randn(2, 5, 4)))
    {'0': 'it is recurrent'}
    """
    owners = _owners(network)
    found: dict[str, str] = {}
    for name, child in network.named_modules():
        reason = _why_fixed(child, owners)
        if not reason:
            continue
        if isinstance(child, (nn.Linear, _ConvNd)):
            hidden = bool(_hidden_units(network, child, name, spec, False))
        else:
            held = {**child._parameters, **child._buffers}  # a frozen copy has buffers in place of parameters
            own = [key for key, tensor in held.items() if tensor is not None and tensor.ndim > 1]
            hidden = any(0 in slot.axes for key in own for slot in spec.slots_on(_joined(name, key)))
        if hidden:
            found[name] = reason
    return found


def _owners(network: nn.Module) -> Counter[int]:
    """Count the modules that hold each tensor.

    Tensors are given by their ids.
    """
    return Counter(id(tensor) for child in network.modules() for tensor in _own_tensors(child))


def _why_fixed(child: nn.Module, owners: Mapping[int, int]) -> str:
    """Say why a layer cannot be rescaled.

    The text is empty where its weight and bias can be rescaled, or where it has no hidden units.
    """
    if isinstance(child, (nn.RNNBase, nn.RNNCellBase)):
        return "it is recurrent"
    if isinstance(child, nn.MultiheadAttention):
        return "its projections are packed in one weight"
    turned = has_transposed_weight(child)
    if not (turned or isinstance(child, (nn.Linear, _ConvNd))):
        return ""
    if not (turned or is_plain_affine(child)):
        return "it has a forward of its own"
    if not _holds_its_weight(child):
        return "its weight is computed from other tensors"
    if any(owners[id(tensor)] > 1 for tensor in (child.weight, child.bias) if tensor is not None):
        return "it shares its weight with another layer"
    return ""


def _own_tensors(module: nn.Module) -> list[Tensor]:
    held = [*module._parameters.values(), *module._buffers.values()]
    return [tensor for tensor in held if tensor is not None]


def _holds_its_weight(layer: nn.Module) -> bool:
    """Tell whether the weight is held as it is.

    It is then a real tensor under its own name, a parameter or a frozen one.
    """
    weight = layer._parameters.get("weight", layer._buffers.get("weight"))
    bias = layer._parameters.get("bias", layer._buffers.get("bias"))
    return weight is not None and weight.is_floating_point() and (layer.bias is None) == (bias is None)


def _hidden_units(
    network: nn.Module, layer: nn.Module, name: str, spec: PermutationSpec, turned: bool
) -> tuple[int, ...]:
    # The same layer may be registered under several names, of which the spec may use any.
    names = [path for path, child in network.named_modules(remove_duplicate=False) if child is layer]
    units: set[int] = set()
    for path in names or [name]:
        for slot in spec.slots_on(_joined(path, "bias")):
            units.update(slot.layout.table().ravel().tolist())
        if turned or isinstance(layer, _ConvTransposeNd):
            axes = (1,) if turned or layer.groups == 1 else ()
        else:
            axes = (0,)
        for slot in spec.slots_on(_joined(path, "weight")):
            if slot.axes == axes:
                units.update(slot.layout.table().ravel().tolist())
    return tuple(sorted(units))


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
