"""Networks to repair, what is corrected in them, and activations recorded by hand."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sinkhorn_rebasin import LinearPath
from tests.zoo.case import Function


def mlp() -> nn.Module:
    """Two hidden layers of twelve and nine units, five inputs."""
    return nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 3))


def layer_norm_mlp() -> nn.Module:
    """The same widths with a layer norm behind each hidden layer."""
    first, second = nn.Linear(5, 12), nn.Linear(12, 9)
    return nn.Sequential(first, nn.LayerNorm(12), nn.ReLU(), second, nn.LayerNorm(9), nn.Linear(9, 3))


def residual() -> nn.Module:
    """The second use of the stream sees what the first block added to it."""

    def run(net: Function, x: Tensor) -> Tensor:
        stream = net.inward(x)
        stream = stream + net.second(net.first(stream).relu())
        return net.outward(stream.relu())

    layers = {"first": nn.Linear(8, 10), "second": nn.Linear(10, 8)}
    return Function(run, inward=nn.Linear(5, 8), outward=nn.Linear(8, 3), **layers)


def attention() -> nn.Module:
    """An encoder layer over three places of eight inputs."""
    return nn.Sequential(
        nn.Linear(5, 24),
        nn.Unflatten(1, (3, 8)),
        nn.TransformerEncoderLayer(8, 2, dim_feedforward=12, batch_first=True),
        nn.Flatten(),
        nn.Linear(24, 3),
    )


def convolutions() -> nn.Module:
    """Plain, grouped and transposed convolutions over one signal of five places."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 5)),
        nn.Conv1d(1, 6, 3, padding=1),
        nn.ReLU(),
        nn.Conv1d(6, 8, 3, groups=2),
        nn.ReLU(),
        nn.ConvTranspose1d(8, 6, 2, groups=2),
        nn.ReLU(),
        nn.ConvTranspose1d(6, 4, 2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(20, 3),
    )


NETWORKS = [mlp, layer_norm_mlp, residual, attention, convolutions]
# The layers of each network that a repair corrects.
CORRECTED = {
    mlp: ["0", "2"],
    layer_norm_mlp: ["0", "3"],
    residual: ["first", "inward", "second"],
    attention: ["0", "2.linear1", "2.linear2"],
    convolutions: ["1", "3", "5", "7"],
}


def pair(make: Callable[[], nn.Module]) -> tuple[nn.Module, nn.Module]:
    """Reference and target in float64 and eval mode, with no parameter at its neutral value."""
    torch.manual_seed(1)
    reference, target = make().double(), make().double()
    with torch.no_grad():
        for net in (reference, target):
            for parameter in net.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    return reference.eval(), target.eval()


def batches(*sizes: int) -> list[Tensor]:
    """Batches of five inputs each, always the same."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, 5, generator=generator, dtype=torch.float64) + 0.5 for n in sizes]


def merge(reference: nn.Module, target: nn.Module, at: float = 0.5) -> nn.Module:
    """The network at this position of the segment, not repaired."""
    return LinearPath.between(target, reference).module_at(at)


def recorded(net: nn.Module, name: str, data: list[Tensor]) -> Tensor:
    """Outputs of a layer as (units, values), run by the network's own forward."""
    seen: list[Tensor] = []
    handle = net.get_submodule(name).register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.no_grad():
        for x in data:
            net(x)
    handle.remove()
    if isinstance(net.get_submodule(name), nn.Linear):
        return torch.cat([output.flatten(0, -2) for output in seen]).T
    return torch.cat([output.transpose(0, 1).flatten(1) for output in seen], dim=1)
