"""The tensors of a LoRA by what they belong to: pairs of factors, and tensors that replace the base's."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from sinkhorn_rebasin._typing import State, StateLike
from sinkhorn_rebasin.carrying.update import wide
from sinkhorn_rebasin.errors import ArchitectureError

_FACTORS = {
    "lora_A.weight": "inputs",
    "lora_B.weight": "outputs",
    "lora_embedding_A": "inputs",
    "lora_embedding_B": "outputs",
    "lora_B.bias": "bias",
    "lora_magnitude_vector": "magnitude",
    "lora_magnitude_vector.weight": "magnitude",
}


@dataclass(frozen=True)
class Factors:
    r"""Hold the factors of one weight's update, :math:`\Delta W = c\, B A`.

    Attributes:
        weight: the name of the weight in the base.
        input_axis, output_axis: of the weight, which A and B belong to.
        scaling: c.
        inputs: A, (rank, inputs, ...).
        outputs: B, (outputs, rank, ...).
        bias: of B, (outputs,).
        magnitude: of DoRA, one number for each output.
        keys: the name in the adapter of each of these that is there.
    """

    weight: str
    input_axis: int
    output_axis: int
    scaling: float
    inputs: Tensor
    outputs: Tensor
    bias: Tensor | None
    magnitude: Tensor | None
    keys: Mapping[str, str]

    @property
    def bias_name(self) -> str:
        """Name the bias beside the weight."""
        return self.weight.removesuffix("weight") + "bias"

    def product(self) -> Tensor:
        r"""Return :math:`c\, B A`, in the shape of the weight and in double precision."""
        rank = len(self.inputs)
        matrix = self.scaling * wide(self.outputs).reshape(-1, rank) @ wide(self.inputs).reshape(rank, -1)
        product = matrix.reshape(len(matrix), *self.inputs.shape[1:])
        return product.transpose(0, 1) if self.output_axis == 1 else product

    def norms(self, weight: Tensor) -> Tensor:
        """Return the norm of a weight for each output, in double precision."""
        return wide(weight).movedim(self.output_axis, 0).flatten(1).norm(dim=1)

    def gains(self, weight: Tensor) -> Tensor | None:
        r"""Return what DoRA multiplies each output by, :math:`m / \lVert W + \Delta W \rVert`."""
        if self.magnitude is None:
            return None
        return wide(self.magnitude).flatten() / self.norms(wide(weight) + self.product())

    def added(self, weight: Tensor) -> Tensor:
        """Return the weight with its update, in double precision."""
        total, gains = wide(weight) + self.product(), self.gains(weight)
        if gains is None:
            return total
        shape = [1] * total.ndim
        shape[self.output_axis] = -1
        return total * gains.reshape(shape)

    def tensors(self) -> State:
        """Return the tensors by their names in the adapter."""
        return {key: getattr(self, part) for part, key in self.keys.items()}


def parts_of(
    config: Mapping[str, Any], tensors: StateLike, network: nn.Module, role: str = "base"
) -> tuple[list[Factors], State]:
    """Sort an adapter's tensors by the weights of a network.

    Args:
        config, tensors: of the adapter.
        network: the base.
        role: of the network, for messages.

    Returns:
        The pairs of factors, and tensors that take the place of the base's, by the base's names.

    Raises:
        ArchitectureError: a tensor has no counterpart in the network, or another shape; it is named.
    """
    pairs: dict[str, dict[str, str]] = {}
    replaced: State = {}
    for key, tensor in tensors.items():
        module, part = _split(key)
        if part is None:
            replaced[key.replace(".base_layer.", ".")] = tensor
        else:
            pairs.setdefault(module, {})[part] = key
    modules = dict(network.named_modules())
    factors = [
        _factors(module, keys, config, tensors, modules, role) for module, keys in sorted(pairs.items())
    ]
    known = {*dict(network.named_parameters(remove_duplicate=False)), *dict(network.named_buffers())}
    for name in replaced:
        if name not in known:
            raise ArchitectureError(
                f"Expected an adapter for the {role} but it holds {name!r}, which the {role} does not have, and "
                f"which is no factor of a LoRA: it was made for another base, or by another method."
            )
    return factors, replaced


def _split(key: str) -> tuple[str, str | None]:
    """Part a key into a module's path and what the tensor is to it; None where it is no factor.

    >>> _split("h.0.c_attn.lora_B.weight"), _split("score.weight")
    (('h.0.c_attn', 'outputs'), ('score.weight', None))
    """
    for ending, part in _FACTORS.items():
        if key == ending or key.endswith(f".{ending}"):
            return key.removesuffix(ending).rstrip("."), part
    return key, None


def _factors(
    module: str,
    keys: Mapping[str, str],
    config: Mapping[str, Any],
    tensors: StateLike,
    modules: Mapping[str, nn.Module],
    role: str,
) -> Factors:
    held = modules.get(module)
    weight = getattr(held, "weight", None)
    if held is None or not isinstance(weight, Tensor):
        raise ArchitectureError(
            f"Expected a counterpart of the adapter's target {module!r} in the {role} but it has no such module with "
            f"a weight: it was made for another base."
        )
    for part, ending in (("inputs", "A"), ("outputs", "B")):
        if part not in keys:
            raise ArchitectureError(
                f"Expected both factors of {module!r} but the adapter lacks its {ending}."
            )
    if getattr(held, "groups", 1) != 1:
        raise ArchitectureError(
            f"Expected targets of one convolution group but {module!r} has {held.groups}: merge the adapter into its "
            f"base, and carry the merged network as a fine-tune."
        )
    first, second = tensors[keys["inputs"]], tensors[keys["outputs"]]
    # Embeddings and the Conv1D of GPT-2 have their inputs along the first axis.
    turned = "lora_embedding" in keys["inputs"] or type(held).__name__ == "Conv1D"
    factors = Factors(
        f"{module}.weight" if module else "weight",
        int(not turned),
        int(turned),
        scaling_of(module, len(first), config),
        first,
        second,
        tensors[keys["bias"]] if "bias" in keys else None,
        tensors[keys["magnitude"]] if "magnitude" in keys else None,
        dict(keys),
    )
    sizes = [
        second.shape[0],
        first.shape[1] if first.ndim > 1 else -1,
        *first.shape[2:],
    ]
    expected = list(weight.transpose(0, 1).shape if turned else weight.shape) if weight.ndim > 1 else []
    if sizes != expected or second.shape[1] != len(first):
        raise ArchitectureError(
            f"Expected factors for {factors.weight!r} of the {role}, of shape {tuple(weight.shape)}, but got A of "
            f"shape {tuple(first.shape)} and B of shape {tuple(second.shape)}: the adapter was made for another base."
        )
    return factors


def scaling_of(module: str, rank: int, config: Mapping[str, Any]) -> float:
    r"""Return what PEFT multiplies a module's product by, :math:`\alpha / r` or :math:`\alpha / \sqrt r`.

    >>> scaling_of("h.0.c_attn", 4, {"lora_alpha": 8, "alpha_pattern": {"c_attn": 16}})
    4.0
    """
    patterns: Mapping[str, float] = config.get("alpha_pattern") or {}
    fitting = [value for pattern, value in patterns.items() if re.match(rf"(.*\.)?({pattern})$", module)]
    alpha = float(fitting[0] if fitting else config.get("lora_alpha", 8))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
